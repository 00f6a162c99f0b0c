"""Seconds that learners, rollout workers and scorers take for tokens, by their models' sizes and this machine's rates.

What is counted are matrix products and the bytes of weights that are read. What is fitted, to steps that were measured
on 2 cores of an AMD EPYC with AVX-512 (30 November and 1 December 2026; `benchmarks/results.json` and a run of the
preset `toy`), is in the constants below. The models had 0.6 M to 135 M parameters; of others nothing was measured.
"""

from dataclasses import dataclass

from plumbob.configs.settings.workers import TransformersEngine, VllmEngine
from plumbob.driver.planning.durations.machine_rates import ProductRates
from plumbob.models.sizes.config_sizes import ModelSizes
from plumbob.models.sizes.operations import Operations, forward_operations, learning_operations

BESIDE = 1.0
"""Of what a model's blocks multiply in float32: how long all else in them takes (norms, activations, attention's
softmax, adapters' small products, padding), whatever the numbers are that they multiply in. SFT of 26 M took 1.95 times
its products alone, a MiniLM reward model 2.2."""

STEP_S = 0.008
"""Of an optimizer step beside its passes: the call of the ranks, the norm of the gradient, and metrics."""

ADAM_BYTES = 28
"""Read and written for a weight in a step: itself, its gradient and two moments."""

DECODE_S = {"vllm": 0.010, "transformers": 0.030}
"""Of an engine for one more token of all that it samples at once, beside weights and products."""

PUBLISH_S, PUBLISH_BYTE_S = 0.05, 4e-9
"""Of a version: at least; and for each byte of float32 weights that it is merged into and read back from."""

COMMIT_S = 0.03
"""Of a step: its lines, its journal and a small checkpoint."""


def seconds_of(work: Operations, rates: ProductRates) -> float:
    return (work.body + work.head) / rates.per_s + BESIDE * work.body / rates.single_per_s


@dataclass(frozen=True)
class LearnerCosts:
    """Of a group of learners that holds one model.

    Attributes:
        rates: of the group together.
        read_per_s: bytes.
        num_trained: of the model's own weights.
        num_beside: weights of an adapter.
    """

    sizes: ModelSizes
    rates: ProductRates
    read_per_s: float
    num_trained: int
    num_beside: int = 0
    is_recomputed: bool = False

    def forward_s(self, num_tokens: float, length: float, num_predicted: float) -> float:
        """As `forward_operations`, without a backward."""
        return seconds_of(forward_operations(self.sizes, num_tokens, length, num_predicted), self.rates)

    def learn_s(self, num_tokens: float, length: float, num_predicted: float) -> float:
        """Forward and backward."""
        forward = forward_operations(self.sizes, num_tokens, length, num_predicted)
        share = self.num_trained / self.sizes.num_parameters
        work = learning_operations(forward, min(1.0, share), num_tokens, self.num_beside, self.is_recomputed)
        return seconds_of(work, self.rates)

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
    rates: ProductRates
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
        return waiting_s + seconds_of(prefill + decode, self.rates)

    @property
    def publish_s(self) -> float:
        merged = self.weight_bytes * self.sizes.num_parameters if self.merges else 0
        return PUBLISH_S + PUBLISH_BYTE_S * merged


@dataclass(frozen=True)
class ScorerCosts:
    """Of all scorers together: each response goes through each of their models."""

    models: tuple[ModelSizes, ...]
    rates: tuple[ProductRates, ...]

    def score_s(self, num_responses: int, length: float) -> float:
        """`length`: tokens of a prompt and its response."""
        tokens = num_responses * length
        work = [forward_operations(sizes, tokens, length, 0) for sizes in self.models]
        return sum(seconds_of(one, rates) for one, rates in zip(work, self.rates, strict=True))
