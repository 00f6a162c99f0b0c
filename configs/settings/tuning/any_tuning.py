"""Every method as one setting (Tuning), and those of them that an alignment stage takes."""

from typing import Annotated, get_args

from pydantic import AfterValidator, Field

from plumbob.configs.settings.tuning.adapters import AdapterTuning, LoraTuning
from plumbob.configs.settings.tuning.weights import FullTuning, SelectiveTuning, WeightTuning

AnyTuning = FullTuning | SelectiveTuning | LoraTuning

Tuning = Annotated[AnyTuning, Field(discriminator="kind")]

ADAPTER_TYPES = tuple(kind.peft_type for kind in get_args(AnyTuning) if issubclass(kind, AdapterTuning))
"""PEFT's names of the adapters that can be trained further and sampled from."""


def refuse_dropout(tuning: AnyTuning) -> AnyTuning:
    if not isinstance(tuning, WeightTuning) and tuning.dropout:
        raise ValueError(
            f"policy.tuning.dropout={tuning.dropout:g}: PPO, DPO and KTO compare the policy with log-probs made "
            f"without dropout; set policy.tuning.dropout=0"
        )
    return tuning


AlignmentTuning = Annotated[AnyTuning, Field(discriminator="kind"), AfterValidator(refuse_dropout)]
