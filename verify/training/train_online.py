"""Online rows: the real experience, objective and update, on responses drawn exactly from the policy as it is."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plumbob.configs.runs import OnlineRun
from plumbob.data.prompts import EncodedPrompt
from plumbob.reward.scorer import Score
from plumbob.rollout.rollout_records import Rollout, SampleRequest
from plumbob.trainers.learner.learner_protocol import Learners
from plumbob.trainers.online.collection.collector import StepResponses
from plumbob.trainers.online.objective import forward_actions
from plumbob.trainers.online.online_input import OnlineInput
from plumbob.trainers.online.online_loop import OnlineState, learn
from plumbob.verify.local_learner import OneRank, open_learner
from plumbob.verify.optima.response_tree import EOS, Array
from plumbob.verify.world.tiny_world import TinyWorld, every_response

NO_ROWS: Mapping[str, Mapping[str, Any]] = MappingProxyType({})


class NullRecorder:
    """Keeps no record of a step."""

    def phase(self, _: str) -> AbstractContextManager[None]:
        return nullcontext()

    def record_update(self, *_: Any) -> None:
        return None


@dataclass(frozen=True, eq=False)
class Draws:
    """Draws responses and says what they earn.

    Attributes:
        rewards: r(x, y), [P, K].
        group_size: responses to one prompt that are compared with one another.
        rows: prompt -> its row, where the trainer reads it.
    """

    world: TinyWorld
    rewards: Array
    group_size: int
    rows: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def responses(self, learners: Learners, num_samples: int, version: int, seed: int) -> StepResponses:
        """`num_samples` responses, as many to each prompt, with the policy's own log-probs; groups stand together.

        Raises:
            ValueError: they cannot be shared equally by the prompts' groups.
        """
        num_prompts, num_responses = self.rewards.shape
        num_groups, rest = divmod(num_samples, num_prompts * self.group_size)
        if rest:
            raise ValueError(
                f"{num_samples} responses are no whole groups of {self.group_size} to {num_prompts} prompts"
            )
        tokens = learners.compute(every_response(self.world), "policy", forward_actions)
        mass = np.exp(tokens.sum(axis=1, dtype=np.float64)).reshape(num_prompts, num_responses)
        random = np.random.default_rng((seed, version))
        rollouts, scores = [], []
        for prompt in range(num_prompts):
            for draw, response in enumerate(systematic(mass[prompt], num_groups * self.group_size, random)):
                group, index = divmod(draw, self.group_size)
                request = self.request(prompt, f"{version}-{prompt}-{group}", index)
                rollouts.append(
                    self.rollout(request, int(response), tokens[prompt * num_responses + response], version)
                )
                scores.append(Score(float(self.rewards[prompt, response]), {}))
        return StepResponses(tuple(rollouts), tuple(scores), (), 1, 0, rows=self.rows)

    def request(self, prompt: int, group: str, index: int) -> SampleRequest:
        ids = np.array(self.world.prompts[prompt], np.int32)
        return SampleRequest(str(prompt), group, index, 0, self.world.prompt_text(prompt), ids)

    def rollout(self, request: SampleRequest, response: int, logprobs: Any, version: int) -> Rollout:
        """The response as a sampler gives it; `logprobs` are those of its whole row."""
        ids = self.world.tree.responses[response]
        start = len(request.prompt_ids)
        return Rollout(
            request=request,
            finish_reason="stop" if ids[-1] == EOS else "length",
            response=self.world.response_text(response),
            token_ids=np.array(ids, np.int32),
            logprobs=logprobs[start : start + len(ids)],
            versions=np.full(len(ids), version, np.int32),
            action_mask=np.ones(len(ids), np.bool_),
            worker="exact",
        )


def systematic(mass: Array, num_draws: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Draws in proportion to `mass` [K], each as often as its share says to within one, in random order.

    Systematic sampling (Madow 1949): each draw by itself has the right distribution, and a step's noise is far below
    that of independent draws, so that fewer steps show where the expected update goes.
    """
    shares = np.cumsum(mass) / mass.sum()
    points = (random.random() + np.arange(num_draws)) / num_draws
    return random.permutation(np.minimum(np.searchsorted(shares, points, side="right"), len(mass) - 1))


def train_online(
    run: OnlineRun, world: TinyWorld, rewards: Array, rows: Mapping[str, Mapping[str, Any]] = NO_ROWS
) -> OneRank:
    """Train to the last step of `run`; the learner holds the policy that was reached."""
    learners = open_learner(run)
    state = OnlineState(run, OnlineInput(encoded_prompts(world), EOS, ()))
    draws = Draws(world, rewards, run.online.samples_per_prompt, rows)
    record: Any = NullRecorder()
    while state.step < run.online.num_steps:
        responses = draws.responses(learners, run.online.samples_per_step, state.step, run.seed)
        learn(run, EOS, responses, state, learners, record)
    return learners


def encoded_prompts(world: TinyWorld) -> tuple[EncodedPrompt, ...]:
    texts = [world.prompt_text(prompt) for prompt in range(len(world.prompts))]
    ids = [np.array(prompt, np.int32) for prompt in world.prompts]
    return tuple(EncodedPrompt(str(index), text, own) for index, (text, own) in enumerate(zip(texts, ids, strict=True)))
