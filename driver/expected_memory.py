"""How much memory each worker of a run is expected to take, told before anything is loaded."""

from collections.abc import Iterator
from dataclasses import replace
from typing import assert_never

from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSequenceClassification

from plumbob.cluster.resources import Expected, WorkerRole
from plumbob.configs.runs import (
    AnyRun,
    DpoRun,
    EvalRun,
    KtoRun,
    LearnerRun,
    PipelineRun,
    PpoRun,
    PretrainEncoderRun,
    PretrainRun,
    RewardRun,
    SftRun,
)
from plumbob.configs.settings.algorithms import Estimator, OnlineDpo, algorithm_of
from plumbob.configs.settings.data import LengthSettings
from plumbob.configs.settings.models import ModelRef, NewBertSettings, NewLlamaSettings, RewardEncoderSettings
from plumbob.configs.settings.rewards import RewardGroupSettings
from plumbob.configs.settings.tuning.encoders import EncoderLora
from plumbob.configs.settings.workers import (
    LearnerRankSettings,
    LearnerSettings,
    RolloutSettings,
    TransformersEngine,
    VllmEngine,
    ZeroStage,
)
from plumbob.core.errors import UserError
from plumbob.driver.expected_policy import BYTES, ExpectedPolicy, expected_policy
from plumbob.driver.stages.model_sampling import rollout_of
from plumbob.models.adapter import WEIGHTS_FILE, ModelRole
from plumbob.models.from_scratch import empty_bert, empty_llama
from plumbob.models.loading import open_baseline, open_model, open_policy
from plumbob.models.quantization.quantised_layers import base_bytes
from plumbob.models.sizes.config_sizes import sizes_of
from plumbob.models.sizes.memory import (
    Beside,
    MemoryEstimate,
    MicroBatch,
    Trained,
    beside_teachers,
    forward_memory,
    learner_memory,
    scorer_memory,
    transformers_memory,
    vllm_memory,
)
from plumbob.models.tuning.classifiers import num_trained
from plumbob.models.weight_files import num_stored
from plumbob.rollout.samplers.open_sampler import adapter_serving
from plumbob.rollout.samplers.sampler import NUM_HELD
from plumbob.trainers.offline import dpo, kto
from plumbob.trainers.online.ppo import roles_of

RESPONSES_OF_A_PAIR = 2

NUM_VERSIONS_HELD = 2
"""By a rollout worker: the version that it samples from and the one before."""


def expected_memory(run: AnyRun, longest: int | None = None) -> Expected:
    """Stage -> role -> what one of its workers takes; empty where nothing can be told.

    Args:
        longest: tokens of the longest sequence that learners compute; None takes what the settings allow.
    """
    try:
        return _of_pipeline(run) if isinstance(run, PipelineRun) else {run.stage: dict(_of_roles(run, longest))}
    except UserError:  # Code that comes with a model may need its weights to make it: of that nothing is told.
        return {}


def _of_roles(run: LearnerRun, longest: int | None) -> Iterator[tuple[WorkerRole, MemoryEstimate]]:
    match run:
        case PretrainRun():
            yield "learner", _pretrained(run.policy.ref, run.policy.dtype, run.learner, run.pretrain.block_tokens)
        case PretrainEncoderRun():
            yield "learner", _encoder(run.reward.encoder, run.learner, run.pretrain.block_tokens, is_masked_lm=True)
        case RewardRun():
            rows = 1 if run.data.kind == "scores" else RESPONSES_OF_A_PAIR
            yield "learner", _reward_model(run.reward, run.learner, rows * run.reward.max_tokens)
            if run.calibration.policy_ref is not None:
                policy = expected_policy(run.calibration.policy_ref, None)
                yield "rollout", _sampler(policy, run.rollout, run.data.max_prompt_tokens)
        case SftRun():
            policy = expected_policy(run.policy.ref, run.policy.tuning)
            yield "learner", _learner(policy, ("policy",), run.learner, _longest(policy, longest, run.data))
        case DpoRun() | KtoRun():
            policy = expected_policy(run.policy.ref, run.policy.tuning)
            rows = RESPONSES_OF_A_PAIR if isinstance(run, DpoRun) else 1
            roles = dpo.roles_of(run.dpo.loss) if isinstance(run, DpoRun) else kto.ROLES
            tokens = rows * _longest(policy, longest, run.data)
            yield "learner", _learner(policy, roles, run.learner, tokens)
        case PpoRun():
            policy = expected_policy(run.policy.ref, run.policy.tuning)
            prompt = run.data.max_prompt_tokens
            tokens = longest or min(policy.num_positions, prompt + run.rollout.max_tokens)
            tokens += policy.num_virtual_tokens
            learner = _online(policy, run.ppo.estimator, run.learner, tokens, run.rollout.max_tokens)
            yield "learner", _beside_teachers(learner, policy, run, tokens)
            yield "rollout", _sampler(policy, run.rollout, prompt)
            if run.reward is not None:
                yield "scorer", _scorer(run.reward)
            if run.judge is not None:
                yield "judge", _scorer(run.judge)
        case EvalRun():
            yield from _of_evaluation(run)
        case _:
            assert_never(run)


def _of_evaluation(run: EvalRun) -> Iterator[tuple[WorkerRole, MemoryEstimate]]:
    yield "scorer", _scorer(run.reward)
    if run.policy is None:
        return
    sampler = _sampler(expected_policy(run.policy.ref, None), rollout_of(run), run.data.max_prompt_tokens)
    also = [open_policy(ref).source.adapter for ref in run.policy.also_refs[: NUM_HELD - 1]]
    beside = sum(num_stored(adapter / WEIGHTS_FILE) for adapter in also if adapter is not None)
    yield "rollout", replace(sampler, weights=sampler.weights + BYTES[run.policy.dtype] * beside)
    # Perplexity is of what learners compute as: of a full model without a baseline, itself.
    baseline = open_baseline(run.policy) or (None if run.perplexity is None else open_policy(run.policy.ref))
    if baseline is not None:
        sizes = sizes_of(baseline.empty(AutoModelForCausalLM))
        adapter = baseline.source.adapter
        held = 0 if adapter is None else num_stored(adapter / WEIGHTS_FILE)
        tokens = run.data.max_prompt_tokens + run.rollout.max_tokens
        batch = _micro_batch(run.learner, tokens, run.rollout.max_tokens)
        yield "learner", forward_memory(sizes, held, BYTES[run.policy.dtype], batch)


def _of_pipeline(run: PipelineRun) -> Expected:
    """Of each stage what it would take by itself, and what the workers do that earlier ones leave for later ones."""
    data, learner, encoder, dtype = run.data, run.learner, run.reward.encoder, run.policy.dtype
    stages: dict[str, dict[WorkerRole, MemoryEstimate]] = {}
    if isinstance(run.policy.ref, NewLlamaSettings):
        stages["pretrain"] = {"learner": _pretrained(run.policy.ref, dtype, learner, run.pretrain.block_tokens)}
    if isinstance(encoder, NewBertSettings):
        masked = _encoder(encoder, learner, run.pretrain_encoder.block_tokens, is_masked_lm=True)
        stages["pretrain-encoder"] = {"learner": masked}
    tunings = (run.policy.sft_tuning, run.policy.tuning)
    tuned, aligned = (expected_policy(run.policy.ref, tuning, dtype) for tuning in tunings)
    longest = _longest(aligned, None, data)
    sampled = min(aligned.num_positions, data.max_prompt_tokens + run.rollout.max_tokens)
    sampled += aligned.num_virtual_tokens
    online = _online(aligned, run.ppo.estimator, learner, sampled, run.rollout.max_tokens)
    pairs = _learner(aligned, dpo.roles_of(run.dpo.loss), learner, RESPONSES_OF_A_PAIR * longest)
    # The reward model is calibrated on what the first rollout workers sample.
    samplers: dict[WorkerRole, MemoryEstimate] = {"rollout": _sampler(aligned, run.rollout, data.max_prompt_tokens)}
    left: dict[WorkerRole, MemoryEstimate] = {**samplers, "scorer": _scorer(run.reward)}
    return {
        **stages,
        "sft": {"learner": _learner(tuned, ("policy",), learner, longest)},
        "reward": {"learner": _encoder(encoder, learner, RESPONSES_OF_A_PAIR * run.reward.max_tokens), **samplers},
        algorithm_of(run.ppo.estimator): {"learner": online, **left},
        "dpo": {"learner": pairs, **left},
    }


# --------------------------------------------------------------------------------------------------------------- roles


def _longest(policy: ExpectedPolicy, longest: int | None, data: LengthSettings) -> int:
    text = longest or min(policy.num_positions, data.max_prompt_tokens + data.max_response_tokens)
    return policy.num_virtual_tokens + text


def _online(
    policy: ExpectedPolicy, estimator: Estimator, learner: LearnerSettings, tokens: int, max_tokens: int
) -> MemoryEstimate:
    """`tokens`: of a whole sequence, of which a row has one, or the two of a pair."""
    rows = RESPONSES_OF_A_PAIR if isinstance(estimator, OnlineDpo) else 1
    return _learner(policy, roles_of(estimator), learner, rows * tokens, rows * max_tokens)


def _pretrained(
    ref: ModelRef | NewLlamaSettings, dtype: str, learner: LearnerSettings, block_tokens: int
) -> MemoryEstimate:
    model = open_policy(ref).empty(AutoModelForCausalLM) if isinstance(ref, ModelRef) else empty_llama(ref)
    sizes = sizes_of(model)
    stage = learner.resolved_zero_stage(dtype == "float32")
    trained = Trained(
        sizes.num_parameters, 0, BYTES[dtype], stage, learner.num_workers, has_8_bit_moments=_in_8_bits(learner)
    )
    return learner_memory(sizes, trained, _micro_batch(learner, block_tokens, block_tokens))


def _encoder(
    ref: ModelRef | NewBertSettings, learner: LearnerSettings, tokens: int, is_masked_lm: bool = False
) -> MemoryEstimate:
    auto_class = AutoModelForMaskedLM if is_masked_lm else AutoModelForSequenceClassification
    sizes = sizes_of(open_model(ref).empty(auto_class) if isinstance(ref, ModelRef) else empty_bert(ref))
    stage = learner.resolved_zero_stage(trains_float32=True)
    trained = Trained(
        sizes.num_parameters, 0, BYTES["float32"], stage, learner.num_workers, has_8_bit_moments=_in_8_bits(learner)
    )
    batch = replace(_micro_batch(learner, tokens, tokens if is_masked_lm else 0), has_whole_logits=True)
    return learner_memory(sizes, trained, batch)


def _reward_model(reward: RewardEncoderSettings, learner: LearnerSettings, tokens: int) -> MemoryEstimate:
    tuning = reward.tuning
    if not isinstance(tuning, EncoderLora):
        return _encoder(reward.encoder, learner, tokens)
    model = open_model(reward.existing_encoder).empty(AutoModelForSequenceClassification)
    frozen = base_bytes(model, BYTES["float32"], reward.quantization)
    stage = learner.resolved_zero_stage(trains_float32=True)
    trained = Trained(
        num_trained(model, tuning),
        frozen,
        BYTES["float32"],
        stage,
        learner.num_workers,
        "adapters",
        _in_8_bits(learner),
    )
    return learner_memory(sizes_of(model), trained, _micro_batch(learner, tokens, 0))


def _learner(
    policy: ExpectedPolicy,
    roles: tuple[ModelRole, ...],
    learner: LearnerSettings,
    row_tokens: int,
    row_predicted: int | None = None,
) -> MemoryEstimate:
    """Of a policy in its roles: each has an adapter of its own where it needs one, or a model of its own where weights
    of the model itself are trained."""
    trained = policy.num_trained + ("value" in roles) * policy.num_of_critic
    if policy.trains_weights:
        num_models = 1 + ("reference" in roles) + ("value" in roles and policy.has_critic_model)
        frozen = policy.weight_bytes * (num_models * policy.sizes.num_parameters - trained)
    else:
        num_trained_roles = 1 + ("value" in roles)
        beside = policy.num_shared + policy.num_start * num_trained_roles
        beside += policy.num_begun if "reference" in roles else 0
        frozen = policy.base_bytes + policy.weight_bytes * beside
    stage = _zero_stage(policy, learner)
    kind, in_8_bits = _beside(policy, roles, stage), _in_8_bits(learner)
    held = Trained(trained, frozen, policy.weight_bytes, stage, learner.num_workers, kind, in_8_bits)
    batch = _micro_batch(learner, row_tokens, row_tokens if row_predicted is None else row_predicted)
    return learner_memory(policy.sizes, held, batch)


def _beside(policy: ExpectedPolicy, roles: tuple[ModelRole, ...], zero_stage: ZeroStage) -> Beside:
    """As of `models/tuning/layers/fused_lora.py`, which computes LoRA that has no dropout."""
    if policy.trains_weights or policy.num_virtual_tokens:
        return "nothing"
    is_whole = policy.base_bytes == policy.weight_bytes * policy.sizes.num_parameters
    is_fused = policy.is_plain_lora and is_whole and not (policy.has_dropout and roles == ("policy",))
    return "lora" if is_fused and zero_stage < 3 else "adapters"


def _in_8_bits(learner: LearnerSettings) -> bool:
    return learner.optimizer != "adamw"


def _zero_stage(policy: ExpectedPolicy, learner: LearnerSettings) -> ZeroStage:
    return learner.resolved_zero_stage(not policy.trains_weights or policy.weight_bytes == BYTES["float32"])


def _beside_teachers(learner: MemoryEstimate, policy: ExpectedPolicy, run: PpoRun, row_tokens: int) -> MemoryEstimate:
    """Of a policy's learner, with the frozen models that grade it."""
    num_shares = run.learner.num_workers if _zero_stage(policy, run.learner) == 3 else 1
    teachers = [expected_policy(ref, None) for ref in run.teacher_refs]
    batch = _micro_batch(run.learner, row_tokens, run.rollout.max_tokens)
    return beside_teachers(
        learner, [(one.sizes, one.num_begun, one.weight_bytes) for one in teachers], num_shares, batch
    )


def _micro_batch(learner: LearnerRankSettings, row_tokens: int, row_predicted: int) -> MicroBatch:
    rows = learner.micro_batch_size
    checkpoints = isinstance(learner, LearnerSettings) and learner.gradient_checkpointing
    return MicroBatch(rows * row_tokens, rows * row_predicted, checkpoints, learner.autocast)


def _sampler(policy: ExpectedPolicy, rollout: RolloutSettings, max_prompt_tokens: int) -> MemoryEstimate:
    adapters = NUM_VERSIONS_HELD * (policy.num_trained + policy.num_start) + policy.num_shared
    has_adapter = not policy.trains_weights and policy.num_trained + policy.num_begun > 0
    serving = adapter_serving(rollout, policy.dtype, (policy.architecture,), policy.is_plain_lora)
    if has_adapter and serving == "merged":
        adapters = policy.sizes.num_parameters  # The base, from which each version is merged anew.
    match rollout.engine:
        case VllmEngine(kv_cache_gib=gib, max_num_seqs=at_once):
            number = min(at_once, rollout.chunk_size)
            return vllm_memory(policy.sizes, policy.weight_bytes, adapters, int(gib * 2**30), number)
        case TransformersEngine():
            tokens = min(policy.num_positions, max_prompt_tokens + rollout.max_tokens) + policy.num_virtual_tokens
            number = rollout.chunk_size
            return transformers_memory(policy.sizes, policy.weight_bytes, adapters, number, tokens)
        case _:
            assert_never(rollout.engine)


def _scorer(group: RewardGroupSettings) -> MemoryEstimate:
    """Of its reward model, the others of its ensemble and those among its parts."""
    first = group.model
    refs = [each.model for each in group.further_members]
    refs += [ref for part in group.weighted_parts for ref in part.reward.models]
    models = [empty_bert(first)] if isinstance(first, NewBertSettings) else []
    if isinstance(first, str):
        refs = [ModelRef(first, f"{group.section}.model"), *refs]
    models += [open_model(ref).empty(AutoModelForSequenceClassification) for ref in refs]
    return scorer_memory(tuple(map(sizes_of, models)), group.batch_size, group.max_tokens)
