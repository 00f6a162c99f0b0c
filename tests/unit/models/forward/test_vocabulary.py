"""Log-probs at asked positions, by portions, against the model's own logits whole: values and gradients, by family."""

from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from plumbob.models.forward import vocabulary
from plumbob.models.forward.vocabulary import entropy_of, vocabulary_of
from plumbob.models.policy import PolicyModel
from tests.support.families import FAMILIES, NUM_WORDS, SIZES, family, gradients, weighted_sum, with_lora

TEMPERATURE = 0.7
LENGTHS, PROMPTS = (9, 5, 7), (4, 2, 6)


def rows() -> tuple[Tensor, Tensor, Tensor]:
    ids = torch.randint(2, NUM_WORDS, (3, max(LENGTHS)), generator=torch.Generator().manual_seed(1))
    columns = torch.arange(max(LENGTHS))
    attended = columns < torch.tensor(LENGTHS)[:, None]
    return ids, attended, attended & (columns >= torch.tensor(PROMPTS)[:, None])


def check_like_plain_logits(causal_lm: Any, adapter: str | None, portion: int) -> None:
    ids, attended, asked = rows()
    logits = causal_lm(input_ids=ids, attention_mask=attended.long()).logits.float() / TEMPERATURE
    log_softmax = torch.log_softmax(logits[:, :-1], dim=-1)
    plain = log_softmax.gather(-1, ids[:, 1:, None]).squeeze(-1)
    entropies = nn.functional.pad(-(log_softmax.exp() * log_softmax).sum(dim=-1), (1, 0)).detach()
    expected = torch.where(asked, nn.functional.pad(plain, (1, 0)), 0.0)
    weighted_sum(expected).backward()
    expected_gradients = gradients(causal_lm)
    policy = PolicyModel(causal_lm, {"policy": adapter})
    with mock.patch.object(vocabulary, "PORTION", portion), policy.role("policy"):
        found = policy(ids, attended, asked, TEMPERATURE)
        weighted_sum(found).backward()
        found_gradients = gradients(causal_lm)
        both = policy(ids, attended, asked, TEMPERATURE, None, None, True)
        weighted_sum(both[:, 0]).backward()
        with torch.no_grad():
            without_gradient = policy(ids, attended, asked, TEMPERATURE, None, None, True)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert found_gradients.keys() == expected_gradients.keys() and len(found_gradients) > 3
    # Asked for entropies, it gives the very same log-probs and gradients.
    assert torch.equal(both[:, 0], found) and torch.equal(without_gradient, both)
    assert all(torch.equal(gradient, found_gradients[name]) for name, gradient in gradients(causal_lm).items())
    torch.testing.assert_close(both[:, 1].detach(), torch.where(asked, entropies, 0.0), rtol=0, atol=1e-5)
    assert entropies[asked].min() > 0.1
    for name, gradient in expected_gradients.items():
        torch.testing.assert_close(found_gradients[name], gradient, rtol=0, atol=1e-5 * max(1.0, gradient.abs().max()))


SIX_PORTIONS, ONE_PORTION = 2 * NUM_WORDS, 2**20
"""Nine tokens are asked about: five portions of at most two, or one."""


@pytest.mark.parametrize("portion", [SIX_PORTIONS, ONE_PORTION])
@pytest.mark.parametrize("name", FAMILIES)
def test_every_weight_is_trained(name: str, portion: int) -> None:
    check_like_plain_logits(family(name), None, portion)


@pytest.mark.parametrize("portion", [SIX_PORTIONS, ONE_PORTION])
@pytest.mark.parametrize("name", FAMILIES)
def test_the_head_is_frozen_below_adapters(name: str, portion: int) -> None:
    check_like_plain_logits(with_lora(family(name), "all-linear"), "policy", portion)


@pytest.mark.parametrize("portion", [SIX_PORTIONS, ONE_PORTION])
@pytest.mark.parametrize("name", ["llama", "gemma2", "cohere"])
def test_the_head_has_an_adapter_of_its_own(name: str, portion: int) -> None:
    check_like_plain_logits(with_lora(family(name), ["q_proj", "lm_head"]), "policy", portion)


def test_how_each_family_makes_its_logits_is_found() -> None:
    found = {name: vocabulary_of(family(name)) for name in FAMILIES}
    assert {name: each and (each.scale, each.cap) for name, each in found.items()} == {
        **dict.fromkeys(("llama", "llama, tied", "qwen3", "gpt2"), (1.0, None)),
        "gemma2": (1.0, 3.0),
        "cohere": (0.25, None),
        "granite": (0.25, None),
    }


class Doubled(LlamaForCausalLM):
    """A family that nobody told us of."""

    def forward(self, *args: Any, **named: Any) -> Any:
        output = super().forward(*args, **named)
        output.logits = output.logits * 2
        return output


def test_a_model_with_logits_of_another_kind_makes_them_itself() -> None:
    torch.manual_seed(0)
    model = Doubled(LlamaConfig(**SIZES)).eval()
    assert vocabulary_of(model) is None
    check_like_plain_logits(model, None, ONE_PORTION)


def test_a_frozen_head_in_autocast_is_as_far_off_as_plain_logits_are() -> None:
    causal_lm = with_lora(family("llama"), "all-linear")
    policy = PolicyModel(causal_lm, {"policy": "policy"})
    ids, attended, asked = rows()

    def outcome(autocast: bool, is_plain: bool) -> tuple[Tensor, Tensor]:
        with policy.role("policy"), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            if is_plain:
                logits = causal_lm(input_ids=ids, attention_mask=attended.long()).logits[:, :-1].float() / TEMPERATURE
                found = torch.log_softmax(logits, dim=-1).gather(-1, ids[:, 1:, None])[..., 0][asked[:, 1:]]
            else:
                found = policy(ids, attended, asked, TEMPERATURE)[asked]
            weighted_sum(found).backward()
        return found, torch.cat([each.flatten() for each in gradients(causal_lm).values()])

    exact, coarse, plain = outcome(False, False), outcome(True, False), outcome(True, True)
    assert coarse[0].dtype == torch.float32
    for ours, theirs, right in zip(coarse, plain, exact, strict=True):
        assert 0 < (ours - right).norm() < 1.5 * (theirs - right).norm()


def test_entropies_are_of_float32_in_autocast_too() -> None:
    log_softmax = torch.log_softmax(torch.randn(4, 1000, generator=torch.Generator().manual_seed(0)), dim=-1)
    expected = -(log_softmax.exp() * log_softmax).sum(dim=-1)
    with torch.autocast("cpu", torch.bfloat16):
        found = entropy_of(log_softmax.exp(), log_softmax)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
