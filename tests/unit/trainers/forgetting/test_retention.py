"""The perplexity of text before and after a stage, by numbers made by hand."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from plumbob.configs.settings.data import RetentionSettings
from plumbob.core.errors import UserError
from plumbob.data.tokenization import TokenBatch, TokenSequence
from plumbob.trainers.forgetting.packed_text import PackedText
from plumbob.trainers.forgetting.retention import RetainedText, prepare_retention
from tests.support.opened_models import opened_policy
from tests.support.tiny_policy import write_policy


def tenths(input_ids: torch.Tensor, attention_mask: torch.Tensor, mask: torch.Tensor, temperature: float) -> Any:
    """As log-probs: minus a tenth of each token's id, where asked."""
    return torch.where(mask, -input_ids / 10, 0.0)


class LearnersOfText:
    def compute(self, batch: TokenBatch, role: str, function: Callable[[Any, Any], Any]) -> NDArray[np.float32]:
        assert role == "policy"
        found: NDArray[np.float32] = function(tenths, batch).numpy()
        return found


def retained(num_blocks: int = 1, **settings: float) -> RetainedText:
    rows = [[3, 4, 5], [9, 7]] * num_blocks
    blocks = tuple(TokenSequence(np.array(row, np.int32), np.ones(len(row), np.bool_)) for row in rows)
    return RetainedText(RetentionSettings(text="old.txt", **settings), PackedText(blocks, 0, ()))


def test_nats_per_token_are_of_the_predicted_tokens() -> None:
    # 4, 5 and 7 are predicted, each after a first token: (0.4 + 0.5 + 0.7) / 3, in one call or, with 600 blocks, three.
    learners: Any = LearnersOfText()
    assert retained().nats_per_token(learners) == pytest.approx(1.6 / 3)
    assert retained(300).nats_per_token(learners) == pytest.approx(1.6 / 3)


def test_growth_past_its_limit_is_reported() -> None:
    # ln 20 and ln 25 nats a token are a choice among 20 and among 25 tokens, which is 1.25 times as many.
    before, after = math.log(20), math.log(25)
    result = retained().result(before, after)
    assert result.metrics["retention"] == pytest.approx(
        {"perplexity_before": 20, "perplexity_after": 25, "growth": 1.25}
    )
    assert result.notes == (
        "forgetting: the perplexity of old.txt is 25.00 after the stage and 20.00 before it, 1.250 times as much: "
        "above retention.max_growth=1.2",
    )
    assert retained().result(before, math.log(23.9)).notes == ()
    assert retained().result(after, before).notes == ()
    assert retained(max_growth=1.26).result(before, after).notes == ()
    with pytest.raises(ValueError, match="greater than 1"):
        retained(max_growth=1.0)


def test_a_policy_that_has_diverged_has_its_summary() -> None:
    result = retained().result(2.0, 1000.0)
    retention = result.metrics["retention"]
    assert retention["perplexity_after"] == retention["growth"] == math.inf
    assert "is inf after the stage and 7.39 before it" in (result.notes or ("",))[0]
    assert retained().result(2.0, math.nan).notes != ()


def test_the_blocks_that_are_measured_are_spread_over_the_text(tmp_path: Path) -> None:
    opened = opened_policy(write_policy(tmp_path / "policy"))
    file = tmp_path / "old.txt"
    file.write_text("\n".join("abcdefghij"))

    def kept(max_blocks: int) -> list[str]:
        settings = RetentionSettings(text=str(file), block_tokens=2, max_blocks=max_blocks)
        found = prepare_retention(settings, opened)
        assert found is not None
        return [opened.tokenizer.decode(block.ids[0]) for block in found.text.blocks]

    # Each letter and its EOS are a block of two tokens.
    assert kept(10) == kept(99) == list("abcdefghij")
    # Of ten, places 0, 10 / 4 = 2, 20 / 4 = 5 and 30 / 4 = 7.
    assert kept(4) == ["a", "c", "f", "h"]
    assert prepare_retention(None, opened) is None
    with pytest.raises(UserError, match=r"retention\.block_tokens=300 tokens do not fit the 256 positions"):
        prepare_retention(RetentionSettings(text=str(file), block_tokens=300), opened)
