"""Replay: a stage's loss with the next-token loss of other text beside it, so that the policy does not forget."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic

import numpy as np
import torch
from numpy.typing import NDArray

from plumbob.configs.settings.data import ReplaySettings
from plumbob.data.batch import Batch, Prompts
from plumbob.data.epoch_order import endless_order
from plumbob.data.tokenization import TokenBatch
from plumbob.models.loading import OpenedModel
from plumbob.trainers.forgetting.next_token import next_token_loss, num_predicted_tokens
from plumbob.trainers.forgetting.packed_text import PackedText, pack_text
from plumbob.trainers.learner.learner_protocol import B, LossSum, LossTerm


@dataclass(frozen=True)
class WithReplay(Batch, Generic[B]):
    """A stage's batch, with a block of other text beside each of its rows."""

    batch: B
    replayed: TokenBatch

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Of the stage's own rows: the blocks of text beside them are all of one length."""
        return self.batch.lengths

    @property
    def prompts(self) -> Prompts | None:
        return self.batch.prompts


def with_replay(text: PackedText | None, batch: B, step: int, seed: int) -> "B | WithReplay[B]":
    """The batch with its rows' blocks, which step and seed decide; as it is where nothing is replayed.

    Args:
        step: 0-based; every step has batches of as many rows.
    """
    return with_blocks(batch, replay_blocks(text, batch.num_rows, step, seed))


def replay_blocks(text: PackedText | None, num_rows: int, step: int, seed: int) -> TokenBatch | None:
    """The blocks of a step's rows, as `with_replay` takes them; None where nothing is replayed."""
    if text is None:
        return None
    return text.batch_of(endless_order(len(text.blocks), step * num_rows, num_rows, seed))


def with_blocks(batch: B, blocks: TokenBatch | None) -> "B | WithReplay[B]":
    """The batch with a block beside each row."""
    return batch if blocks is None else WithReplay(batch, blocks)


def prepare_replay(settings: ReplaySettings | None, opened: OpenedModel) -> PackedText | None:
    """Read and cut. Raises UserError."""
    return None if settings is None else pack_text("replay", settings, opened, is_learnt=True)


def replay_loss_terms(
    loss_terms: Sequence[LossTerm[Any]], settings: ReplaySettings | None
) -> tuple[LossTerm[Any], ...]:
    """loss + gamma E[-log p(token)] over the replayed text, with a backward and a count of its own.

    The term that PPO-ptx adds to the objective (Ouyang et al. 2022, arXiv 2203.02155, equation 2). Batches without
    replayed text, such as those of held-out records, go through the stage's own loss terms alone.
    """
    if settings is None:
        return tuple(loss_terms)
    coefficient = settings.coefficient

    def loss_sum(forward: Any, batch: Any) -> LossSum:
        if not isinstance(batch, WithReplay):
            return LossSum(torch.zeros(()), {})
        sums = next_token_loss(forward, batch.replayed)
        return LossSum(coefficient * sums.loss, {"replay_loss": sums.loss.detach()})

    def count(batch: Any) -> float:
        return num_predicted_tokens(batch.replayed) if isinstance(batch, WithReplay) else 0.0

    return (*map(_of_own_batch, loss_terms), LossTerm("policy", loss_sum, count))


def _of_own_batch(own: LossTerm[Any]) -> LossTerm[Any]:
    return LossTerm(
        own.role,
        lambda forward, batch: own.loss_sum(forward, _without_replay(batch)),
        lambda batch: own.count(_without_replay(batch)),
    )


def _without_replay(batch: Any) -> Any:
    return batch.batch if isinstance(batch, WithReplay) else batch
