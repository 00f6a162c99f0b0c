"""Sampled responses as tensors, how far sampler and learner are apart there, and whether they may be learnt from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plumbob.core.errors import NUM_NAMED, NotFinite, StaleRollouts
from plumbob.rollout.rollout_heads import Response
from plumbob.rollout.rollout_records import NO_VERSION, Rollout
from plumbob.trainers.algorithms.whole_batch import ONE_RANK, WholeBatch

LATER = 1 << 20
"""Above the learner's, a version that no token has."""


@dataclass(frozen=True)
class Trajectories:
    """Whole sequences: the prompt, then the response, padded on the right.

    Attributes:
        input_ids: int64 [B, T].
        attention_mask: bool [B, T], True on real tokens.
        action_mask: bool [B, T], True on the tokens that the policy wrote, never in column 0.
        sampler_logprobs: float32 [B, T], 0 outside the action mask.
        versions: int32 [B, T], the policy version that made each token; `NO_VERSION` outside the action mask.
        ends_with_eos: bool [B], False where the response was cut at its length limit.
        groups: int64 [B], the same number for responses to the same prompt within the step.
        turn_rewards: float32 [B, T], of an episode what the environment gave, each on the last token of its turn.
    """

    input_ids: Tensor
    attention_mask: Tensor
    action_mask: Tensor
    sampler_logprobs: Tensor
    versions: Tensor
    ends_with_eos: Tensor
    groups: Tensor
    turn_rewards: Tensor


def collate_rollouts(rollouts: Sequence[Rollout], pad_id: int, groups: Tensor | None = None) -> Trajectories:
    """Whole sequences side by side, padded on the right with `pad_id`, in the order given.

    Args:
        groups: the rows', int64 [B]; None numbers them in the order of their first response.

    Raises:
        ValueError: there are none, one is partial, or its arrays differ in length.
    """
    if not rollouts:
        raise ValueError("no rollouts to collate")
    for row, rollout in enumerate(rollouts):
        _check_rollout(row, rollout)
    num_rows = len(rollouts)
    width = max(len(rollout.request.prompt_ids) + len(rollout.token_ids) for rollout in rollouts)
    input_ids = np.full((num_rows, width), pad_id, dtype=np.int64)
    attention_mask = np.zeros((num_rows, width), dtype=np.bool_)
    action_mask = np.zeros((num_rows, width), dtype=np.bool_)
    sampler_logprobs = np.zeros((num_rows, width), dtype=np.float32)
    versions = np.full((num_rows, width), NO_VERSION, dtype=np.int32)
    turn_rewards = np.zeros((num_rows, width), dtype=np.float32)
    for row, rollout in enumerate(rollouts):
        start = len(rollout.request.prompt_ids)
        end = start + len(rollout.token_ids)
        input_ids[row, :start] = rollout.request.prompt_ids
        input_ids[row, start:end] = rollout.token_ids
        attention_mask[row, :end] = True
        action_mask[row, start:end] = rollout.action_mask
        sampler_logprobs[row, start:end] = np.where(rollout.action_mask, rollout.logprobs, 0.0)
        versions[row, start:end] = np.where(rollout.action_mask, rollout.versions, NO_VERSION)
        for turn in rollout.episode.turns if rollout.episode is not None else ():
            turn_rewards[row, start + turn.end] += turn.reward
    return Trajectories(
        torch.from_numpy(input_ids),
        torch.from_numpy(attention_mask),
        torch.from_numpy(action_mask),
        torch.from_numpy(sampler_logprobs),
        torch.from_numpy(versions),
        torch.tensor([rollout.finish_reason == "stop" for rollout in rollouts]),
        group_numbers(rollouts) if groups is None else groups,
        torch.from_numpy(turn_rewards),
    )


def group_numbers(rollouts: Sequence[Response]) -> Tensor:
    """int64 [B]: groups numbered in the order of their first response."""
    numbers: dict[str, int] = {}
    return torch.tensor([numbers.setdefault(rollout.request.group_id, len(numbers)) for rollout in rollouts])


@dataclass(frozen=True)
class ComparedRows:
    """Rows of the batch whose log-probs under the policy are the learner's own: `index` [n], `logprobs` [n, T]."""

    index: NDArray[np.int64]
    logprobs: Tensor


class SamplerGaps(NamedTuple):
    """How far the sampler's log-probs are from the learner's at each token of the rows, [B, T].

    Attributes:
        sizes: |log pi_learner - log pi_sampler| in nats, float32; 0 where they are not compared.
        mask: bool, True on the action tokens of the rows that are compared.
    """

    sizes: Tensor
    mask: Tensor


def sampler_gaps(trajectories: Trajectories, compared: ComparedRows) -> SamplerGaps:
    sizes = torch.zeros_like(trajectories.sampler_logprobs)
    mask = torch.zeros_like(trajectories.action_mask)
    mask[compared.index] = trajectories.action_mask[compared.index]
    sizes[compared.index] = (compared.logprobs.float() - trajectories.sampler_logprobs[compared.index]).abs()
    return SamplerGaps(torch.where(mask, sizes, 0.0), mask)


def largest_gap(gaps: SamplerGaps, batch: WholeBatch) -> float:
    """In nats; NaN where a token's is."""
    return batch.gather(gaps.sizes.amax(dim=1)).max().item()


def check_fresh(
    trajectories: Trajectories, learner_version: int, max_staleness: int, batch: WholeBatch = ONE_RANK
) -> None:
    """Raises StaleRollouts unless every action token is of a version that the learner may train on.

    Of a batch that lies on several ranks all raise it, with all rows.
    """
    versions = trajectories.versions
    behind = learner_version - versions
    refused = trajectories.action_mask & ((behind < 0) | (behind > max_staleness) | (versions < 0))
    lowest = torch.where(refused, versions, learner_version + LATER).amin(dim=1)
    highest = torch.where(refused, versions, NO_VERSION).amax(dim=1)
    of_all = batch.gather(torch.stack([refused.any(dim=1).long(), lowest.long(), highest.long()], dim=1))
    rows = of_all[:, 0] > 0
    if rows.any():
        found = sorted(set(of_all[rows, 1:].flatten().tolist()))
        raise StaleRollouts(
            f"{_rows(rows)}: tokens of policy version {', '.join(map(str, found))}, but the learner "
            f"is at version {learner_version} and online.max_staleness={max_staleness}"
        )


def check_finite(name: str, x: Tensor, batch: WholeBatch = ONE_RANK) -> None:
    """Raises NotFinite with the rows of `x`, [B] or [B, T], in which a number is not finite; as `check_fresh`."""
    rows = batch.gather(~torch.isfinite(x).reshape(len(x), -1).all(dim=1))
    if rows.any():
        raise NotFinite(f"{name}: not finite in {_rows(rows)}", tuple(rows.nonzero().flatten().tolist()))


def _check_rollout(row: int, rollout: Rollout) -> None:
    lengths = {len(x) for x in (rollout.token_ids, rollout.logprobs, rollout.versions, rollout.action_mask)}
    name = f"rollout {row} (prompt {rollout.request.prompt_id})"
    if len(lengths) > 1:
        raise ValueError(f"{name}: token_ids, logprobs, versions and action_mask differ in length: {sorted(lengths)}")
    if rollout.finish_reason == "partial":
        raise ValueError(f"{name} is partial: finish it before training on it")
    if not len(rollout.request.prompt_ids):
        raise ValueError(f"{name} has an empty prompt: nothing would predict its first token")


def _rows(flags: Tensor) -> str:
    """The rows where bool [B] `flags` is True, for a message."""
    rows = flags.nonzero().flatten().tolist()
    more = f" and {len(rows) - NUM_NAMED} more" if len(rows) > NUM_NAMED else ""
    return f"row {', '.join(map(str, rows[:NUM_NAMED]))}{more} of the batch of {len(flags)}"
