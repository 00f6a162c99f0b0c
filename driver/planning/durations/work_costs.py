"""Seconds that learners, rollout workers and scorers take for tokens, by their models' sizes and this machine's rates.

Matrix products, bytes that are read and elements are counted, and this machine's rates of them are measured. How often
elements are computed over, and the constants below, are fitted: to steps of SFT, RLOO and reward modelling (3 M, 22 M
and 26 M parameters) and to a run of the preset `toy` (0.6 M), on 2 cores of an Intel Xeon with AMX on 2026-12-01, and
looked at beside steps of the same and of 135 M on 2 cores of an AMD EPYC (`benchmarks/results.json`). Of larger models,
and of more cores, nothing was measured.
"""

from dataclasses import dataclass

from plumbob.configs.settings.workers import TransformersEngine, VllmEngine
from plumbob.driver.planning.durations.machine_rates import ComputeRates
from plumbob.models.sizes.config_sizes import ModelSizes
from plumbob.models.sizes.operations import Operations, forward_operations, learning_operations

FORWARD_PASSES, LEARN_PASSES = 30, 75
"""Over the elements of each token in each block, its width outside and inside of the feed-forward part: what norms,
activations, attention's softmax, adapters' small products and padding take together, of a forward alone and with its
backward."""

AUTOCAST_FORWARD, AUTOCAST_LEARN = 2.0, 1.25
"""What of that is more with `learner.autocast`, which casts weights and activations each time."""

STEP_S = 0.008
"""Of an optimizer step beside its passes: the call of the ranks, the norm of the gradient, and metrics."""

ADAM_BYTES = 28
"""Read and written for a weight in a step: itself, its gradient and two moments."""

DECODE_S = {"vllm": 0.012, "transformers": 0.030}
"""Of an engine for one more token of all that it samples at once, beside weights and products."""

DECODE_SHARE = 0.5
"""Of the rate of products, with as few rows as there are responses. Of a forward over many tokens it is whole."""

PUBLISH_S, PUBLISH_BYTE_S = 0.05, 3.5e-9
"""Of a version: at least; and for each byte of float32 weights that it is merged into and read back from."""

COMMIT_S = 0.03
"""Of a step: its lines, its journal and a small checkpoint."""


def seconds_of(work: Operations, num_elements: float, rates: ComputeRates) -> float:
    return (work.body + work.head) / rates.products + num_elements / rates.elements


def block_elements(sizes: ModelSizes) -> int:
    """Of one token, in all blocks."""
    return sizes.num_layers * (sizes.hidden_size + sizes.intermediate_size)


@dataclass(frozen=True)
class LearnerCosts:
    """Of a group of learners that holds one model.

    Attributes:
        rates: of the group together.
        read_per_s: bytes.
        num_trained: of the model's own weights.
        num_beside: weights of an adapter.
        is_cast: whether weights are cast for each product.
        is_recomputed: whether blocks go forward a second time.
    """

    sizes: ModelSizes
    rates: ComputeRates
    read_per_s: float
    num_trained: int
    num_beside: int = 0
    is_cast: bool = False
    is_recomputed: bool = False

    def forward_s(self, num_tokens: float, length: float, num_predicted: float) -> float:
        """As `forward_operations`, without a backward."""
        passes = FORWARD_PASSES * (AUTOCAST_FORWARD if self.is_cast else 1.0)
        work = forward_operations(self.sizes, num_tokens, length, num_predicted)
        return seconds_of(work, passes * num_tokens * block_elements(self.sizes), self.rates)

    def learn_s(self, num_tokens: float, length: float, num_predicted: float) -> float:
        """Forward and backward."""
        passes = LEARN_PASSES * (AUTOCAST_LEARN if self.is_cast else 1.0) + FORWARD_PASSES * self.is_recomputed
        forward = forward_operations(self.sizes, num_tokens, length, num_predicted)
        share = self.num_trained / self.sizes.num_parameters
        work = learning_operations(forward, min(1.0, share), num_tokens, self.num_beside, self.is_recomputed)
        return seconds_of(work, passes * num_tokens * block_elements(self.sizes), self.rates)

    def steps_s(self, num_steps: int) -> float:
        """What optimizer steps take beside their forward and backward."""
        return num_steps * (STEP_S + ADAM_BYTES * (self.num_trained + self.num_beside) / self.read_per_s)


@dataclass(frozen=True)
class SamplerCosts:
    """Of all rollout workers together.

    Attributes:
        weight_bytes: of one number.
        num_at_once: responses that they sample at a time, all together.
        merges: whether a version is merged into the base's weights.
    """

    sizes: ModelSizes
    rates: ComputeRates
    read_per_s: float
    weight_bytes: int
    engine: VllmEngine | TransformersEngine
    num_at_once: int
    merges: bool

    def sample_s(self, num_responses: int, num_prompts: int, prompt: float, mean: float, longest: int) -> float:
        """Every round of what is sampled at once lasts as long as its longest response.

        Args:
            num_prompts: different ones, each computed once.
            prompt, mean: tokens of a prompt, and of a response.
        """
        rounds = -(-num_responses // self.num_at_once)
        read_s = self.weight_bytes * self.sizes.num_parameters / self.read_per_s
        waiting_s = rounds * longest * (DECODE_S[self.engine.kind] + read_s)
        prefill = forward_operations(self.sizes, num_prompts * prompt, prompt, num_prompts)
        decode = forward_operations(self.sizes, num_responses * mean, 2 * prompt + mean, num_responses * mean)
        num_tokens = num_prompts * prompt + num_responses * mean
        elements = FORWARD_PASSES * num_tokens * block_elements(self.sizes)
        return waiting_s + seconds_of(prefill + decode.times(1 / DECODE_SHARE), elements, self.rates)

    @property
    def publish_s(self) -> float:
        merged = self.weight_bytes * self.sizes.num_parameters if self.merges else 0
        return PUBLISH_S + PUBLISH_BYTE_S * merged


@dataclass(frozen=True)
class ScorerCosts:
    """Of all scorers together: each response goes through each of their models."""

    models: tuple[ModelSizes, ...]
    rates: tuple[ComputeRates, ...]

    def score_s(self, num_responses: int, length: float) -> float:
        """`length`: tokens of a prompt and its response."""
        tokens = num_responses * length
        return sum(
            seconds_of(
                forward_operations(sizes, tokens, length, 0), FORWARD_PASSES * tokens * block_elements(sizes), rates
            )
            for sizes, rates in zip(self.models, self.rates, strict=True)
        )
