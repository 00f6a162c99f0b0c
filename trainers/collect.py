"""A step's answers with their scores: sampled once, or in rounds until enough groups have something to teach."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import chain

import torch

from configs.objectives import Shaping
from configs.schema import PpoRun
from data.prompts import PromptCursor
from reward.scorer import Score, Scorer
from rollout.records import Rollout
from rollout.requests import Samplers, sample_requests
from trainers.advantages import has_spread
from trainers.shaping import shaped_rewards
from trainers.trajectories import group_numbers

Scored = tuple[Rollout, Score]
"""An answer and what the scorer said of it."""

Phase = Callable[[str], AbstractContextManager[None]]
"""Counts a block's seconds under a name."""


@dataclass(frozen=True)
class Answers:
    """What a step learns from.

    Attributes:
        rollouts, scores: of `ppo.prompts_per_step` groups, each group's answers side by side.
        dropped: answers of groups that were left out, because their rewards are all the same.
        num_rounds: how often was sampled.
        num_flat: groups that are learnt from although their rewards are all the same; counted by dynamic sampling.
    """

    rollouts: tuple[Rollout, ...]
    scores: tuple[Score, ...]
    dropped: tuple[Scored, ...]
    num_rounds: int
    num_flat: int


def collect(run: PpoRun, cursor: PromptCursor, step: int, samplers: Samplers, scorer: Scorer, phase: Phase) -> Answers:
    """Sample and score the step's prompts; with dynamic sampling, other prompts in the place of groups without spread.

    Each round asks for as many prompts as groups are missing, so that none with spread is thrown away. The step, the
    place in it and the run's seed decide every answer's seed, whatever round it is made in.
    """
    ppo = run.ppo
    kept: list[Sequence[Scored]] = []
    flat: list[Sequence[Scored]] = []
    num_rounds = 0
    while len(kept) < ppo.prompts_per_step:
        prompts = cursor.next(ppo.prompts_per_step - len(kept))
        requests = sample_requests(prompts, ppo.samples_per_prompt, step, run.seed, len(kept) + len(flat))
        with phase("sample"):
            rollouts = samplers.sample(requests)
        with phase("score"):
            scores = score(scorer, rollouts)
        num_rounds += 1
        for start in range(0, len(rollouts), ppo.samples_per_prompt):
            rows = slice(start, start + ppo.samples_per_prompt)
            group = list(zip(rollouts[rows], scores[rows], strict=True))
            teaches = ppo.dynamic_sampling is None or rewards_differ(group, ppo.shaping)
            (kept if teaches else flat).append(group)
        if ppo.dynamic_sampling is None or num_rounds == ppo.dynamic_sampling.max_rounds:
            break
    num_flat = ppo.prompts_per_step - len(kept)
    used = list(chain.from_iterable(kept + flat[:num_flat]))
    return Answers(
        rollouts=tuple(rollout for rollout, _ in used),
        scores=tuple(own for _, own in used),
        dropped=tuple(chain.from_iterable(flat[num_flat:])),
        num_rounds=num_rounds,
        num_flat=num_flat,
    )


def score(scorer: Scorer, rollouts: Sequence[Rollout]) -> list[Score]:
    return scorer.score([(rollout.request.prompt, rollout.response) for rollout in rollouts])


def rewards_differ(group: Sequence[Scored], shaping: Shaping) -> bool:
    """Whether the shaped rewards of a group's answers, before any KL, are not all the same."""
    rollouts = [rollout for rollout, _ in group]
    num_tokens = torch.tensor([int(rollout.action_mask.sum()) for rollout in rollouts])
    ends_with_eos = torch.tensor([rollout.finish_reason == "stop" for rollout in rollouts])
    totals = torch.tensor([own.total for _, own in group])
    rewards = shaped_rewards(totals, ends_with_eos, num_tokens, shaping)
    return bool(has_spread(rewards, num_tokens > 0, group_numbers(rollouts)).any())
