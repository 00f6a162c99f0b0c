"""How much memory one rank of a learner is expected to take: of a policy, an encoder, or a model that only computes."""

from collections.abc import Sequence
from dataclasses import replace

from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSequenceClassification

from plumbob.configs.settings.models import ModelRef, NewBertSettings, NewLlamaSettings, RewardEncoderSettings
from plumbob.configs.settings.tuning.encoders import EncoderLora
from plumbob.configs.settings.workers import LearnerRankSettings, LearnerSettings, ZeroStage
from plumbob.driver.input_sizes.learner_rows import MicroBatchShape
from plumbob.driver.planning.expected_policy import BYTES, ExpectedPolicy, expected_policy
from plumbob.models.adapter import ModelRole
from plumbob.models.from_scratch import empty_bert, empty_llama
from plumbob.models.loading import open_model, open_policy
from plumbob.models.quantization.quantised_layers import base_bytes
from plumbob.models.sizes.config_sizes import sizes_of
from plumbob.models.sizes.kept_activations import Beside
from plumbob.models.sizes.memory import MemoryEstimate, MicroBatch, Trained, beside_teachers, learner_memory
from plumbob.models.tuning.classifiers import num_trained


def policy_learner(
    policy: ExpectedPolicy,
    roles: tuple[ModelRole, ...],
    learner: LearnerSettings,
    shape: MicroBatchShape,
    num_sequences: int = 1,
    num_predicted: int | None = None,
) -> MemoryEstimate:
    """Of a policy in its roles: each has an adapter of its own where it needs one, or a model of its own where weights
    of the model itself are trained.

    Args:
        shape: of the widest micro-batch, without virtual tokens.
        num_sequences: of each of its rows.
        num_predicted: tokens of each sequence that logits are computed for; None is all.
    """
    trained = policy.num_trained + ("value" in roles) * policy.num_of_critic
    if policy.trains_weights:
        num_models = 1 + ("reference" in roles) + ("value" in roles and policy.has_critic_model)
        frozen = policy.weight_bytes * (num_models * policy.sizes.num_parameters - trained)
    else:
        num_trained_roles = 1 + ("value" in roles)
        beside = policy.num_shared + policy.num_start * num_trained_roles
        beside += policy.num_begun if "reference" in roles else 0
        frozen = policy.base_bytes + policy.weight_bytes * beside
    stage = policy_zero_stage(policy, learner)
    kind = _beside(policy, roles, stage)
    held = Trained(trained, frozen, policy.weight_bytes, stage, learner.num_workers, kind, _in_8_bits(learner))
    tokens = shape.num_tokens + policy.num_virtual_tokens
    whole = shape._replace(num_rows=num_sequences * shape.num_rows, num_tokens=tokens)
    return learner_memory(policy.sizes, held, micro_batch(learner, whole, num_predicted))


def pretrained_learner(
    ref: ModelRef | NewLlamaSettings, dtype: str, learner: LearnerSettings, shape: MicroBatchShape
) -> MemoryEstimate:
    """All weights of a causal model are trained."""
    model = open_policy(ref).empty(AutoModelForCausalLM) if isinstance(ref, ModelRef) else empty_llama(ref)
    sizes = sizes_of(model)
    stage = learner.resolved_zero_stage(dtype == "float32")
    trained = Trained(
        sizes.num_parameters, 0, BYTES[dtype], stage, learner.num_workers, has_8_bit_moments=_in_8_bits(learner)
    )
    return learner_memory(sizes, trained, micro_batch(learner, shape))


def encoder_learner(
    ref: ModelRef | NewBertSettings, learner: LearnerSettings, shape: MicroBatchShape, is_masked_lm: bool = False
) -> MemoryEstimate:
    """All weights of an encoder are trained."""
    auto_class = AutoModelForMaskedLM if is_masked_lm else AutoModelForSequenceClassification
    sizes = sizes_of(open_model(ref).empty(auto_class) if isinstance(ref, ModelRef) else empty_bert(ref))
    stage = learner.resolved_zero_stage(trains_float32=True)
    trained = Trained(
        sizes.num_parameters, 0, BYTES["float32"], stage, learner.num_workers, "encoder", _in_8_bits(learner)
    )
    batch = replace(micro_batch(learner, shape, None if is_masked_lm else 0), has_whole_logits=True)
    return learner_memory(sizes, trained, batch)


def reward_learner(reward: RewardEncoderSettings, learner: LearnerSettings, shape: MicroBatchShape) -> MemoryEstimate:
    """Of a reward model: whole, or by LoRA."""
    tuning = reward.tuning
    if not isinstance(tuning, EncoderLora):
        return encoder_learner(reward.encoder, learner, shape)
    model = open_model(reward.existing_encoder).empty(AutoModelForSequenceClassification)
    frozen = base_bytes(model, BYTES["float32"], reward.quantization)
    stage = learner.resolved_zero_stage(trains_float32=True)
    trained = Trained(
        num_trained(model, tuning),
        frozen,
        BYTES["float32"],
        stage,
        learner.num_workers,
        "lora-layers",
        _in_8_bits(learner),
    )
    return learner_memory(sizes_of(model), trained, micro_batch(learner, shape, 0))


def with_teachers(
    learner: MemoryEstimate,
    policy: ExpectedPolicy,
    teachers: Sequence[ModelRef],
    settings: LearnerSettings,
    shape: MicroBatchShape,
    num_predicted: int,
) -> MemoryEstimate:
    """Of a policy's learner, with the frozen models that grade it."""
    num_shares = settings.num_workers if policy_zero_stage(policy, settings) == 3 else 1
    opened = [expected_policy(ref, None) for ref in teachers]
    tokens = shape.num_tokens + policy.num_virtual_tokens
    batch = micro_batch(settings, shape._replace(num_tokens=tokens), num_predicted)
    held = [(one.sizes, one.base_bytes + one.weight_bytes * one.num_begun, one.weight_bytes) for one in opened]
    return beside_teachers(learner, held, num_shares, batch)


def micro_batch(learner: LearnerRankSettings, shape: MicroBatchShape, num_predicted: int | None = None) -> MicroBatch:
    """`num_predicted`: tokens of each row that logits are computed for; None is all."""
    checkpoints = isinstance(learner, LearnerSettings) and learner.gradient_checkpointing
    predicted = shape.num_tokens if num_predicted is None else num_predicted
    return MicroBatch(shape.num_rows * shape.num_tokens, shape.num_rows * predicted, checkpoints, learner.autocast)


def policy_zero_stage(policy: ExpectedPolicy, learner: LearnerSettings) -> ZeroStage:
    return learner.resolved_zero_stage(not policy.trains_weights or policy.weight_bytes == BYTES["float32"])


def _beside(policy: ExpectedPolicy, roles: tuple[ModelRole, ...], zero_stage: ZeroStage) -> Beside:
    """LoRA without dropout is fused with layers that are whole (`models/tuning/layers/fused_lora.py`)."""
    if policy.beside != "lora":
        return policy.beside
    if policy.has_dropout and roles == ("policy",):
        return "lora-dropout"
    is_whole = policy.base_bytes == policy.weight_bytes * policy.sizes.num_parameters
    return "lora" if is_whole and zero_stage < 3 else "lora-layers"


def _in_8_bits(learner: LearnerSettings) -> bool:
    return learner.optimizer != "adamw"
