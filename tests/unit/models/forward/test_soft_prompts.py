"""Soft prompts in a model's forward: as plain PEFT reads them, by family, however rows are padded, cached or shared."""

from copy import copy
from typing import Any

import pytest
import torch
from peft import PeftConfig, PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig, get_peft_model
from torch import Tensor

from plumbob.models.adapter_switch import activate
from plumbob.models.forward.soft_prompts import SoftPrompts, soft_prompts_of
from plumbob.models.policy import PolicyModel
from plumbob.models.tuning.peft_adapters import add_adapters
from tests.support.families import NUM_WORDS, family, gradients, weighted_sum
from tests.unit.models.forward.test_shared_prompts import check_like_rows_apart

NUM_VIRTUAL = 3
COMMON = {"num_virtual_tokens": NUM_VIRTUAL, "task_type": "CAUSAL_LM"}
KINDS: dict[str, PeftConfig] = {
    "prompt": PromptTuningConfig(**COMMON),
    "p-tuning": PromptEncoderConfig(encoder_hidden_size=8, **COMMON),
    "p-tuning, LSTM": PromptEncoderConfig(
        encoder_hidden_size=8, encoder_reparameterization_type="LSTM", encoder_num_layers=2, **COMMON
    ),
    "prefix": PrefixTuningConfig(**COMMON),
    "prefix, projected": PrefixTuningConfig(prefix_projection=True, encoder_hidden_size=8, **COMMON),
}
READERS = ("llama", "qwen3", "gpt2", "gemma2", "cohere", "granite")
LENGTHS = (6, 3, 5)


def prompted(name: str, kind: str) -> tuple[Any, Any]:
    """A family's model that reads a soft prompt of ours, and PEFT's own around another copy."""
    torch.manual_seed(1)
    ours = add_adapters(family(name, without_dropout=True), KINDS[kind], ("policy",))
    theirs: Any = get_peft_model(family(name, without_dropout=True), copy(KINDS[kind]))
    theirs.prompt_encoder["default"].load_state_dict(read_by(ours).encoders["policy"].state_dict())
    return ours.eval(), theirs.eval()


def read_by(model: Any) -> SoftPrompts:
    prompts = soft_prompts_of(model)
    assert prompts is not None
    return prompts


def ragged(side: str) -> tuple[Tensor, Tensor]:
    """Ids and mask [3, 6], padded on the left or right."""
    ids = torch.randint(2, NUM_WORDS, (3, 6), generator=torch.Generator().manual_seed(2))
    columns, lengths = torch.arange(6), torch.tensor(LENGTHS)[:, None]
    mask = columns < lengths if side == "right" else columns >= 6 - lengths
    return torch.where(mask, ids, 0), mask


def alone(model: Any, ids: Tensor, mask: Tensor) -> list[Tensor]:
    """PEFT's logits [length, V] of each row by itself, without padding."""
    rows = [row[real][None] for row, real in zip(ids, mask, strict=True)]
    return [model(input_ids=row).logits[0, -row.shape[1] :] for row in rows]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", READERS)
@torch.no_grad()
def test_padded_rows_are_read_as_plain_peft_reads_each_alone(name: str, kind: str) -> None:
    ours, theirs = prompted(name, kind)
    base = family(name, without_dropout=True)
    for side in ("left", "right"):
        ids, mask = ragged(side)
        positions = (mask.long().cumsum(1) - 1).clamp(min=0)
        found = ours(input_ids=ids, attention_mask=mask, position_ids=positions).logits
        assert found.shape == (*ids.shape, NUM_WORDS)
        for row, expected in enumerate(alone(theirs, ids, mask)):
            torch.testing.assert_close(found[row][mask[row]], expected, rtol=0, atol=2e-5)
    without = base(input_ids=ids, attention_mask=mask.long()).logits
    # A right-padded batch needs no positions: PEFT's own of it are the same.
    found = ours(input_ids=ids, attention_mask=mask.long()).logits
    batch = theirs(input_ids=ids, attention_mask=mask.long()).logits[:, -ids.shape[1] :]
    torch.testing.assert_close(found[mask], batch[mask], rtol=0, atol=2e-5)
    assert (found[mask] - without[mask]).abs().max() > 1e-2
    for none in (None, "another"):
        activate(ours, none)
        assert torch.equal(ours(input_ids=ids, attention_mask=mask.long()).logits, without)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_cache_holds_what_was_read(kind: str) -> None:
    """Token by token after a left-padded prompt, as the sampler does."""
    ours, theirs = prompted("llama", kind)
    ids, mask = ragged("left")
    positions = (mask.long().cumsum(1) - 1).clamp(min=0)
    first = {"input_ids": ids[:, :4], "attention_mask": mask[:, :4], "position_ids": positions[:, :4]}
    begun = ours(**first, use_cache=True, logits_to_keep=1)
    logits, cache = [begun.logits], begun.past_key_values
    for column in (4, 5):
        given = {"input_ids": ids[:, column, None], "attention_mask": mask[:, : column + 1]}
        step = ours(**given, position_ids=positions[:, column, None], past_key_values=cache, use_cache=True)
        logits.append(step.logits)
        cache = step.past_key_values
    assert cache.get_seq_length() == NUM_VIRTUAL + 6
    for row, expected in enumerate(alone(theirs, ids, mask)):
        torch.testing.assert_close(torch.cat(logits, dim=1)[row], expected[-3:], rtol=0, atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_plain_peft(kind: str) -> None:
    ours, theirs = prompted("llama", kind)
    ids, mask = ragged("right")
    weighted_sum(ours(input_ids=ids, attention_mask=mask.long()).logits[mask]).backward()
    batch = theirs(input_ids=ids, attention_mask=mask.long()).logits[:, -ids.shape[1] :]
    weighted_sum(batch[mask]).backward()
    found = {name: p.grad for name, p in read_by(ours).encoders["policy"].named_parameters()}
    assert found
    for name, parameter in theirs.prompt_encoder["default"].named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_with_the_same_prompt_share_it(kind: str) -> None:
    ours, _ = prompted("llama", kind)
    for name, parameter in ours.named_parameters():
        parameter.requires_grad_("soft_prompts" in name)
    model = PolicyModel(ours, {"policy": "policy"})
    assert model.shares_prompts
    check_like_rows_apart(model)


@pytest.mark.parametrize("kind", ["prompt", "p-tuning"])
def test_activations_may_be_computed_anew(kind: str) -> None:
    found = []
    for is_anew in (False, True):
        ours, _ = prompted("llama", kind)
        if is_anew:
            ours.gradient_checkpointing_enable({"use_reentrant": False})
        model = PolicyModel(ours, {"policy": "policy"}).train()
        ids, mask = ragged("right")
        asked = mask & (torch.arange(6) > 1)
        with model.role("policy"):
            weighted_sum(model(ids, mask, asked, 1.0)).backward()
        found.append(gradients(read_by(ours)))
    assert found[0].keys() == found[1].keys() != set()
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient)
