"""What is trained, against the engines that sample from it."""

from plumbob.configs.settings.algorithms import RANKED, Distillation, NoImportance
from plumbob.configs.settings.models import FrozenPolicySettings
from plumbob.configs.settings.training import OnlineSettings
from plumbob.configs.settings.tuning.any_tuning import AnyTuning
from plumbob.configs.settings.tuning.weights import WeightTuning
from plumbob.configs.settings.workers import RolloutSettings, VllmEngine


def check_published(tuning: AnyTuning, rollout: RolloutSettings) -> None:
    """Weights of the model itself are published to engines that take them in, and no adapter is."""
    if not isinstance(tuning, WeightTuning):
        return
    kind = f"policy.tuning.kind={tuning.kind}"
    if isinstance(rollout.engine, VllmEngine) and not rollout.can_merge:
        raise ValueError(
            f"{kind} publishes weights of the model, which vLLM takes in on one device, uncompiled: set "
            f"rollout.engine.enforce_eager=true and rollout.tensor_parallel=1, or rollout.engine.kind=transformers"
        )
    if rollout.adapter == "lora":
        raise ValueError(f"rollout.adapter=lora: {kind} publishes no adapter; leave rollout.adapter out")


def check_quantised_base(policy: FrozenPolicySettings, rollout: RolloutSettings, online: OnlineSettings) -> None:
    """Where the sampler's weights are not the learner's, something must correct for it."""
    is_stored, quantization = rollout.quantised_base == "stored", policy.quantization
    sampled = "rollout.quantised_base=stored"
    if quantization is None:
        if is_stored:
            raise ValueError(
                f"{sampled} is about a policy in few bits, and policy.quantization is not set: leave it out"
            )
        return
    instead = "rollout.quantised_base=dequantised"
    if not is_stored:
        if quantization.compute_dtype in (None, policy.dtype):
            return
        sampled = f"policy.quantization.compute_dtype={quantization.compute_dtype} beside policy.dtype={policy.dtype}"
        instead = f"policy.quantization.compute_dtype={policy.dtype}"
    estimator = online.estimator
    is_ranked, is_kl = isinstance(estimator, RANKED), isinstance(estimator, Distillation) and estimator.form == "full"
    unread = {
        "online.importance.kind=none": isinstance(online.importance, NoImportance),
        f"online.estimator.kind={estimator.kind}": is_ranked or is_kl,
    }
    for uncorrected in (key for key, is_set in unread.items() if is_set):
        raise ValueError(
            f"{sampled} samples from other weights than those that policy.quantization trains on, and {uncorrected} "
            f"corrects nothing of that: set {instead}"
        )
