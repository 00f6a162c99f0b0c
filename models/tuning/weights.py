"""Training weights of the model itself as tuning methods: all of them, or those that are chosen.

policy.model --loaded--> policy     its chosen weights are trained in place
             --loaded--> reference  the same, frozen: a model of its own
             --loaded--> critic     with a head, tuned as the policy is; or the head alone, on the policy's states
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, assert_never

from transformers import AutoModelForCausalLM

from plumbob.configs.settings.models import NewLlamaSettings
from plumbob.configs.settings.tuning.weights import FullTuning, SelectiveTuning
from plumbob.core.errors import UserError
from plumbob.models.adapter import ModelRole
from plumbob.models.from_scratch import empty_llama
from plumbob.models.loading import OpenedPolicy, check_full
from plumbob.models.sizes.adapter_size import AdapterSize
from plumbob.models.sizes.kept_activations import Beside
from plumbob.models.tuning.adapter_support import AdapterSupport

if TYPE_CHECKING:
    from torch import nn

    from plumbob.models.policy import PolicyModel


@dataclass(frozen=True)
class WeightMethod:
    """Trains weights of the model, with every role that is not the policy beside it."""

    tuning: FullTuning | SelectiveTuning

    def check(self, opened: OpenedPolicy, setting: str, roles: tuple[ModelRole, ...], support: AdapterSupport) -> None:
        check_full(opened, setting)
        architectures = opened.config.architectures or ()
        if support.merged_into is not None and not support.merged_into.intersection(architectures):
            raise UserError(
                f"{opened.ref.setting}={opened.source.base}: {support.engine} takes in trained weights of "
                f"{', '.join(sorted(support.merged_into))}, and this is {', '.join(architectures)}; {support.instead}"
            )
        if isinstance(self.tuning, SelectiveTuning):
            check_chosen(opened.empty(AutoModelForCausalLM), self.tuning, opened.source.base, setting)

    def check_new(self, spec: NewLlamaSettings, setting: str, support: AdapterSupport) -> None:
        if isinstance(self.tuning, SelectiveTuning):
            check_chosen(empty_llama(spec), self.tuning, f"the new {spec.setting}", setting)

    def num_trained(self, model: Any, role: ModelRole) -> int:
        """Parameters that a role trains, the critic's head aside; of a model that may be without weights."""
        names = frozenset() if role == "value" and self.tuning.critic == "head" else self.names(model, role)
        return sum(parameter.numel() for name, parameter in model.named_parameters() if name in names)

    def names(self, model: Any, role: ModelRole) -> frozenset[str]:
        """Of the parameters that a model of the role's own trains: a critic has no use for the output embedding."""
        chosen = chosen_names(model, self.tuning)
        return chosen - head_names(model) if role == "value" else chosen

    @property
    def beside(self) -> Beside:
        return "norms" if isinstance(self.tuning, SelectiveTuning) and not self.tuning.targets else "weights"

    def size(self, model: Any) -> AdapterSize:
        return AdapterSize(self.num_trained(model, "policy"))

    def policy(self, opened: OpenedPolicy, roles: tuple[ModelRole, ...], seed: int) -> "PolicyModel":
        from plumbob.models.tuning.roles import policy_of_weights

        return policy_of_weights(opened, self.names, self.tuning.critic, roles, seed)


def chosen_names(model: Any, tuning: FullTuning | SelectiveTuning) -> frozenset[str]:
    """Of the parameters that are trained, by transformers' names; of one that two modules share, the first.

    Args:
        model: a transformers model, which may be one without weights.
    """
    match tuning:
        case FullTuning():
            return frozenset(name for name, _ in model.named_parameters())
        case SelectiveTuning():
            chosen = {id(parameter) for found in _found_by(model, tuning).values() for parameter in found}
            return frozenset(name for name, parameter in model.named_parameters() if id(parameter) in chosen)
        case _:
            assert_never(tuning)


def head_names(model: Any) -> frozenset[str]:
    """Of what the output embedding has to itself, which nothing but logits is computed with."""
    head = model.get_output_embeddings()
    tied = {id(parameter) for parameter in model.get_input_embeddings().parameters()}
    own = set() if head is None else {id(parameter) for parameter in head.parameters()} - tied
    return frozenset(name for name, parameter in model.named_parameters() if id(parameter) in own)


def check_chosen(model: Any, tuning: SelectiveTuning, base: str, setting: str) -> None:
    """Raises UserError when one of the choices finds nothing in the model.

    Args:
        base: what the model is called.
        setting: the one that `tuning` is, such as `policy.tuning`.
    """
    nothing = next((choice for choice, found in _found_by(model, tuning).items() if not found), None)
    if nothing is None:
        return
    what = {"biases": "biases=true: no parameter is a bias", "norms": "norms=true: no layer normalises"}
    found = what.get(nothing, f"targets: {nothing} is no module that has weights")
    raise UserError(f"{setting}.{found} in {base}; {_what_there_is(model, setting)}")


def _found_by(model: Any, tuning: SelectiveTuning) -> "dict[str, list[nn.Parameter]]":
    """Each choice -> the parameters that it finds."""
    modules = dict(model.named_modules())
    found = {
        target: [p for name, each in modules.items() if f".{name}".endswith(f".{target}") for p in each.parameters()]
        for target in tuning.targets
    }
    if tuning.biases:
        found["biases"] = [parameter for name, parameter in model.named_parameters() if name.endswith("bias")]
    if tuning.norms:
        found["norms"] = [p for each in modules.values() if is_norm(each) for p in each.parameters()]
    return found


def is_norm(module: Any) -> bool:
    """Whether a module normalises: families have classes of their own, and all say so in their names."""
    return "norm" in type(module).__name__.lower() and not list(module.children())


def _what_there_is(model: Any, setting: str) -> str:
    names = [name for name, module in model.named_modules() if name and list(module.parameters())]
    ends = {name.rpartition(".")[2] for name in names}
    blocks = [".".join(name.split(".")[-2:]) for name in names if name.rpartition(".")[2].isdigit()]
    others = ", ".join(sorted(end for end in ends if not end.isdigit()))
    return f"{setting}.targets may be {_span(blocks)}{others}"


def _span(blocks: Sequence[str]) -> str:
    return f"{blocks[0]} to {blocks[-1]}, " if blocks else ""
