"""One base in its roles: log-probs and values against plain transformers, and the guard around switching."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from plumbob.configs.settings.tuning.adapters import LoraTuning
from plumbob.models.adapter import ModelRole
from plumbob.models.adapter_switch import activate
from plumbob.models.policy import PolicyModel, RoleError, new_value_head
from plumbob.models.tuning.methods import method_of
from plumbob.models.tuning.roles import trainable_groups
from tests.support.opened_models import opened_policy
from tests.support.tiny_policy import write_policy

TEMPERATURE = 0.7
LENGTHS = (9, 5, 7)
PROMPTS = (4, 2, 6)
ROLES: tuple[ModelRole, ...] = ("policy", "reference", "value")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_policy(tmp_path_factory.mktemp("policy"))


@pytest.fixture(scope="module")
def base(folder: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder).eval()


def ragged(num_padding: int = 0, first: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, attention mask and action mask of three responses to prompts, padded on the right with an ordinary token."""
    width = max(LENGTHS) + num_padding
    ids = torch.randint(2, 280, (3, max(LENGTHS)), generator=torch.Generator().manual_seed(1))
    columns = torch.arange(width)
    attention = columns < torch.tensor(LENGTHS)[:, None]
    actions = attention & (columns >= torch.tensor(PROMPTS)[:, None])
    ids = torch.where(attention, torch.nn.functional.pad(ids, (0, num_padding), value=7), 7)
    return ids[first:], attention[first:], actions[first:]


def by_hand(model: Any, ids: Tensor, length: int) -> Tensor:
    """log softmax(logits / T) of one unpadded row in float64, column t about token t; column 0 is 0."""
    with torch.no_grad():
        logits = model(input_ids=ids[None, :length]).logits[0].double() / TEMPERATURE
    probabilities = logits.exp() / logits.exp().sum(dim=-1, keepdim=True)
    chosen = probabilities[:-1].gather(1, ids[1:length, None])[:, 0].log()
    return torch.nn.functional.pad(chosen, (1, 0))


def randomised(folder: str, seed: int = 3) -> PolicyModel:
    """Three roles, with adapters that are not zero."""
    model = method_of(LoraTuning(rank=4)).policy(opened_policy(folder), ROLES, seed=0)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for group in trainable_groups(model).values():
            for parameter in group.values():
                parameter.normal_(0.0, 0.1, generator=generator)
    return model


def test_log_probs_are_those_of_plain_transformers(base: Any) -> None:
    model = PolicyModel(base, {"policy": None})
    ids, attention, actions = ragged(num_padding=2)
    with model.role("policy"), torch.no_grad():
        found = model(ids, attention, actions, TEMPERATURE)
    assert found.dtype == torch.float32 and found.shape == ids.shape
    for row, (prompt, length) in enumerate(zip(PROMPTS, LENGTHS, strict=True)):
        expected = torch.zeros(ids.shape[1], dtype=torch.float64)
        expected[prompt:length] = by_hand(base, ids[row], length)[prompt:]
        # float32 logits of size 10 are good to about 1e-6 relative.
        torch.testing.assert_close(found[row].double(), expected, rtol=0, atol=2e-5)


def test_padding_the_rows_beside_and_the_columns_asked_change_nothing(base: Any) -> None:
    model = PolicyModel(base, {"policy": None})
    ids, attention, actions = ragged()
    with model.role("policy"), torch.no_grad():
        found = model(ids, attention, actions, TEMPERATURE)
        wider = model(*ragged(num_padding=5), TEMPERATURE)
        fewer = model(*ragged(first=1), TEMPERATURE)
        everywhere = attention.clone()
        everywhere[:, 0] = False
        whole = model(ids, attention, everywhere, TEMPERATURE)
        nothing = model(ids, attention, torch.zeros_like(actions), TEMPERATURE)
    assert wider.shape == (3, 14) and wider[:, 9:].abs().sum() == 0
    torch.testing.assert_close(wider[:, :9], found, rtol=0, atol=1e-5)
    torch.testing.assert_close(fewer, found[1:], rtol=0, atol=1e-5)
    # The first columns need no vocabulary projection when nobody asks about them: trimmed or not, the same numbers.
    torch.testing.assert_close(torch.where(actions, whole, 0.0), found, rtol=0, atol=1e-5)
    assert (whole[everywhere] != 0).all() and nothing.abs().sum() == 0


def tiny_gpt2() -> Any:
    """Whose positions are learnt and absolute: a shifted row would be another one."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=300, n_positions=16, n_embd=16, n_layer=1, n_head=2, initializer_range=0.4)
    return GPT2LMHeadModel(config).eval()


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_side_of_the_padding_changes_no_bit(base: Any, family: str) -> None:
    model = PolicyModel(base if family == "llama" else tiny_gpt2(), {"policy": None})
    on_right = ragged(num_padding=2)
    lengths = on_right[1].sum(dim=1, keepdim=True)
    columns = (torch.arange(on_right[0].shape[1]) + lengths) % on_right[0].shape[1]  # Real tokens are the last ones.
    on_left = [x.gather(1, columns) for x in on_right]
    assert on_left[1][:, -1].all() and not on_left[1][:, 0].any()
    with model.role("policy"), torch.no_grad():
        expected, found = model(*on_right, TEMPERATURE), model(*on_left, TEMPERATURE)
    assert torch.equal(found, expected.gather(1, columns)) and expected.abs().sum() > 1


def test_the_value_of_a_token_is_of_the_state_before_it(base: Any) -> None:
    head = new_value_head(128, torch.Generator().manual_seed(0))
    model = PolicyModel(base, {"value": None}, head)
    ids, attention, actions = ragged(num_padding=1)
    with model.role("value"), torch.no_grad():
        found = model(ids, attention, actions, TEMPERATURE)
        for row, (prompt, length) in enumerate(zip(PROMPTS, LENGTHS, strict=True)):
            expected = torch.zeros(ids.shape[1])
            for token in range(prompt, length):
                hidden = base.model(input_ids=ids[row : row + 1, :token]).last_hidden_state[0, -1]
                expected[token] = (head.weight[0] * hidden).sum()
            torch.testing.assert_close(found[row], expected, rtol=0, atol=1e-5)
    # Near zero: 0.01 / sqrt(H) weights on hidden states that a norm keeps at size 1 give a standard deviation of 0.01.
    assert 0 < found.abs().max() < 0.05


def test_every_role_has_its_own_weights(folder: str) -> None:
    model = randomised(folder)
    outputs: dict[str, Tensor] = {}
    for role in ROLES:
        with model.role(role), torch.no_grad():
            outputs[role] = model(*ragged(), TEMPERATURE)
    assert (outputs["policy"] - outputs["reference"]).abs().max() > 0.1
    with torch.no_grad():
        for name, parameter in trainable_groups(model)["value"].items():
            if not name.startswith("value_head"):
                parameter.zero_()
    for role in ROLES:
        with model.role(role), torch.no_grad():
            again = model(*ragged(), TEMPERATURE)
        assert torch.equal(again, outputs[role]) == (role != "value"), role


@pytest.mark.parametrize("learning, other", [("policy", "value"), ("value", "policy")])
def test_gradients_do_not_leak_between_roles(folder: str, learning: ModelRole, other: ModelRole) -> None:
    model = randomised(folder)
    with model.role(learning):
        model(*ragged(), TEMPERATURE).sum().backward()
    groups = trainable_groups(model)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in groups[learning].values())
    assert all(p.grad is None for p in groups[other].values())
    learnt = {id(p) for group in groups.values() for p in group.values()}
    assert all(p.grad is None for p in model.parameters() if id(p) not in learnt)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_role_that_ends_before_its_backward_is_refused(folder: str, checkpointing: bool) -> None:
    model = randomised(folder).train()
    if checkpointing:
        model.causal_lm.gradient_checkpointing_enable({"use_reentrant": False})
    with pytest.raises(RoleError, match="role 'policy' ended before the backward"), model.role("policy"):
        model(*ragged(), TEMPERATURE)
    # After the error the model is as usable as before; and a forward without gradients needs no backward.
    with model.role("policy"):
        model(*ragged(), TEMPERATURE).sum().backward()
    with model.role("value"), torch.no_grad():
        model(*ragged(), TEMPERATURE)


def test_roles_are_not_nested_and_a_forward_needs_one(folder: str) -> None:
    model = randomised(folder)
    inside = pytest.raises(RoleError, match="'value' was asked for inside role 'policy'")
    with inside, model.role("policy"), model.role("value"):
        pass
    with pytest.raises(RoleError, match="a forward needs a role"):
        model(*ragged(), TEMPERATURE)


def policy_gradients(model: PolicyModel) -> Mapping[str, Tensor]:
    found = {}
    for name, parameter in trainable_groups(model)["policy"].items():
        assert parameter.grad is not None
        found[name] = parameter.grad.clone()
        parameter.grad = None
    return found


def test_what_the_guard_is_for(folder: str) -> None:
    model = randomised(folder).train()
    with model.role("policy"):
        model(*ragged(), TEMPERATURE).sum().backward()
    right = policy_gradients(model)
    model.causal_lm.gradient_checkpointing_enable({"use_reentrant": False})
    with model.role("policy"):
        model(*ragged(), TEMPERATURE).sum().backward()
    for name, gradient in policy_gradients(model).items():
        torch.testing.assert_close(gradient, right[name], rtol=1e-4, atol=1e-4 * float(right[name].abs().max()))
    # The mistake, made past the guard: the backward runs the forward again with the critic's adapter, in silence.
    outputs = []
    with pytest.raises(RoleError), model.role("policy"):
        outputs.append(model(*ragged(), TEMPERATURE))
    activate(model.causal_lm, model.adapters["value"])
    outputs[0].sum().backward()
    wrong = {name: p.grad for name, p in trainable_groups(model)["policy"].items()}
    off = [
        1.0 if wrong[name] is None else float((wrong[name] - gradient).norm() / gradient.norm())
        for name, gradient in right.items()
    ]
    assert max(off) > 0.5


def test_a_new_value_head_is_decided_by_its_generator() -> None:
    first, again, other = (new_value_head(64, torch.Generator().manual_seed(seed)).weight for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    # 64 draws of standard deviation 0.01 / 8.
    assert 0.5 < float(first.detach().std()) / (0.01 / 8) < 1.5


def test_an_adapter_file_that_does_not_fit_is_refused(folder: str, tmp_path: Path) -> None:
    from plumbob.models.adapter import Adapter, save_adapter
    from plumbob.models.tuning.peft_adapters import copy_into
    from tests.support.tiny_policy import make_adapter

    adapter = make_adapter(folder, 0, seed=1)
    names = sorted(adapter.tensors)
    model = randomised(folder)
    fewer = {name: adapter.tensors[name] for name in names[1:]}
    save_adapter(Adapter(0, adapter.config, fewer), tmp_path)
    with pytest.raises(ValueError, match=r"missing \[.*policy"):
        copy_into(model.causal_lm, tmp_path, ("policy",))
    save_adapter(Adapter(0, adapter.config, dict(adapter.tensors) | {f"{names[0]}x": torch.ones(1)}), tmp_path)
    with pytest.raises(ValueError, match="unexpected"):
        copy_into(model.causal_lm, tmp_path, ("policy",))
