"""Methods that train adapters of PEFT's beside the model's weights."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from plumbob.configs.base import Fraction, Positive, Settings

LoraRank = Annotated[int, Field(gt=0, le=65_536)]

LoraInit = Literal["default", "gaussian", "orthogonal", "pissa", "pissa_niter_16", "olora"]

BottleneckActivation = Literal["relu", "gelu", "silu"]

FROM_WEIGHTS: tuple[LoraInit, ...] = ("pissa", "pissa_niter_16", "olora")
"""What begins with parts of the base's own weights."""


def _module_name(text: str) -> str:
    if not all(part.isidentifier() or part.isdecimal() for part in text.split(".")):
        raise PydanticCustomError("path", "the end of a module's name, such as q_proj or layers.1.mlp.up_proj")
    return text


ModuleEnd = Annotated[str, AfterValidator(_module_name)]
"""Stands for every module whose name ends with it, from a dot on."""


class AdapterTuning(Settings):
    """What is trained is an adapter of PEFT's."""

    peft_type: ClassVar[str]
    """What PEFT calls adapters of this kind."""

    size_key: ClassVar[str | None]
    """What its config calls an adapter's rank or width, or the length of a soft prompt; None of one without a size."""

    @property
    def is_plain_lora(self) -> bool:
        """Whether it adds B A to weights and does nothing else, which every engine with LoRA computes."""
        return False

    @property
    def stands_beside(self) -> bool:
        """Whether it only adds to what layers put out, by layers of its own: it reads no weights of the base."""
        return self.is_plain_lora

    @property
    def reads_weights(self) -> bool:
        """Whether it takes the base's weights as numbers, which a base of few bits does not keep."""
        return True

    @property
    def can_merge(self) -> bool:
        """Whether some weights compute what the base does with it."""
        return True

    @property
    def published_rank(self) -> int:
        """The largest rank of the adapter as others load it; 0 of one without a rank."""
        return 0


class LoraTuning(AdapterTuning):
    """Low-rank adapters (Hu et al. 2021, arXiv 2106.09685)."""

    peft_type = "LORA"
    size_key = "r"

    kind: Literal["lora"] = "lora"
    rank: LoraRank = 8
    """Width of the adapters."""
    alpha: Positive = 16.0
    """The adapters are scaled by alpha / rank."""
    dropout: Fraction = 0.0
    """Of the adapters' input; for supervised fine-tuning alone."""
    targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """Which modules get an adapter: all linear ones but the head, or those of these names."""
    use_rslora: bool = False
    """Scale by alpha / sqrt(rank) instead, so that a larger rank learns no slower (rsLoRA, arXiv 2312.03732)."""
    use_dora: bool = False
    """Train the length of each output's weights apart from their direction (DoRA, arXiv 2402.09353)."""
    rank_pattern: dict[ModuleEnd, LoraRank] = Field(default_factory=dict)
    """End of a module's name -> its rank, where that is not `rank`."""
    alpha_pattern: dict[ModuleEnd, Positive] = Field(default_factory=dict)
    """End of a module's name -> its alpha, where that is not `alpha`."""
    init: LoraInit = "default"
    """Where A and B begin. All but the last three begin at random, with B A zero.

    `pissa` (arXiv 2404.02948; `pissa_niter_16` finds the same faster, by a randomised SVD) and `olora` (arXiv
    2406.01775) begin with the largest parts of the base's own weights. The base stays as it is, and the result is plain
    LoRA of twice the rank.
    """

    @property
    def is_plain_lora(self) -> bool:
        return not self.use_dora

    @property
    def reads_weights(self) -> bool:
        return self.use_dora or self.init in FROM_WEIGHTS

    @property
    def published_rank(self) -> int:
        largest = max((self.rank, *self.rank_pattern.values()))
        return 2 * largest if self.init in FROM_WEIGHTS else largest

    @model_validator(mode="after")
    def _check(self) -> Self:
        odd = next((rank for rank in (self.rank, *self.rank_pattern.values()) if rank % 2), None)
        if self.init == "orthogonal" and odd is not None:
            raise ValueError(f"policy.tuning.init=orthogonal halves each rank, and one is {odd}: make it even")
        if self.use_dora and self.init in FROM_WEIGHTS:
            raise ValueError(
                f"policy.tuning.use_dora=true takes the lengths of the base's weights, which "
                f"policy.tuning.init={self.init} takes apart: choose one of the two"
            )
        return self


class AdaLoraTuning(AdapterTuning):
    """Low-rank adapters B diag(e) A which begin wider than they end: on the way the least important ranks are dropped,
    wherever they are (AdaLoRA, Zhang et al. 2023, arXiv 2303.10512). What is written is plain LoRA of those left.

    For stages whose data stand before they begin: which ranks are left follows from all of their gradients.
    """

    peft_type = "ADALORA"
    size_key = "r"

    kind: Literal["adalora"] = "adalora"
    rank: LoraRank = 8
    """Width of the adapters in the end, on average."""
    initial_rank: LoraRank | None = None
    """Width of each in the beginning; None is one and a half times `rank`."""
    alpha: Positive = 16.0
    """The adapters are scaled by alpha / initial rank."""
    dropout: Fraction = 0.0
    """Of the adapters' input; for supervised fine-tuning alone."""
    targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """Which linear layers get an adapter: all but the head, or those of these names."""
    orthogonality: Annotated[float, Field(ge=0, le=1000)] = 0.5
    """Weight, beside the loss, of how far the rows of A, and the columns of B, are from orthogonal ones of length 1."""
    initial_share: Fraction = 0.1
    """Of the optimizer steps, the first ones, in which no rank is dropped."""
    final_share: Fraction = 0.3
    """Of the optimizer steps, the last ones, in which those that are left are trained alone."""
    every: Annotated[int, Field(gt=0, le=1_000_000)] = 1
    """Optimizer steps from one choice of ranks to the next."""

    @property
    def first_rank(self) -> int:
        return -(-3 * self.rank // 2) if self.initial_rank is None else self.initial_rank

    @property
    def is_plain_lora(self) -> bool:
        return True

    @property
    def stands_beside(self) -> bool:
        """Its layers multiply weights of their own with one another, outside of a forward."""
        return False

    @property
    def reads_weights(self) -> bool:
        return False

    @property
    def published_rank(self) -> int:
        return self.first_rank

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.first_rank <= self.rank:
            raise ValueError(
                f"policy.tuning.initial_rank={self.initial_rank} is what adapters begin with, and in the end they have "
                f"policy.tuning.rank={self.rank} on average: make initial_rank larger, or leave it out"
            )
        if self.initial_share + self.final_share >= 1:
            raise ValueError(
                f"policy.tuning.initial_share={self.initial_share:g} and policy.tuning.final_share="
                f"{self.final_share:g} leave no steps in which ranks are dropped: make their sum less than 1"
            )
        return self


class Ia3Tuning(AdapterTuning):
    """A factor for each key, value and inner feed-forward number: (IA)³ (Liu et al. 2022, arXiv 2205.05638)."""

    peft_type = "IA3"
    size_key = None

    kind: Literal["ia3"] = "ia3"
    targets: tuple[str, ...] = ()
    """Modules whose outputs are scaled; empty, as `feedforward`, stands for keys, values and the feed-forward."""
    feedforward: tuple[str, ...] = ()
    """Modules whose inputs are scaled instead."""


class VeraTuning(AdapterTuning):
    """Two vectors a target, around random matrices that all share: VeRA (Kopiczko et al. 2024, arXiv 2310.11454)."""

    peft_type = "VERA"
    size_key = "r"

    kind: Literal["vera"] = "vera"
    rank: LoraRank = 256
    """Width of the shared matrices, for which more is usual than for LoRA: only vectors are trained."""
    targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """Which linear layers get the vectors: all but the head, or those of these names."""
    dropout: Fraction = 0.0
    """Of the adapters' input; for supervised fine-tuning alone."""
    d_initial: Positive = 0.1
    """Where the vector between the matrices begins; the one behind them begins at zero."""


class BottleneckTuning(AdapterTuning):
    """Two small layers behind each block, h + W_up f(W_down h), of which W_up begins at zero."""

    peft_type = "BOTTLENECK"
    size_key = "width"

    kind: Literal["bottleneck"] = "bottleneck"
    placement: Literal["houlsby", "pfeiffer"] = "houlsby"
    """`houlsby`: behind attention and behind the feed-forward block of each layer (Houlsby et al. 2019, arXiv
    1902.00751). `pfeiffer`: behind the feed-forward block alone (Pfeiffer et al. 2020, arXiv 2005.00247)."""
    width: Annotated[int, Field(gt=0, le=65_536)] = 64
    """Numbers between the two layers; a block's output has many more."""
    activation: BottleneckActivation = "gelu"
    """f, between the two layers."""

    @property
    def stands_beside(self) -> bool:
        return True

    @property
    def reads_weights(self) -> bool:
        return False

    @property
    def can_merge(self) -> bool:
        return False


ModuleTuning = LoraTuning | AdaLoraTuning | Ia3Tuning | VeraTuning | BottleneckTuning
"""Adapters on modules of the model."""


def check_ranks_stay(tuning: Settings) -> None:
    """Raises ValueError where an online run is to drop ranks."""
    if isinstance(tuning, AdaLoraTuning):
        raise ValueError(
            f"policy.tuning.kind={tuning.kind} drops the ranks that gradients have made least of, and an online run's "
            f"are of responses that change with the policy, with those of a critic beside: train the policy so in a "
            f"run of kind sft, dpo or kto, which leaves LoRA, or set policy.tuning.kind=lora"
        )
