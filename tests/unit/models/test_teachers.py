"""Teachers beside a policy: their log-probs and the KL from them, against plain logits; and what peers got wrong."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from plumbob.core.errors import UserError
from plumbob.models.forward import vocabulary
from plumbob.models.policy import PolicyModel
from plumbob.models.tuning.roles import add_teachers, frozen_reference
from tests.support.families import FAMILIES, NUM_WORDS, SIZES, family, gradients, weighted_sum, with_lora
from tests.support.opened_models import opened_policy
from tests.support.tiny_policy import write_policy

TEMPERATURE = 0.7
LENGTHS, PROMPTS = (9, 5, 7), (4, 2, 6)
TWO_WORDS, ALL_WORDS = 2 * NUM_WORDS, 2**20
"""Nine tokens are asked about: portions of two, or one of all."""


def rows() -> tuple[Tensor, Tensor, Tensor]:
    ids = torch.randint(2, NUM_WORDS, (3, max(LENGTHS)), generator=torch.Generator().manual_seed(1))
    columns = torch.arange(max(LENGTHS))
    attended = columns < torch.tensor(LENGTHS)[:, None]
    return ids, attended, attended & (columns >= torch.tensor(PROMPTS)[:, None])


def wider_llama(seed: int, **changes: Any) -> Any:
    """Of another width than the policies', with the same words."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(**SIZES | {"hidden_size": 48} | changes)).eval()


def taught(causal_lm: Any, adapter: str | None, *teachers: Any) -> PolicyModel:
    policy = PolicyModel(causal_lm, {"policy": adapter})
    for teacher in teachers:
        policy.add_teacher(PolicyModel(teacher, {"reference": None}).requires_grad_(False))
    return policy


def log_softmax_before(model: Any, temperature: float = TEMPERATURE) -> Tensor:
    """Of what each asked token was drawn from, [B, T, V], by the model's own logits; column 0 has none."""
    ids, attended, _ = rows()
    logits = model(input_ids=ids, attention_mask=attended.long()).logits.float() / temperature
    return nn.functional.pad(torch.log_softmax(logits[:, :-1], dim=-1), (0, 0, 1, 0))


def kl_by_hand(student: Tensor, teacher: Tensor) -> Tensor:
    """sum_j p_j (log p_j - log q_j), [B, T], 0 where nothing is asked."""
    return torch.where(rows()[2], (student.exp() * (student - teacher)).sum(-1), 0.0)


def check_kl(causal_lm: Any, adapter: str | None, portion: int) -> None:
    teacher = wider_llama(5)
    expected = kl_by_hand(log_softmax_before(causal_lm), log_softmax_before(teacher).detach())
    weighted_sum(expected).backward()
    expected_gradients = gradients(causal_lm)
    policy, numbers = taught(causal_lm, adapter, teacher), torch.zeros(3, dtype=torch.int64)
    with mock.patch.object(vocabulary, "PORTION", portion), policy.role("policy"):
        found = policy(*rows(), TEMPERATURE, numbers)
        weighted_sum(found).backward()
    assert expected.sum() > 1
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    found_gradients = gradients(causal_lm)
    assert found_gradients.keys() == expected_gradients.keys() and len(found_gradients) > 3
    for name, gradient in expected_gradients.items():
        torch.testing.assert_close(found_gradients[name], gradient, rtol=0, atol=2e-5 * max(1.0, gradient.abs().max()))
    assert all(parameter.grad is None for parameter in policy.teachers.parameters())


@pytest.mark.parametrize("portion", [TWO_WORDS, ALL_WORDS])
@pytest.mark.parametrize("name", FAMILIES)
def test_kl_and_its_gradient_below_a_frozen_head(name: str, portion: int) -> None:
    check_kl(with_lora(family(name), "all-linear"), "policy", portion)


@pytest.mark.parametrize("portion", [TWO_WORDS, ALL_WORDS])
@pytest.mark.parametrize("name", ["llama", "gemma2", "cohere"])
def test_kl_and_its_gradient_where_the_head_is_trained(name: str, portion: int) -> None:
    check_kl(with_lora(family(name), ["q_proj", "lm_head"]), "policy", portion)


def forward_kl(student: Tensor, teacher: Tensor) -> Tensor:
    return torch.where(rows()[2], (teacher.exp() * (teacher - student)).sum(-1), 0.0)


PLANTED: dict[str, Callable[[Any, Any], Tensor]] = {
    "the teacher's temperature forgotten": lambda student, teacher: kl_by_hand(
        log_softmax_before(student), log_softmax_before(teacher, 1.0)
    ),
    "the forward KL": lambda student, teacher: forward_kl(log_softmax_before(student), log_softmax_before(teacher)),
    "the teacher a token late": lambda student, teacher: kl_by_hand(
        log_softmax_before(student), log_softmax_before(teacher).roll(-1, 1)
    ),
    "the teacher's two likeliest tokens alone, renormalised": lambda student, teacher: kl_by_hand(
        two_likeliest(log_softmax_before(student)), two_likeliest(log_softmax_before(teacher))
    ),
}


def two_likeliest(logprobs: Tensor) -> Tensor:
    return torch.log_softmax(torch.where(logprobs >= logprobs.topk(2).values[..., -1:], logprobs, -50.0), dim=-1)


@pytest.mark.parametrize("name", PLANTED)
def test_what_others_have_computed_instead_is_far_off(name: str) -> None:
    student, teacher = family("llama"), wider_llama(5)
    policy = taught(student, None, teacher)
    with policy.role("policy"), torch.no_grad():
        found, wrong = policy(*rows(), TEMPERATURE, torch.zeros(3, dtype=torch.int64)), PLANTED[name](student, teacher)
    assert (found - wrong).abs().max() > 0.05


def test_each_row_is_graded_by_its_own_teacher() -> None:
    teachers, numbers = (wider_llama(5), wider_llama(6)), torch.tensor([1, 0, 1])
    student = family("llama")
    policy = taught(student, None, *teachers)
    ids, _, asked = rows()
    by_teacher = torch.stack([log_softmax_before(teacher) for teacher in teachers])
    own = by_teacher[numbers, range(3)]
    with torch.no_grad():
        with policy.role("teacher"):
            logprobs = policy(*rows(), TEMPERATURE, numbers)
        with policy.role("policy"):
            kl = policy(*rows(), TEMPERATURE, numbers)
        expected = torch.where(asked, own.gather(-1, ids[..., None])[..., 0], 0.0)
        torch.testing.assert_close(logprobs, expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(kl, kl_by_hand(log_softmax_before(student), own), rtol=0, atol=1e-5)
    exchanged = by_teacher[1 - numbers, range(3)].gather(-1, ids[..., None])[..., 0]
    assert ((logprobs - exchanged)[asked].abs() > 0.01).all()


def test_a_policy_that_is_its_teacher_has_no_kl_and_no_gradient() -> None:
    policy = taught(family("llama"), None, family("llama"))
    with policy.role("policy"):
        found = policy(*rows(), TEMPERATURE, torch.zeros(3, dtype=torch.int64))
        found.sum().backward()
    assert found.abs().max() < 1e-6
    assert all(gradient.abs().max() < 1e-5 for gradient in gradients(policy.causal_lm).values())


def test_words_that_the_policy_does_not_have_are_left_out_of_the_teachers_distribution() -> None:
    # Over the first 40 of 44, renormalised: log q - log sum of the first 40.
    student, teacher = family("llama"), wider_llama(5, vocab_size=NUM_WORDS + 4)
    policy = taught(student, None, teacher)
    ids, _, asked = rows()
    with torch.no_grad():
        known = log_softmax_before(teacher)[..., :NUM_WORDS]
        expected = known - known.logsumexp(dim=-1, keepdim=True)
        with policy.role("teacher"):
            logprobs = policy(*rows(), TEMPERATURE, torch.zeros(3, dtype=torch.int64))
        with policy.role("policy"):
            kl = policy(*rows(), TEMPERATURE, torch.zeros(3, dtype=torch.int64))
        torch.testing.assert_close(
            logprobs, torch.where(asked, expected.gather(-1, ids[..., None])[..., 0], 0.0), rtol=0, atol=1e-5
        )
        torch.testing.assert_close(kl, kl_by_hand(log_softmax_before(student), expected), rtol=0, atol=1e-5)


def test_a_teacher_without_some_of_the_policys_words_is_refused() -> None:
    with pytest.raises(ValueError, match=f"its output is over 36 tokens, the policy's over {NUM_WORDS}"):
        taught(family("llama"), None, wider_llama(5, vocab_size=36))


def test_a_teacher_is_loaded_from_its_folder_and_is_the_model_there(tmp_path: Path) -> None:
    folder = write_policy(tmp_path / "policy")
    policy = PolicyModel(AutoModelForCausalLM.from_pretrained(folder), {"policy": None})
    add_teachers(policy, [opened_policy(folder)])
    ids, attended, asked = rows()
    with torch.no_grad():
        with policy.role("teacher"):
            found = policy(ids, attended, asked, TEMPERATURE, torch.zeros(3, dtype=torch.int64))
        with policy.role("policy"):
            torch.testing.assert_close(found, policy(ids, attended, asked, TEMPERATURE), rtol=0, atol=1e-6)


def test_how_a_teacher_makes_its_logits_must_be_known(tmp_path: Path) -> None:
    policy = PolicyModel(family("llama"), {"policy": None})
    policy.vocabulary = None
    with pytest.raises(UserError, match=r"policy\.model=.*policy: cannot grade this policy: how its logits"):
        add_teachers(policy, [opened_policy(write_policy(tmp_path / "policy"))])


def test_a_frozen_model_has_no_dropout_while_the_policy_trains(tmp_path: Path) -> None:
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(vocab_size=40, n_positions=16, n_embd=16, n_layer=1, n_head=2)).save_pretrained(tmp_path)
    frozen = frozen_reference(opened_policy(tmp_path))
    frozen.train()
    with frozen.role("reference"), torch.no_grad():
        assert torch.equal(frozen(*rows(), 1.0), frozen(*rows(), 1.0))
