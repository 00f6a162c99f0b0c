"""Responses to one prompt, which is computed once: as each row by itself, values and gradients, by family."""

from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor
from transformers import MistralConfig, MistralForCausalLM

from plumbob.models.adapter import ModelRole
from plumbob.models.forward import shared_prompts
from plumbob.models.forward.shared_prompts import can_share, find_shared
from plumbob.models.policy import PolicyModel, new_value_head
from tests.support.families import FAMILIES, NUM_WORDS, SIZES, family, gradients, weighted_sum, with_lora

TEMPERATURE = 0.7
GROUPS = (0, 1, 0, 2, 1, 0)
PROMPTS, RESPONSES = (5, 3, 8), (4, 1, 2, 3, 5, 1)
"""Tokens of each prompt, and of each row's response: rows of a group do not stand together, and lengths differ."""


def rows() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    prompts = [torch.randint(2, NUM_WORDS, (length,), generator=generator) for length in PROMPTS]
    responses = [torch.randint(2, NUM_WORDS, (length,), generator=generator) for length in RESPONSES]
    whole = [torch.cat([prompts[group], response]) for group, response in zip(GROUPS, responses, strict=True)]
    ids = torch.nn.utils.rnn.pad_sequence(whole, batch_first=True, padding_value=7)
    columns = torch.arange(ids.shape[1])
    attended = columns < torch.tensor([len(row) for row in whole])[:, None]
    asked = attended & (columns >= torch.tensor([PROMPTS[group] for group in GROUPS])[:, None])
    asked[4, 5] = False  # A token that another wrote, within a response.
    return ids, attended, asked


def outcome(model: PolicyModel, role: ModelRole, is_shared: bool) -> tuple[Tensor, dict[str, Tensor]]:
    """Log-probs or values of all rows, and the gradient of each weight."""
    with mock.patch.object(shared_prompts, "WORTH", 1.0 if is_shared else 0.0), model.role(role):
        found = model(*rows(), TEMPERATURE)
        if found.requires_grad:
            weighted_sum(found).backward()
    return found.detach(), gradients(model)


def check_like_rows_apart(model: PolicyModel, role: ModelRole = "policy") -> None:
    with mock.patch.object(shared_prompts, "states_after", side_effect=AssertionError):
        expected, expected_gradients = outcome(model, role, is_shared=False)
    with mock.patch("plumbob.models.policy.states_after", side_effect=shared_prompts.states_after) as shared:
        found, found_gradients = outcome(model, role, is_shared=True)
    assert shared.call_count == 1 and expected.abs().sum() > 0
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert found_gradients.keys() == expected_gradients.keys()
    for name, gradient in expected_gradients.items():
        bound = 1e-5 * max(1.0, float(gradient.abs().max()))
        torch.testing.assert_close(found_gradients[name], gradient, rtol=0, atol=bound)


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in ("gemma2", "gpt2")])
def test_every_weight_is_trained(name: str) -> None:
    check_like_rows_apart(PolicyModel(family(name).train(), {"policy": None}))


def test_positions_that_are_learnt_restart() -> None:
    check_like_rows_apart(PolicyModel(family("gpt2", without_dropout=True).train(), {"policy": None}))


@pytest.mark.parametrize("role", ["policy", "reference", "value"])
def test_each_role_has_its_own_adapter(role: ModelRole) -> None:
    causal_lm = with_lora(family("llama"), "all-linear", names=("policy", "value"))
    head = new_value_head(SIZES["hidden_size"], torch.Generator().manual_seed(0))
    model = PolicyModel(causal_lm, {"policy": "policy", "reference": None, "value": "value"}, head).train()
    check_like_rows_apart(model, role)


def test_a_mask_of_packed_prompts_that_is_all_ones_is_noticed() -> None:
    # Responses to shorter prompts would read the padding up to the longest: a bug that was found elsewhere.
    model = PolicyModel(family("llama").train(), {"policy": None})
    with mock.patch.object(shared_prompts, "_first", lambda lengths, width: torch.ones(len(lengths), width).bool()):
        with pytest.raises(AssertionError, match="Tensor-likes are not close"):
            check_like_rows_apart(model)
        wrong = outcome(model, "policy", is_shared=True)[0]
    right = outcome(model, "policy", is_shared=True)[0]
    # A response's first token is predicted by the prompt itself, before any padding.
    off = (wrong - right).abs().amax(dim=1)
    reads_padding = [PROMPTS[group] < max(PROMPTS) and num > 1 for group, num in zip(GROUPS, RESPONSES, strict=True)]
    assert [float(value) > 1e-3 for value in off] == reads_padding


def test_which_rows_share_which_prompt() -> None:
    ids, _, asked = rows()
    with mock.patch.object(shared_prompts, "WORTH", 1.0):
        shared = find_shared(ids, asked)
    assert shared is not None
    # The last token of a response predicts nothing, and is not read.
    assert (shared.lengths.tolist(), shared.response_lengths.tolist()) == ([5, 3, 5, 8, 3, 5], [3, 0, 1, 2, 4, 0])
    assert (shared.owners.tolist(), shared.groups.tolist()) == ([0, 1, 3], [0, 1, 0, 2, 1, 0])


@pytest.mark.parametrize("prompt, response, is_shared", [(10, 21, True), (10, 41, False), (1, 9, False)])
def test_prompts_are_shared_where_a_fifth_of_the_tokens_is_saved(prompt: int, response: int, is_shared: bool) -> None:
    # 2 x (10 + 20) = 60 tokens are read, or 10 + 2 x 20 = 50: 83%; of four rows 120 or 90: 75%. At 40, 170 of 200.
    ids = torch.ones(4, prompt + response, dtype=torch.int64)
    asked = (torch.arange(prompt + response) >= prompt).expand(4, -1)
    assert (find_shared(ids, asked) is not None) == is_shared
    assert find_shared(ids[:2], asked[:2]) is None
    assert find_shared(torch.arange(4)[:, None] + ids, asked) is None


def sliding(window: int | None) -> Any:
    torch.manual_seed(0)
    return MistralForCausalLM(MistralConfig(**SIZES, head_dim=16, sliding_window=window)).eval()


def test_models_of_which_a_response_reads_something_else_take_each_row_by_itself() -> None:
    found = {name: can_share(family(name).base_model) for name in FAMILIES}
    assert found == {name: name not in ("gemma2", "gpt2") for name in FAMILIES}  # Sliding attention, and dropout.
    assert [can_share(sliding(window).base_model) for window in (8, None)] == [False, True]


def test_recomputed_activations_take_each_row_by_itself() -> None:
    model = PolicyModel(family("llama").train(), {"policy": None})
    model.causal_lm.gradient_checkpointing_enable({"use_reentrant": False})
    with mock.patch("plumbob.models.policy.states_after", side_effect=AssertionError):
        trained = outcome(model, "policy", is_shared=True)[0]
    computed = outcome(model.eval(), "policy", is_shared=True)[0]
    torch.testing.assert_close(computed, trained, rtol=0, atol=1e-5)
