"""Policy models from what a stage begins with: which adapters stand on the base, and which role each plays."""

from collections.abc import Callable, Mapping, Sequence

import torch
from peft import PeftConfig, PeftModel
from torch import nn

from plumbob.core.errors import UserError
from plumbob.models.adapter import ModelRole
from plumbob.models.loading import OpenedPolicy, check_full, load_causal_lm
from plumbob.models.policy import PolicyModel, new_value_head
from plumbob.models.tuning.peft_adapters import (
    adapter_parameter_names,
    add_adapters,
    config_of,
    copy_into,
    without_dropout,
)


def full_policy(opened: OpenedPolicy) -> PolicyModel:
    """A model whose every weight is the policy.

    Raises:
        UserError: it cannot be loaded, or is an adapter, whose base would have to be merged with it first.
    """
    check_full(opened)
    return PolicyModel(load_causal_lm(opened), {"policy": None})


def adapted_policy(
    opened: OpenedPolicy,
    new_adapter: PeftConfig,
    roles: tuple[ModelRole, ...],
    seed: int,
    begin: Callable[[PeftModel, tuple[str, ...]], None] | None = None,
) -> PolicyModel:
    """One frozen base in several roles.

    From a full model, the policy is a new adapter, which changes nothing before the first update, and the reference is
    the base with adapters off. From an adapter, the policy begins as its copy and the reference is a frozen copy beside
    it; rank, scale and targets are then that adapter's. The critic is an adapter of its own with a linear head.

    A policy with a reference has no dropout, neither the base's nor the adapters': the log-probs that an update is
    compared with are made without, and would differ from it before it began.

    Args:
        new_adapter: what is put on a full model.
        begin: gives new adapters, by their names, where they begin, if that is not where PEFT lets them.

    Raises:
        UserError: the model cannot be loaded.
    """
    has_reference = "reference" in roles
    source = opened.source
    base = load_causal_lm(opened, with_dropout=not has_reference)
    hidden_size = base.config.get_text_config().hidden_size
    named: dict[ModelRole, str | None] = {role: role for role in roles}
    if source.adapter is None and has_reference:
        named["reference"] = None
    config = new_adapter if source.adapter is None else config_of(source)
    if has_reference:
        config = without_dropout(config)
    torch.manual_seed(seed)
    names = tuple(name for name in named.values() if name is not None)
    model = add_adapters(base, config, names)
    if source.adapter is None and begin is not None:
        begin(model, names)
    if source.adapter is not None:
        copy_into(model, source.adapter, tuple(role for role in ("policy", "reference") if role in named))
    head = new_value_head(hidden_size, torch.Generator().manual_seed(seed)) if "value" in named else None
    policy = PolicyModel(model, named, head)
    learnt = {name for group in trainable_groups(policy).values() for name in group}
    for name, parameter in policy.named_parameters():
        parameter.requires_grad_(name in learnt)
    return policy


def frozen_reference(opened: OpenedPolicy) -> PolicyModel:
    """A model that only computes, as the reference: a full model, or a base with one adapter on it; without dropout."""
    base, adapter = load_causal_lm(opened, with_dropout=False), opened.source.adapter
    if adapter is None:
        return PolicyModel(base, {"reference": None}).requires_grad_(False)
    model = add_adapters(base, without_dropout(config_of(opened.source)), ("reference",))
    copy_into(model, adapter, ("reference",))
    return PolicyModel(model, {"reference": "reference"}).requires_grad_(False)


def add_teachers(policy: PolicyModel, teachers: Sequence[OpenedPolicy]) -> None:
    """Load frozen models and put them beside a policy, which they grade.

    Raises:
        UserError: one cannot be loaded, or cannot grade this policy.
    """
    for opened in teachers:
        try:
            policy.add_teacher(frozen_reference(opened))
        except ValueError as error:
            raise UserError(f"{opened.ref}: cannot grade this policy: {error}; give another teacher") from error


def trainable_groups(policy: PolicyModel) -> dict[str, Mapping[str, nn.Parameter]]:
    """Role -> name -> parameter, for the roles that learn: the policy, and the critic with its head."""
    if policy.adapters.get("policy") is None:
        return {"policy": dict(policy.named_parameters())}
    groups: dict[str, Mapping[str, nn.Parameter]] = {}
    for role in ("policy", "value"):
        if role in policy.adapters:
            own = {f"causal_lm.{name}" for name in adapter_parameter_names(policy.causal_lm, role)}
            groups[role] = {
                name: parameter
                for name, parameter in policy.named_parameters()
                if name in own or (role == "value" and name.startswith("value_head."))
            }
    return groups
