"""How much memory a worker takes, from sizes that are known before it starts: pure arithmetic, in bytes.

What a model holds (weights, gradients, Adam's moments, keys and values) is counted; what a framework takes of itself
is measured on CPUs, and docs/cluster.md has the figures. A worker on a GPU is counted alike, but nothing was measured
there.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

from plumbob.models.sizes.config_sizes import ModelSizes
from plumbob.models.sizes.kept_activations import Beside, kept_by_block

GIB = 2**30
FLOAT32 = 4

LEARNER_FLOOR, VLLM_FLOOR, TRANSFORMERS_FLOOR, SCORER_FLOOR, DRIVER_FLOOR, PRIVATE_RAY_FLOOR = (
    int(gib * GIB) for gib in (0.62, 0.80, 0.42, 0.32, 0.50, 0.45)
)
"""Of each process before it holds a model: Python, torch, and DeepSpeed, vLLM or Ray."""

ALLOCATED, ALLOCATED_BESIDE_4_BITS, ALLOCATED_IN_FORWARD = 1.5, 2.16, 1.3
"""What the allocator takes for activations, over what they hold: it keeps what was freed, in pieces. Layers of 4 bits,
and adapters beside them, leave more of these; a forward alone, and an encoder, fewer."""

PORTION_BYTES = 3 * FLOAT32 * 2**23
"""Of logits that a policy has at once, with their softmax and its slope (`models/forward/vocabulary.py`)."""

STEP_COPIES = 4
"""Float32 copies of what it updates that a step in 8 bits makes on a CPU, of one tensor after another."""

HALF = 0.75
"""What logits take in bfloat16, over float32: not all of them are halved."""

HALF_BYTES = 2
"""Of a number in bfloat16."""

BLOCK_8_BITS = 256
"""Moments in 8 bits with one scale."""

EXPERIENCE_BYTES = 166
"""Of one token of a rank's rows online, padding included, as it writes them into the journal: responses are 14 of them,
what is computed of these 86, and their columns the rest. Of 1,024 rows of 2,176 tokens, with a critic."""

RECOMPUTED, RECOMPUTED_BESIDE_4_BITS = 0.28, 0.58
"""Of each layer whose activations are computed anew, what the allocator keeps of what was freed; one layer is whole."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Of one worker, in bytes.

    Attributes:
        weights: of all models that it holds.
        optimizer: Adam's moments, and float32 copies of what is trained.
        gradients: with the copies that are made of them, or in the optimizer's step as far as these do not lie where
            activations were.
        activations: what a forward keeps for its backward, at most.
        logits: of a micro-batch with their gradients, or of what is sampled at once.
        cache: keys and values of what is sampled at once, at most.
        experience: a rank's own rows of a step online, from their log-probs to the journal.
        framework: what the process takes without a model.
        programs: what processes beside it take as they begin, which run the user's code or what a policy wrote.
        beyond: what these may allocate more, by the limits in the settings. It is no part of the total.
    """

    weights: int = 0
    optimizer: int = 0
    gradients: int = 0
    activations: int = 0
    logits: int = 0
    cache: int = 0
    experience: int = 0
    framework: int = 0
    programs: int = 0
    beyond: int = 0

    @property
    def total(self) -> int:
        return sum(self.parts().values())

    @property
    def resting(self) -> int:
        """What it holds between two pieces of work."""
        return self.weights + self.optimizer + self.cache + self.framework + self.programs

    @property
    def certain(self) -> int:
        """What it takes whatever it is given to do."""
        return self.weights + self.optimizer

    def parts(self) -> dict[str, int]:
        """Those of the total that are not 0."""
        names = (field.name for field in fields(self) if field.name != "beyond")
        return {name: size for name in names if (size := getattr(self, name))}


@dataclass(frozen=True)
class Trained:
    """What of a model a learner trains, and how.

    Attributes:
        num_parameters: that are trained.
        frozen_bytes: of what stays as it is beside them.
        weight_bytes: of one parameter that is trained.
        zero_stage, num_ranks: how the ranks share what they hold.
        beside: what of each block is trained, or stands beside it.
        has_8_bit_moments: whether a moment is kept in a byte, not as weights are.
    """

    num_parameters: int
    frozen_bytes: int
    weight_bytes: int
    zero_stage: Literal[0, 1, 2, 3]
    num_ranks: int
    beside: Beside = "weights"
    has_8_bit_moments: bool = False

    @property
    def moment_bytes(self) -> float:
        """Of the two moments of one parameter that this rank updates."""
        if self.has_8_bit_moments:
            return 2 * (1 + FLOAT32 / BLOCK_8_BITS)
        return 2 * (self.weight_bytes if self.zero_stage == 0 else FLOAT32)


@dataclass(frozen=True)
class MicroBatch:
    """What goes through a model at once.

    Attributes:
        num_tokens: rows times the longest row.
        num_predicted: of them, those that logits are computed for.
        has_checkpoints: whether activations are computed anew in the backward (gradient checkpointing).
        autocast: matrix products in bfloat16.
        has_whole_logits: whether they are there all at once, as of an encoder's words.
    """

    num_tokens: int
    num_predicted: int
    has_checkpoints: bool = False
    autocast: bool = False
    has_whole_logits: bool = False


def learner_memory(model: ModelSizes, trained: Trained, batch: MicroBatch) -> MemoryEstimate:
    """One rank of a learner, at its widest.

    That is when gradients are clipped: the allocator keeps what activations were in.
    """
    num, weight, shares = trained.num_parameters, trained.weight_bytes, trained.num_ranks
    held = weight * num + trained.frozen_bytes
    share = FLOAT32 * num // shares
    moments = int(trained.moment_bytes * num) // (1 if trained.zero_stage == 0 else shares)
    match trained.zero_stage:
        case 0:  # Several ranks add up their gradients in a copy.
            optimizer, clipped = moments, (1 if shares == 1 else 2) * weight * num
        case 1 | 2:  # A float32 copy and two moments of the share; gradients, and those of the share in float32.
            optimizer, clipped = share + moments, weight * num + (share if weight == FLOAT32 else 2 * share)
            clipped += share if shares > 1 else 0  # As it comes of the other ranks.
        case 3:  # The share's gradients have a buffer from the beginning; weights are gathered where they are used.
            held //= shares
            optimizer, clipped = 2 * share + moments, (4 if shares == 1 else 5) * weight * num
    forward, predicted = activations(model, batch, weight, trained.beside), logits(model, batch, weight)
    copied = STEP_COPIES * FLOAT32 * _widest_updated(model, trained) if trained.has_8_bit_moments else 0
    return MemoryEstimate(
        weights=held,
        optimizer=optimizer,
        gradients=clipped + max(0, copied - forward - predicted),
        activations=forward,
        logits=predicted,
        framework=LEARNER_FLOOR,
    )


def _widest_updated(model: ModelSizes, trained: Trained) -> int:
    """Numbers of the largest tensor that the optimizer updates: a matrix, or at stages 1 to 3 all of the rank's."""
    if trained.zero_stage:
        return trained.num_parameters // trained.num_ranks
    return min(trained.num_parameters, model.hidden_size * max(model.vocab_size, model.intermediate_size))


def forward_memory(model: ModelSizes, num_frozen: int, weight_bytes: int, batch: MicroBatch) -> MemoryEstimate:
    """A learner that only computes, as the baseline of an evaluation: nothing is kept for a backward."""
    return MemoryEstimate(
        weights=weight_bytes * (model.num_parameters + num_frozen),
        activations=int(ALLOCATED_IN_FORWARD * FLOAT32 * batch.num_tokens * _width_of_a_layer(model)),
        logits=logits(model, batch, FLOAT32) // 2,
        framework=LEARNER_FLOOR,
    )


def beside_teachers(
    learner: MemoryEstimate, teachers: Sequence[tuple[ModelSizes, int, int]], num_shares: int, batch: MicroBatch
) -> MemoryEstimate:
    """A learner with frozen models beside its own, which compute one after the other and keep nothing for a backward.

    Args:
        teachers: of each its sizes, what all of its weights take, and what one number does.
        num_shares: among how many ranks their weights are divided.
    """
    weights = sum(held for _, held, _ in teachers)
    widest = max((_number_bytes(batch, size) * _width_of_a_layer(model) for model, _, size in teachers), default=0)
    return replace(
        learner,
        weights=learner.weights + weights // num_shares,
        activations=learner.activations + int(ALLOCATED_IN_FORWARD * batch.num_tokens * widest),
    )


def with_experience(learner: MemoryEstimate, num_tokens: int) -> MemoryEstimate:
    """A rank of a learner online, beside which are its rows of a step; `num_tokens`: of all, each as the longest."""
    return replace(learner, experience=EXPERIENCE_BYTES * num_tokens)


def vllm_memory(
    model: ModelSizes, weight_bytes: int, adapter_parameters: int, cache_bytes: int, num_at_once: int
) -> MemoryEstimate:
    """A rollout worker with vLLM.

    Args:
        adapter_parameters: of all adapters that it holds; of the base that it keeps, where it merges them.
        cache_bytes: what its cache of keys and values may grow to.
        num_at_once: responses that are sampled together, each of which has its logits and log-probs in float32.
    """
    return MemoryEstimate(
        weights=weight_bytes * (model.num_parameters + adapter_parameters),
        logits=2 * FLOAT32 * num_at_once * model.vocab_size,
        cache=cache_bytes,
        framework=VLLM_FLOOR,
    )


def transformers_memory(
    model: ModelSizes, weight_bytes: int, adapter_parameters: int, num_at_once: int, num_tokens: int
) -> MemoryEstimate:
    """A rollout worker with transformers: it keeps the keys and values of all its responses, `num_tokens` of each."""
    cached = 2 * weight_bytes * model.num_layers * model.kv_size * num_at_once * num_tokens
    return MemoryEstimate(
        weights=weight_bytes * (model.num_parameters + adapter_parameters),
        logits=2 * FLOAT32 * num_at_once * model.vocab_size,
        cache=int(ALLOCATED_IN_FORWARD * cached),
        framework=TRANSFORMERS_FLOOR,
    )


def scorer_memory(models: Sequence[tuple[ModelSizes, int]]) -> MemoryEstimate:
    """A scorer with float32 reward models, which score one after the other; `models`: (sizes, tokens of a batch)."""
    widest = max((num_tokens * _width_of_a_layer(model) for model, num_tokens in models), default=0)
    return MemoryEstimate(
        weights=FLOAT32 * sum(model.num_parameters for model, _ in models),
        activations=int(ALLOCATED_IN_FORWARD * FLOAT32 * widest),
        framework=SCORER_FLOOR,
    )


def activations(model: ModelSizes, batch: MicroBatch, weight_bytes: int, beside: Beside) -> int:
    """What a forward keeps: of each block all that its backward reads, or its input alone beside what is recomputed."""
    wide = FLOAT32 if batch.autocast else weight_bytes
    narrow = HALF_BYTES if batch.autocast else weight_bytes
    kept = kept_by_block(model, beside, batch.autocast)
    block = wide * kept.wide + narrow * kept.narrow
    allocated, recomputed = ALLOCATED, RECOMPUTED
    if beside == "lora-layers":
        allocated, recomputed = ALLOCATED_BESIDE_4_BITS, RECOMPUTED_BESIDE_4_BITS
    elif beside == "encoder":
        allocated = ALLOCATED_IN_FORWARD
    if batch.has_checkpoints:
        each = wide * model.hidden_size * model.num_layers + (1 + recomputed * model.num_layers) * block
    else:
        each = block * model.num_layers
    # Its matrices too are there in bfloat16 until the backward.
    rounded = HALF_BYTES * _numbers_of_blocks(model) if batch.autocast and not batch.has_checkpoints else 0
    return int(allocated * batch.num_tokens * each) + rounded


def _numbers_of_blocks(model: ModelSizes) -> int:
    """Of their matrices."""
    attention = model.hidden_size * (2 * model.hidden_size + 2 * model.kv_size)
    return model.num_layers * (attention + 3 * model.hidden_size * model.intermediate_size)


def logits(model: ModelSizes, batch: MicroBatch, weight_bytes: int) -> int:
    """Logits of a micro-batch, and their gradient: all of them, or a portion at a time."""
    whole = int(2 * _number_bytes(batch, weight_bytes) * batch.num_predicted * model.vocab_size)
    return whole if batch.has_whole_logits else min(whole, PORTION_BYTES)


def _number_bytes(batch: MicroBatch, weight_bytes: int) -> float:
    """Of one number between the layers."""
    return FLOAT32 * HALF if batch.autocast or weight_bytes < FLOAT32 else FLOAT32


def _width_of_a_layer(model: ModelSizes) -> int:
    """Numbers that the backward of one block reads of one token.

    The input of each norm and its output (4 of the hidden size), queries and the attention's output before and after
    its heads are joined (3), keys and values, and the feed-forward part's gate, its activation, the other branch and
    their product (4 of the intermediate size).
    """
    return 7 * model.hidden_size + 2 * model.kv_size + 4 * model.intermediate_size
