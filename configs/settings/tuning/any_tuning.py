"""Every method as one setting (Tuning), and those of them that an alignment stage takes."""

from typing import Annotated, get_args

from pydantic import AfterValidator, Field

from plumbob.configs.settings.tuning.adapters import (
    AdaLoraTuning,
    AdapterTuning,
    LoraTuning,
    ModuleTuning,
)
from plumbob.configs.settings.tuning.soft_prompts import (
    MultitaskPromptTuning,
    PrefixTuning,
    PromptTuning,
    PTuning,
    SoftPromptTuning,
)
from plumbob.configs.settings.tuning.weights import FullTuning, SelectiveTuning

OnePromptTuning = PromptTuning | PTuning | PrefixTuning
AnyPromptTuning = OnePromptTuning | MultitaskPromptTuning
AnyAdapterTuning = ModuleTuning | AnyPromptTuning
AnyTuning = FullTuning | SelectiveTuning | AnyAdapterTuning

Tuning = Annotated[AnyTuning, Field(discriminator="kind")]

ADAPTER_TYPES = tuple(
    kind.peft_type
    for kind in get_args(AnyTuning)
    if issubclass(kind, AdapterTuning) and kind not in (AdaLoraTuning, MultitaskPromptTuning)
)
"""PEFT's names of the adapters that can be trained further and sampled from."""

SIZE_KEYS = {kind.peft_type: kind.size_key for kind in get_args(AnyAdapterTuning) if kind.size_key is not None}
"""PEFT's name of a kind of adapters -> what their config calls a rank, a width or the length of a soft prompt."""

PROMPT_TYPES = tuple(kind.peft_type for kind in get_args(OnePromptTuning))
"""Of them, those that are soft prompts."""


def refuse_dropout(tuning: AnyTuning) -> AnyTuning:
    dropout = getattr(tuning, "dropout", 0.0)
    if dropout:
        raise ValueError(
            f"policy.tuning.dropout={dropout:g}: PPO, DPO and KTO compare the policy with log-probs made "
            f"without dropout; set policy.tuning.dropout=0"
        )
    return tuning


def refuse_inexact_start(tuning: AnyTuning) -> AnyTuning:
    if isinstance(tuning, LoraTuning) and tuning.init == "orthogonal":
        raise ValueError(
            "policy.tuning.init=orthogonal: B A begins at zero but for rounding, and PPO, DPO and KTO begin with a "
            "policy that is its reference to the bit; use it in supervised fine-tuning, or set policy.tuning.init=olora"
        )
    return tuning


def refuse_tasks(tuning: AnyTuning) -> AnyTuning:
    if isinstance(tuning, MultitaskPromptTuning):
        raise ValueError(
            f"kind={tuning.kind} is for runs of kind sft, whose rows name their tasks: train it in one of these, and "
            f"give one of its tasks (policy/tasks/NAME, a soft prompt) as policy.model"
        )
    return tuning


AlignmentTuning = Annotated[
    AnyTuning,
    Field(discriminator="kind"),
    AfterValidator(refuse_dropout),
    AfterValidator(refuse_inexact_start),
    AfterValidator(refuse_tasks),
]


def virtual_tokens(tuning: AnyTuning) -> int:
    """Positions that its soft prompt takes of those that the model has for a text; 0 of other methods."""
    return tuning.num_virtual_tokens if isinstance(tuning, SoftPromptTuning) else 0
