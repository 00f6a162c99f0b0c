"""Forgetting: how much a stage has raised the policy's perplexity on text that it knew before."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plumbob.configs.settings.data import PerplexitySettings, RetentionSettings
from plumbob.data.rendered_rows import RenderedRow
from plumbob.data.tokenization import TokenBatch
from plumbob.models.adapter import ModelRole
from plumbob.models.loading import OpenedModel
from plumbob.models.logprobs import sequence_logprobs
from plumbob.trainers.forgetting.next_token import num_predicted_tokens, predicted_mask
from plumbob.trainers.forgetting.packed_text import PackedText, pack_text
from plumbob.trainers.learner.learner_protocol import Learners
from plumbob.trainers.metrics.stage_result import StageResult

BLOCKS_IN_CALL = 256


@dataclass(frozen=True)
class RetainedText:
    """The text whose likelihood is measured before and after."""

    settings: RetentionSettings
    text: PackedText

    @property
    def notes(self) -> tuple[str, ...]:
        return self.text.notes

    @property
    def rows(self) -> tuple[RenderedRow, ...]:
        return self.text.rows

    def nats_per_token(self, learners: Learners) -> float:
        """-log p of a token under the policy as it is now, mean over the text's predicted tokens."""
        return nats_per_token(self.text, learners, "policy")

    def result(self, before: float, after: float) -> StageResult:
        """What becomes of nats a token, with a sentence for the user where the limit is passed."""
        perplexities = perplexity(before), perplexity(after)
        growth, limit = perplexity(after - before), self.settings.max_growth
        measured = {"perplexity_before": perplexities[0], "perplexity_after": perplexities[1], "growth": growth}
        if growth <= limit:
            return StageResult({"retention": measured}, ())
        note = (
            f"forgetting: the perplexity of {self.settings.text} is {perplexities[1]:,.2f} after the stage and "
            f"{perplexities[0]:,.2f} before it, {growth:.3f} times as much: above retention.max_growth={limit:g}"
        )
        return StageResult({"retention": measured}, (note,))

    def added_to(self, result: StageResult, before: float, learners: Learners) -> StageResult:
        """A stage's result, with what has become of the text by its end."""
        found = self.result(before, self.nats_per_token(learners))
        return result.with_metrics(found.metrics, *(found.notes or ()))


def nats_per_token(text: PackedText, learners: Learners, role: ModelRole) -> float:
    """-log p of a token under the model in that role, mean over the text's predicted tokens."""
    total, num_tokens = 0.0, 0.0
    for start in range(0, len(text.blocks), BLOCKS_IN_CALL):
        batch = text.batch_of(np.arange(start, min(start + BLOCKS_IN_CALL, len(text.blocks))))
        total -= float(learners.compute(batch, role, block_logprobs).astype(np.float64).sum())
        num_tokens += num_predicted_tokens(batch)
    return total / num_tokens


def perplexity(nats_per_token: float) -> float:
    """exp(-mean log p of a token): the number of tokens that a uniform guess as good would choose among."""
    try:
        return math.exp(nats_per_token)
    except OverflowError:  # A policy that has diverged still has its summary.
        return math.inf


def block_logprobs(forward: Any, batch: TokenBatch) -> Tensor:
    """log p of each block [B], given its first token."""
    mask = predicted_mask(batch)
    logprobs = forward(torch.from_numpy(batch.input_ids), torch.from_numpy(batch.attention_mask), mask, 1.0)
    return sequence_logprobs(logprobs, mask.to(logprobs.device))


def prepare_retention(settings: RetentionSettings | None, opened: OpenedModel) -> RetainedText | None:
    """Read, cut, and keep the blocks that are measured. Raises UserError."""
    return None if settings is None else RetainedText(settings, measured_text("retention", settings, opened))


def measured_text(key: str, settings: PerplexitySettings, opened: OpenedModel) -> PackedText:
    """As `pack_text`, of at most as many blocks as are measured, spread evenly over the text."""
    packed = pack_text(key, settings, opened, is_learnt=False)
    num_kept = min(settings.max_blocks, len(packed.blocks))
    indices = np.arange(num_kept) * len(packed.blocks) // num_kept
    return replace(packed, blocks=tuple(packed.blocks[index] for index in indices))
