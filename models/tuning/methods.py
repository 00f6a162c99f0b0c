"""From the settings of a tuning to its method: what it can be used on, and the policy that it trains.

LoRA stands in lora.py beside this file, training of the model's own weights in weights.py, every other method in
peft_methods/. Each is an arm of `method_of`; its settings are a variant of `Tuning`. Of one that trains adapters
`PEFT_KINDS` has what is known of those that are given.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, assert_never

from plumbob.configs.settings.models import AlignedPolicySettings, NewLlamaSettings, PolicySettings
from plumbob.configs.settings.tuning.adapters import (
    AdaLoraTuning,
    AdapterTuning,
    BottleneckTuning,
    Ia3Tuning,
    LoraTuning,
    VeraTuning,
)
from plumbob.configs.settings.tuning.any_tuning import PROMPT_TYPES, AnyTuning
from plumbob.configs.settings.tuning.soft_prompts import (
    MultitaskPromptTuning,
    PrefixTuning,
    PromptTuning,
    PTuning,
)
from plumbob.configs.settings.tuning.weights import FullTuning, SelectiveTuning
from plumbob.configs.settings.workers import LearnerSettings
from plumbob.models.adapter import ModelRole
from plumbob.models.loading import OpenedPolicy, open_policy
from plumbob.models.resolution import read_adapter_config
from plumbob.models.sizes.adapter_size import AdapterSize
from plumbob.models.sizes.kept_activations import Beside
from plumbob.models.tuning.adapter_fields import PeftKind, check_fields
from plumbob.models.tuning.adapter_support import (
    WHAT_PEFT_LOADS,
    AdapterSupport,
    check_architecture,
    check_beside_few_bits,
    check_given_kind,
    check_largest_rank,
    check_learner,
)
from plumbob.models.tuning.lora import LORA, LoraMethod
from plumbob.models.tuning.peft_methods.adalora import AdaLoraMethod
from plumbob.models.tuning.peft_methods.bottleneck import BOTTLENECK, BottleneckMethod
from plumbob.models.tuning.peft_methods.prompt_methods import SOFT_PROMPT, PromptMethod
from plumbob.models.tuning.peft_methods.vector_methods import IA3, VERA, Ia3Method, VeraMethod
from plumbob.models.tuning.targets import check_adapted
from plumbob.models.tuning.weights import WeightMethod

if TYPE_CHECKING:
    from plumbob.models.policy import PolicyModel

TUNING = "policy.tuning"
ONE_RANK = LearnerSettings()

PEFT_KINDS: Mapping[str, PeftKind] = {
    LoraTuning.peft_type: LORA,
    Ia3Tuning.peft_type: IA3,
    VeraTuning.peft_type: VERA,
    BottleneckTuning.peft_type: BOTTLENECK,
    **dict.fromkeys(PROMPT_TYPES, SOFT_PROMPT),
}
"""PEFT's name of a kind of adapters -> what is known of those that are given."""


class TuningMethod(Protocol):
    """What of a policy is trained."""

    @property
    def beside(self) -> Beside:
        """What it trains, of that which makes a difference to what a block keeps for its backward."""

    def size(self, model: Any) -> AdapterSize:
        """How many numbers are trained, and stand beside these. `model` may be one without weights."""

    def check(self, opened: OpenedPolicy, setting: str, roles: tuple[ModelRole, ...], support: AdapterSupport) -> None:
        """Of a full model. Raises UserError when it cannot be tuned so, or not be served.

        Args:
            setting: the one that these settings are, such as `policy.tuning`.
            roles: what the model is to act as.
            support: what the sampler can load.
        """

    def check_new(self, spec: NewLlamaSettings, setting: str, support: AdapterSupport) -> None:
        """As `check`, for a model that is yet to be made."""

    def policy(self, opened: OpenedPolicy, roles: tuple[ModelRole, ...], seed: int) -> "PolicyModel":
        """The model in its roles, ready to be trained. Raises UserError when it cannot be loaded."""


def method_of(tuning: AnyTuning) -> TuningMethod:
    match tuning:
        case FullTuning() | SelectiveTuning():
            return WeightMethod(tuning)
        case LoraTuning():
            return LoraMethod(tuning)
        case AdaLoraTuning():
            return AdaLoraMethod(tuning)
        case Ia3Tuning():
            return Ia3Method(tuning)
        case VeraTuning():
            return VeraMethod(tuning)
        case BottleneckTuning():
            return BottleneckMethod(tuning)
        case PromptTuning() | PTuning() | PrefixTuning() | MultitaskPromptTuning():
            return PromptMethod(tuning)
        case _:
            assert_never(tuning)


def open_tunable(
    policy: PolicySettings | AlignedPolicySettings,
    roles: tuple[ModelRole, ...],
    learner: LearnerSettings = ONE_RANK,
) -> OpenedPolicy:
    """The policy that a stage begins with, which nothing samples from.

    Args:
        roles: what it is to act as.

    Raises:
        UserError: it cannot be opened, or cannot be tuned as its settings say.
    """
    opened = open_policy(policy.ref)
    check_tunable(opened, policy, roles, WHAT_PEFT_LOADS)
    check_learner(opened.ref, opened.source.adapter, policy.tuning, learner)
    return opened


def check_served(opened: OpenedPolicy, support: AdapterSupport, roles: tuple[ModelRole, ...] = ()) -> None:
    """Look at a policy that is sampled as it is.

    Args:
        roles: what it is on the learners' side beside.

    Raises:
        UserError: the engine or a learner cannot compute with it.
    """
    check_beside_few_bits(opened)
    check_architecture(opened, support)
    check_fields(opened, PEFT_KINDS, roles, support)
    check_largest_rank(opened, support)
    if opened.source.adapter is not None:
        kind = PEFT_KINDS[read_adapter_config(opened.source.adapter)["peft_type"]]
        check_adapted(opened, opened.source.adapter, kind, support)


def check_method(
    opened: OpenedPolicy, tuning: AnyTuning, setting: str, roles: tuple[ModelRole, ...], support: AdapterSupport
) -> None:
    """Raises UserError when the model cannot be tuned so: an adapter is trained, and looked at, as what it is.

    Args:
        setting: the one that `tuning` is.
    """
    if opened.source.adapter is not None and isinstance(tuning, AdapterTuning):
        check_given_kind(opened, tuning, setting)
        check_served(opened, support, roles)
    else:
        method_of(tuning).check(opened, setting, roles, support)


def check_tunable(
    opened: OpenedPolicy,
    policy: PolicySettings | AlignedPolicySettings,
    roles: tuple[ModelRole, ...],
    support: AdapterSupport,
) -> None:
    """Raises UserError when the policy cannot be tuned as its settings say, or not be sampled from.

    Args:
        support: what the sampler can load.
    """
    check_method(opened, policy.tuning, TUNING, roles, support)
    check_beside_few_bits(opened)
