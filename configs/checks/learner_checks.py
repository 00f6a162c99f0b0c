"""What is trained, against the learners that train it and what trained it before."""

from plumbob.configs.settings.algorithms import Estimator, Gae
from plumbob.configs.settings.models import PolicyBaseSettings
from plumbob.configs.settings.tuning.adapters import AdapterTuning
from plumbob.configs.settings.tuning.any_tuning import AnyTuning
from plumbob.configs.settings.tuning.weights import WeightTuning
from plumbob.configs.settings.workers import LearnerSettings


def check_divides(key: str, batch_size: int, learner: LearnerSettings) -> None:
    if batch_size % learner.num_workers:
        raise ValueError(
            f"{key}={batch_size} cannot be shared equally by learner.num_workers={learner.num_workers}: "
            f"make it a multiple of {learner.num_workers}"
        )


def check_float32_copy(policy: PolicyBaseSettings, learner: LearnerSettings) -> None:
    """Weights of 8 bits of precision do not move by steps of a thousandth: what trains them needs their float32."""
    tunings = [value for _, value in policy if isinstance(value, WeightTuning | AdapterTuning)]
    trains_weights = any(isinstance(tuning, WeightTuning) for tuning in tunings) if tunings else True
    if trains_weights and policy.dtype == "bfloat16" and learner.zero_stage == 0:
        raise ValueError(
            "learner.zero_stage=0 keeps no float32 copy of the weights that are trained, and in policy.dtype=bfloat16 "
            "small steps would be rounded away: leave learner.zero_stage out, or set policy.dtype=float32"
        )


def check_critic(tuning: AnyTuning, setting: str = "policy.tuning", estimator: Estimator | None = None) -> None:
    """`estimator`: of an online run; others have no critic."""
    if isinstance(tuning, WeightTuning) and tuning.critic == "head" and not isinstance(estimator, Gae):
        who = "a run of sft, dpo or kto" if estimator is None else f"online.estimator.kind={estimator.kind}"
        raise ValueError(f"{setting}.critic=head: {who} has no critic; leave {setting}.critic out")


def check_handed_on(sft_tuning: AnyTuning, tuning: AnyTuning) -> None:
    """Of a pipeline, whose alignment begins from what supervised fine-tuning leaves."""
    if isinstance(tuning, WeightTuning) and not isinstance(sft_tuning, WeightTuning):
        raise ValueError(
            f"policy.sft_tuning.kind={sft_tuning.kind} leaves an adapter, and policy.tuning.kind={tuning.kind} trains "
            f"weights of a full model: set policy.sft_tuning.kind=full, or policy.tuning.kind=lora"
        )
    are_adapters = isinstance(tuning, AdapterTuning) and isinstance(sft_tuning, AdapterTuning)
    if are_adapters and tuning.kind not in (sft_tuning.kind, "lora"):
        raise ValueError(
            f"policy.sft_tuning.kind={sft_tuning.kind} leaves an adapter, which is trained further as what it is, and "
            f"policy.tuning.kind={tuning.kind} is of another kind: set policy.sft_tuning.kind=full, or "
            f"policy.tuning.kind={sft_tuning.kind}"
        )
