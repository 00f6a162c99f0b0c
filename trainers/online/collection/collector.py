"""A step's responses with their scores: sampled once, or in rounds until enough groups have a spread of rewards."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, TypeVar

from plumbob.configs.runs import OnlineRun
from plumbob.data.prompts import EncodedPrompt, PromptCursor
from plumbob.reward.scorer import Score, Scorer, ScoreRequest
from plumbob.rollout.requests import RolloutWorkers, sample_requests
from plumbob.rollout.rollout_heads import Response, RolloutHead
from plumbob.rollout.rollout_records import Rollout, SampleRequest
from plumbob.trainers.algorithms.advantages import has_spread
from plumbob.trainers.algorithms.reward_shaping import task_rewards
from plumbob.trainers.online.collection.sample_ledger import SampleLedger
from plumbob.trainers.online.part_rewards import are_learnt, combined_scores
from plumbob.trainers.online.trajectories import group_numbers

T = TypeVar("T")

Scored = tuple[Response, Score]
"""A response and its score."""

Phase = Callable[[str], AbstractContextManager[None]]
"""Counts a block's seconds under a name."""


@dataclass(frozen=True)
class StepResponses:
    """What a step learns from.

    Attributes:
        rollouts, scores: of `online.prompts_per_step` groups, each group's responses side by side.
        dropped: responses of groups that were left out, because their rewards are all the same.
        num_rounds: how often was sampled.
        num_flat: groups that are learnt from although their rewards are all the same; counted by dynamic sampling.
        positions: group -> how many prompts the run had asked for before its own; empty when responses do not
            come from the prompt cursor.
        sampler_idle_s: seconds since the step before for which the samplers had nothing to do.
        rows: prompt -> its row, where the reward reads them.
    """

    rollouts: tuple[Response, ...]
    scores: tuple[Score, ...]
    dropped: tuple[Scored, ...]
    num_rounds: int
    num_flat: int
    positions: Mapping[str, int] = field(default_factory=dict)
    sampler_idle_s: float = 0.0
    rows: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def part(self, rows: slice, dropped: slice) -> "ResponsesElsewhere":
        """What is known of some responses, and of some that were left out, for whoever has the rollouts."""
        left_out = self.dropped[dropped]
        requests = [one.request for one in (*self.rollouts[rows], *(rollout for rollout, _ in left_out))]
        return ResponsesElsewhere(
            self.scores[rows],
            tuple(score for _, score in left_out),
            _of_keys(self.positions, (one.group_id for one in requests)),
            _of_keys(self.rows, (one.prompt_id for one in requests)),
        )

    @property
    def all_rollouts(self) -> tuple[Response, ...]:
        """Also those of the groups that were left out."""
        return (*self.rollouts, *(rollout for rollout, _ in self.dropped))


@dataclass(frozen=True)
class ResponsesElsewhere:
    """Some of a step's responses without their rollouts. Attributes: as of `StepResponses`."""

    scores: tuple[Score, ...]
    dropped_scores: tuple[Score, ...]
    positions: Mapping[str, int]
    rows: Mapping[str, Mapping[str, Any]]

    def of(self, rollouts: Sequence[Rollout]) -> StepResponses:
        """With the rollouts, those of the groups left out behind the others."""
        kept, left_out = tuple(rollouts[: len(self.scores)]), rollouts[len(self.scores) :]
        dropped = tuple(zip(left_out, self.dropped_scores, strict=True))
        return StepResponses(kept, self.scores, dropped, 1, 0, self.positions, rows=self.rows)


def _of_keys(known: Mapping[str, T], names: Iterable[str]) -> dict[str, T]:
    return {name: known[name] for name in names if name in known}


class Collector:
    """Samples and scores the prompts of one step after another.

    Args:
        cursor: where the next step's prompts begin; `collect` moves it on.
        phase: is told when sampling and scoring begin and end.
    """

    def __init__(
        self,
        run: OnlineRun,
        cursor: PromptCursor,
        samplers: RolloutWorkers,
        scorer: Scorer,
        ledger: SampleLedger,
        phase: Phase,
    ) -> None:
        self._run, self._cursor, self._phase = run, cursor, phase
        self._samplers, self._scorer, self._ledger = samplers, scorer, ledger
        self._idle_since = time.monotonic()
        self._idle_s = 0.0

    def collect(self, step: int) -> StepResponses:
        """Sample and score the step's prompts; with dynamic sampling, others instead of groups without spread.

        Each round asks for as many prompts as groups are missing, so that none with spread is thrown away. The step,
        the index in it and the run's seed decide every response's seed, whatever round it is made in.
        """
        online = self._run.online
        kept: list[Sequence[Scored]] = []
        zero_variance: list[Sequence[Scored]] = []
        positions: dict[str, int] = {}
        rows: dict[str, Mapping[str, Any]] = {}
        num_rounds, self._idle_s = 0, 0.0
        while len(kept) < online.prompts_per_step:
            first = int(self._cursor.state()["position"])
            prompts = self._cursor.next(online.prompts_per_step - len(kept))
            requests = sample_requests(
                prompts,
                online.samples_per_prompt,
                step,
                self._run.seed,
                first_index=len(kept) + len(zero_variance),
                with_rows=self._run.rollout.environment is not None,
            )
            rows |= rows_of(prompts)
            scored = self._scored(requests, rows)
            num_rounds += 1
            for index in range(len(prompts)):
                group = scored[index * online.samples_per_prompt : (index + 1) * online.samples_per_prompt]
                positions[group[0][0].request.group_id] = first + index
                has_signal = online.dynamic_sampling is None or rewards_differ(group, self._run)
                (kept if has_signal else zero_variance).append(group)
            if online.dynamic_sampling is None or num_rounds == online.dynamic_sampling.max_rounds:
                break
        num_flat = online.prompts_per_step - len(kept)
        used = list(chain.from_iterable(kept + zero_variance[:num_flat]))
        return StepResponses(
            rollouts=tuple(rollout for rollout, _ in used),
            scores=tuple(score for _, score in used),
            dropped=tuple(chain.from_iterable(zero_variance[num_flat:])),
            num_rounds=num_rounds,
            num_flat=num_flat,
            positions=positions,
            sampler_idle_s=self._idle_s,
            rows=rows,
        )

    def _scored(self, requests: Sequence[SampleRequest], rows: Mapping[str, Mapping[str, Any]]) -> list[Scored]:
        """One response to each request, with its score."""
        with self._phase("sample"):
            self._ledger.issued(requests)
            self._idle_s += time.monotonic() - self._idle_since
            rollouts = self._samplers.sample(requests)
            self._idle_since = time.monotonic()
            self._ledger.finished(rollouts)
        with self._phase("score"):
            scores = self._scorer.score(score_requests(rollouts, rows))
            self._ledger.scored(rollouts)
        return list(zip(rollouts, scores, strict=True))


def rows_of(prompts: Sequence[EncodedPrompt]) -> dict[str, Mapping[str, Any]]:
    """prompt -> its row, of those that have one."""
    return {prompt.prompt_id: prompt.row for prompt in prompts if prompt.row}


def score_requests(rollouts: Sequence[Response], rows: Mapping[str, Mapping[str, Any]]) -> list[ScoreRequest]:
    return [
        ScoreRequest(
            rollout.request.prompt,
            rollout.response,
            rows.get(rollout.request.prompt_id, {}),
            episode_reward=None if rollout.episode is None else rollout.episode.reward,
            location=rollout.location if isinstance(rollout, RolloutHead) else None,
        )
        for rollout in rollouts
    ]


def rewards_differ(group: Sequence[Scored], run: OnlineRun) -> bool:
    """Whether the task's rewards of a group's responses that are learnt from are not all the same.

    The task's are the scorer's totals, scaled and clipped: what length or a missing end costs, and the KL, are not
    looked at. A group of responses that are all wrong and differ in length would teach length alone.
    """
    rollouts = [rollout for rollout, _ in group]
    groups, counts = group_numbers(rollouts), are_learnt(run.online, rollouts)
    scores = combined_scores(run, [score for _, score in group], counts, groups)
    rewards = task_rewards(scores.totals, run.online.shaping)
    return bool(has_spread(rewards, counts, groups).any())
