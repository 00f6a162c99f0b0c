"""Weights of the model itself: which are chosen, what is refused, and the roles beside a policy tuned in place."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from plumbob.configs.settings.models import NewLlamaSettings
from plumbob.configs.settings.tuning.adapters import LoraTuning
from plumbob.configs.settings.tuning.weights import FullTuning, SelectiveTuning
from plumbob.core.errors import UserError
from plumbob.models.adapter import ModelRole, save_adapter
from plumbob.models.policy import PolicyModel, RoleError
from plumbob.models.tuning.adapter_support import WHAT_PEFT_LOADS
from plumbob.models.tuning.idle_reference import IdleReference, idle_reference
from plumbob.models.tuning.methods import method_of
from plumbob.models.tuning.roles import trainable_groups
from plumbob.models.tuning.weights import WeightMethod, chosen_names, head_names
from plumbob.rollout.samplers.vllm.support import WEIGHTS_SUPPORT
from tests.support.families import family
from tests.support.opened_models import opened_policy
from tests.support.role_logprobs import ACTIONS, IDS, MASK, plain, response
from tests.support.tiny_policy import make_adapter, write_policy

ROLES: tuple[ModelRole, ...] = ("policy", "reference", "value")
SOME = SelectiveTuning(targets=("layers.1.mlp",), norms=True)
"""Of two layers the second's three matrices, and five norms."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_policy(tmp_path_factory.mktemp("policy"))


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> str:
    """With biases, and dropout that would show."""
    path = tmp_path_factory.mktemp("gpt2")
    rates = {"resid_pdrop": 0.5, "embd_pdrop": 0.5, "attn_pdrop": 0.5}
    torch.manual_seed(0)
    sizes = {"vocab_size": 300, "n_positions": 16, "n_embd": 32, "n_layer": 2, "n_head": 2}
    GPT2LMHeadModel(GPT2Config(**sizes, **rates)).save_pretrained(path)
    return str(path)


def build(folder: str, tuning: FullTuning | SelectiveTuning, roles: tuple[ModelRole, ...] = ROLES) -> PolicyModel:
    return method_of(tuning).policy(opened_policy(folder), roles, seed=0)


def move(model: PolicyModel, group: str) -> None:
    with torch.no_grad():
        for parameter in trainable_groups(model)[group].values():
            parameter.add_(0.05)


# ------------------------------------------------------------------------------------------------------- what is chosen


def test_modules_are_chosen_by_the_ends_of_their_names() -> None:
    model = family("llama")
    layer = {"self_attn": ["q_proj", "k_proj", "v_proj", "o_proj"], "mlp": ["gate_proj", "up_proj", "down_proj"]}
    names = {f"{part}.{name}" for part, own in layer.items() for name in own}
    names |= {"input_layernorm", "post_attention_layernorm"}
    expected = {f"model.layers.1.{name}.weight" for name in names}
    assert chosen_names(model, SelectiveTuning(targets=("layers.1",))) == expected
    # `ayers.1` and `1.mlp` begin within a name, and stand for nothing.
    found = chosen_names(model, SelectiveTuning(targets=("lm_head", "0.mlp", "head")))
    assert found == {"lm_head.weight"} | {f"model.layers.0.mlp.{name}.weight" for name in layer["mlp"]}


def test_a_weight_that_two_modules_share_is_chosen_once() -> None:
    model = family("llama, tied")
    assert chosen_names(model, SelectiveTuning(targets=("lm_head",))) == {"model.embed_tokens.weight"}
    assert head_names(model) == frozenset()
    assert head_names(family("llama")) == {"lm_head.weight"}


def test_biases_and_norms() -> None:
    model = family("gpt2")
    layer = ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")
    biases = {f"transformer.h.{number}.{name}.bias" for number in (0, 1) for name in layer} | {"transformer.ln_f.bias"}
    assert chosen_names(model, SelectiveTuning(biases=True)) == biases
    norms = {f"transformer.h.{number}.ln_{place}" for number in (0, 1) for place in (1, 2)} | {"transformer.ln_f"}
    expected = {f"{name}.{kind}" for name in norms for kind in ("weight", "bias")}
    assert chosen_names(model, SelectiveTuning(norms=True)) == expected
    assert chosen_names(model, SelectiveTuning(norms=True, biases=True)) == expected | biases
    assert chosen_names(model, FullTuning()) == {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize(
    ("tuning", "message"),
    [
        (
            SelectiveTuning(targets=("q_proj", "layers.2")),
            r"^policy\.tuning\.targets: layers\.2 is no module that has weights in .*; policy\.tuning\.targets may be "
            r"layers\.0 to layers\.1, down_proj, embed_tokens, .*, up_proj, v_proj$",
        ),
        (SelectiveTuning(biases=True), r"^policy\.tuning\.biases=true: no parameter is a bias in .*; policy\.tuning"),
    ],
)
def test_a_choice_that_finds_nothing_is_refused_with_what_there_is(
    folder: str, tuning: SelectiveTuning, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        method_of(tuning).check(opened_policy(folder), "policy.tuning", ROLES, WHAT_PEFT_LOADS)
    with pytest.raises(UserError, match=message.replace(" in .*;", r" in the new policy\.model;")):
        method_of(tuning).check_new(NewLlamaSettings(), "policy.tuning", WHAT_PEFT_LOADS)


def test_what_cannot_be_tuned_in_place_is_refused(folder: str, gpt2: str, tmp_path: Path) -> None:
    save_adapter(make_adapter(folder, 0, seed=5), tmp_path)
    for tuning in (FullTuning(), SOME):
        with pytest.raises(UserError, match=r"is an adapter.*merge_and_unload.*policy\.tuning\.kind=lora"):
            method_of(tuning).check(opened_policy(folder, tmp_path), "policy.tuning", ROLES, WHAT_PEFT_LOADS)
    method_of(FullTuning()).check(opened_policy(gpt2), "policy.tuning", ROLES, WEIGHTS_SUPPORT)
    other = opened_policy(gpt2)
    other.config.architectures = ["GPTJForCausalLM"]
    with pytest.raises(
        UserError, match=r"vLLM takes in .*, and this is GPTJForCausalLM; set rollout\.engine\.kind=trans"
    ):
        method_of(FullTuning()).check(other, "policy.tuning", ROLES, WEIGHTS_SUPPORT)


# ---------------------------------------------------------------------------------------------------------------- roles


@pytest.mark.parametrize("tuning", [FullTuning(), SOME, FullTuning(critic="head")], ids=repr)
def test_the_reference_is_the_policy_as_it_began_and_stays(folder: str, tuning: FullTuning | SelectiveTuning) -> None:
    model = build(folder, tuning)
    reference, values = response(model, "reference"), response(model, "value")
    torch.testing.assert_close(reference, plain(AutoModelForCausalLM.from_pretrained(folder)), rtol=0, atol=1e-5)
    # Invariant 1: before the first update every log-ratio is exactly 0.
    assert torch.equal(response(model, "policy"), reference)
    move(model, "policy")
    moved = response(model, "policy")
    assert (moved - reference).abs().max() > 0.01 and torch.equal(response(model, "reference"), reference)
    # A critic of its own does not see the policy move; a head on its states does.
    assert torch.equal(response(model, "value"), values) == (tuning.critic == "model")
    values = response(model, "value")
    move(model, "value")
    assert (response(model, "value") - values).abs().max() > 1e-3
    assert torch.equal(response(model, "policy"), moved) and torch.equal(response(model, "reference"), reference)


def test_what_is_trained(folder: str) -> None:
    named = dict(AutoModelForCausalLM.from_pretrained(folder).named_parameters())
    own = "role_models.value."
    for tuning, policy, value in (
        (FullTuning(), set(named), {f"{own}causal_lm.{name}" for name in named if name != "lm_head.weight"}),
        (FullTuning(critic="head"), set(named), set()),
        (
            SOME,
            chosen_names(family("llama"), SOME),
            {f"{own}causal_lm.{n}" for n in chosen_names(family("llama"), SOME)},
        ),
    ):
        model = build(folder, tuning)
        groups = trainable_groups(model)
        assert set(groups["policy"]) == {f"causal_lm.{name}" for name in policy}
        head = f"{own}value_head.weight" if tuning.critic == "model" else "value_head.weight"
        assert set(groups["value"]) == value | {head}
        learnt = {name for group in groups.values() for name in group}
        assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == learnt
        # As the estimate of memory has it.
        empty = opened_policy(folder).empty(AutoModelForCausalLM)
        for role, group in groups.items():
            counted = sum(p.numel() for name, p in group.items() if "value_head" not in name)
            assert WeightMethod(tuning).num_trained(empty, role) == counted  # type: ignore[arg-type]


def test_roles_that_are_not_asked_for_are_not_made(folder: str) -> None:
    assert not build(folder, FullTuning(), ("policy",)).role_models
    assert list(build(folder, SOME, ("policy", "reference")).role_models) == ["reference"]
    assert list(build(folder, FullTuning(critic="head")).role_models) == ["reference"]


def gradients(model: PolicyModel, role: ModelRole) -> set[str]:
    """Names of the parameters that a loss of this role reaches."""
    model.zero_grad()
    model.train()
    with model.role(role):
        model(IDS, MASK, ACTIONS, 0.8).square().sum().backward()
    return {name for name, p in model.named_parameters() if p.grad is not None and float(p.grad.abs().max()) > 0}


def test_a_loss_reaches_its_own_roles_weights_alone(folder: str) -> None:
    for tuning in (FullTuning(), SOME, FullTuning(critic="head")):
        model = build(folder, tuning)
        groups = trainable_groups(model)
        assert gradients(model, "policy") == set(groups["policy"])
        assert gradients(model, "value") == set(groups["value"])


def test_a_role_of_its_own_model_is_not_left_before_its_backward(folder: str) -> None:
    model = build(folder, FullTuning())
    with pytest.raises(RoleError, match="role 'value' ended before the backward"), model.role("value"):
        model(IDS, MASK, ACTIONS, 0.8)
    with model.role("value"):
        with pytest.raises(RoleError, match="asked for inside role 'value'"), model.role("policy"):
            pass
        model(IDS, MASK, ACTIONS, 0.8).sum().backward()


def test_the_first_ratio_is_one_on_a_model_with_dropout(gpt2: str) -> None:
    model = build(gpt2, SelectiveTuning(biases=True))
    old = response(model, "policy")
    model.train()
    with model.role("policy"):
        learning = model(IDS, MASK, ACTIONS, 0.8)
        learning.sum().backward()
    assert torch.equal(learning, old) and torch.equal(old, response(model, "reference"))
    alone = build(gpt2, FullTuning(), ("policy",)).train()
    with alone.role("policy"), torch.no_grad():
        assert not torch.equal(alone(IDS, MASK, ACTIONS, 0.8), old)


def test_a_reference_that_nobody_asks_lies_in_main_memory(folder: str) -> None:
    """On a machine without a GPU both are one, and where it is told to go is what can be seen."""
    model = build(folder, FullTuning(), ("policy", "reference"))
    reference, told = model.role_models["reference"], list[str]()
    reference.to = lambda device: told.append(str(device))  # type: ignore[method-assign, assignment, return-value]
    idle = idle_reference(model)
    assert idle is not None and told == ["cpu"]
    model.causal_lm.to("meta")
    other = IdleReference(model)
    with pytest.raises(RoleError), other.present():
        assert told == ["cpu", "cpu", "meta"]
        raise RoleError("in the middle")
    assert told == ["cpu", "cpu", "meta", "cpu"]
    adapted = method_of(LoraTuning()).policy(opened_policy(folder), ("policy", "reference"), seed=0)
    assert idle_reference(adapted) is None  # Its base is.
