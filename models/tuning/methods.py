"""From the settings of a tuning to its method: what it can be used on, and the policy that it trains.

LoRA stands in lora.py beside this file, training of the model's own weights in weights.py, every other method in
peft_methods/. Each is an arm of `method_of`; its settings are a variant of `Tuning`.
"""

from typing import TYPE_CHECKING, Protocol, assert_never

from plumbob.configs.settings.models import AlignedPolicySettings, NewLlamaSettings, PolicySettings
from plumbob.configs.settings.tuning.adapters import AdaLoraTuning, BottleneckTuning, Ia3Tuning, LoraTuning, VeraTuning
from plumbob.configs.settings.tuning.any_tuning import AnyTuning
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
from plumbob.models.tuning.adapter_support import (
    WHAT_PEFT_LOADS,
    AdapterSupport,
    check_beside_few_bits,
    check_given_kind,
    check_learner,
)
from plumbob.models.tuning.lora import LoraMethod
from plumbob.models.tuning.peft_methods.adalora import AdaLoraMethod
from plumbob.models.tuning.peft_methods.bottleneck import BottleneckMethod
from plumbob.models.tuning.peft_methods.prompt_methods import PromptMethod
from plumbob.models.tuning.peft_methods.vector_methods import Ia3Method, VeraMethod
from plumbob.models.tuning.weights import WeightMethod

if TYPE_CHECKING:
    from plumbob.models.policy import PolicyModel

TUNING = "policy.tuning"
ONE_RANK = LearnerSettings()


class TuningMethod(Protocol):
    """What of a policy is trained."""

    def check(self, opened: OpenedPolicy, setting: str, roles: tuple[ModelRole, ...], support: AdapterSupport) -> None:
        """Raises UserError when the model cannot be tuned so, or not be served.

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
    check_given_kind(opened, policy.tuning, TUNING)
    method_of(policy.tuning).check(opened, TUNING, roles, support)
    check_beside_few_bits(opened)
