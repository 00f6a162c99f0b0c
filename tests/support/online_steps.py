"""The loops of PPO with a real learner and a real sampler in one process, which wait for one another as a test says."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Condition, Lock
from types import MappingProxyType
from typing import Any

import numpy as np
from transformers import AutoTokenizer

from plumbob.configs.runs import OnlineRun
from plumbob.configs.settings.data import PromptDataSettings
from plumbob.configs.settings.models import AlignedPolicySettings
from plumbob.configs.settings.rewards import ScorerSettings
from plumbob.configs.settings.training import OnlineSettings
from plumbob.configs.settings.tuning.adapters import LoraTuning
from plumbob.configs.settings.tuning.any_tuning import AnyTuning
from plumbob.configs.settings.workers import RolloutSettings, TransformersEngine
from plumbob.data.prompts import EncodedPrompt
from plumbob.models.adapter import PolicyWeights
from plumbob.reward.rules.callable_rule import RuleScorer
from plumbob.rollout.rollout_records import Rollout, SampleRequest
from plumbob.rollout.samplers.sampler import SamplerSpec, sample
from plumbob.rollout.samplers.transformers_sampler import TransformersSampler
from plumbob.trainers.build import build_learner
from plumbob.trainers.learner.checkpoint import Checkpoints
from plumbob.trainers.metrics.metrics_log import MetricsLog
from plumbob.trainers.online.objective import rows_to_probe
from plumbob.trainers.online.online_input import OnlineInput
from plumbob.trainers.online.online_loop import OnlineState, OnlineWorkers, run_online, run_online_asynchronous
from plumbob.trainers.online.ranks.rank_step import learn_rows
from plumbob.trainers.online.recorder import OnlineRecorder
from plumbob.verify.local_learner import OneRank
from tests.support.learner_ranks import this_rank
from tests.support.recording_listener import Watching

NUM_STEPS = 4
LORA = LoraTuning(rank=4)
PROMPTS_PER_STEP = 4
CHUNK_SIZE = 2
"""Of the samplers: half a step."""
PATIENCE_S = 120.0


class Progress:
    """How far sampling and publishing have come, and a way to wait until they have come somewhere."""

    def __init__(self) -> None:
        self.num_chunks = 0
        self.version = -1
        self._moved = Condition()

    def move(self, **changes: int) -> None:
        with self._moved:
            for name, value in changes.items():
                setattr(self, name, value)
            self._moved.notify_all()

    def until(self, is_so: Callable[[], bool], what: str) -> None:
        with self._moved:
            assert self._moved.wait_for(is_so, PATIENCE_S), f"waited {PATIENCE_S:.0f} s for {what}"


@dataclass(frozen=True)
class Pace:
    """Who waits for what; each is true at once where nothing is slow.

    Attributes:
        learner: (step, progress) -> whether that step may be learnt from.
        sampler: (step, its chunk's number, progress) -> whether that chunk may be sampled.
    """

    learner: Callable[[int, Progress], bool] = lambda step, progress: True
    sampler: Callable[[int, int, Progress], bool] = lambda step, chunk, progress: True


def sampled_ahead(num_steps_ahead: int, num_chunks: int = 0) -> Callable[[int, Progress], bool]:
    """A learner so slow that sampling gets that many steps ahead of it, and chunks of the step after those."""
    per_step = PROMPTS_PER_STEP // CHUNK_SIZE

    def is_so(step: int, progress: Progress) -> bool:
        wanted = (step + 1 + num_steps_ahead) * per_step + num_chunks
        return progress.num_chunks >= min(wanted, NUM_STEPS * per_step)

    return is_so


PACES = {
    "free": Pace(),
    "slow learner, two ahead": Pace(learner=sampled_ahead(2)),
    "slow sampler": Pace(sampler=lambda step, chunk, progress: progress.version == step),
    # Each step's first chunk is made by the version before its own, the second when its own has been published.
    "published between chunks": Pace(
        learner=sampled_ahead(0, num_chunks=1),
        sampler=lambda step, chunk, progress: chunk == 0 or progress.version == step,
    ),
}


@dataclass(frozen=True)
class SamplerFault:
    """A sampler whose log-probs are too low by 0.01, from a 0-based step on.

    Attributes:
        is_hidden: only those of responses that the step does not probe.
    """

    from_step: int
    is_hidden: bool = False

    def of(self, rollouts: list[Rollout], step: int) -> list[Rollout]:
        spared = set(rows_to_probe(rollouts, step, RolloutSettings().chunk_size).tolist()) if self.is_hidden else set()
        return [
            rollout
            if step < self.from_step or row in spared
            else replace(rollout, logprobs=rollout.logprobs - np.float32(0.01))
            for row, rollout in enumerate(rollouts)
        ]


class Sampling:
    """A sampler as a group of one worker: a new version is taken between chunks."""

    def __init__(
        self, sampler: TransformersSampler, pace: Pace, progress: Progress, fault: SamplerFault | None = None
    ) -> None:
        self._sampler, self._pace, self._progress, self._fault = sampler, pace, progress, fault
        self._turn = Lock()
        self.begun: list[tuple[int, int]] = []
        """Of each step: its number, and the version that was published when its sampling began."""

    def sample(self, requests: Sequence[SampleRequest]) -> list[Rollout]:
        step = int(requests[0].group_id.split("-")[0])
        self.begun.append((step, self._progress.version))
        rollouts: list[Rollout] = []
        for chunk, start in enumerate(range(0, len(requests), CHUNK_SIZE)):
            self._wait(step, chunk)
            with self._turn:
                rollouts += sample(self._sampler, requests[start : start + CHUNK_SIZE])
            self._progress.move(num_chunks=self._progress.num_chunks + 1)
        return rollouts if self._fault is None else self._fault.of(rollouts, step)

    def _wait(self, step: int, chunk: int) -> None:
        progress = self._progress
        progress.until(lambda: self._pace.sampler(step, chunk, progress), f"step {step}'s chunk {chunk}")

    def load(self, weights: PolicyWeights) -> None:
        with self._turn:
            self._sampler.load(weights)
        self._progress.move(version=weights.version)


class Learning(OneRank):
    """A learner that begins no update before its time."""

    def __init__(self, learner: Any, pace: Pace, progress: Progress) -> None:
        super().__init__(learner)
        self._pace, self._progress, self._step = pace, progress, 0

    def on_ranks(
        self, doing: str, function: Callable[..., Any], common: Any, shares: Sequence[Any], rollouts: Any = ()
    ) -> list[Any]:
        if function is learn_rows:
            what = f"samples to learn {self._step}"
            self._progress.until(lambda: self._pace.learner(self._step, self._progress), what)
            self._step += 1
        return super().on_ranks(doing, function, common, shares, rollouts)


def small_run(model: str, max_staleness: int, changes: Mapping[str, Any], tuning: AnyTuning = LORA) -> OnlineRun:
    return OnlineRun(
        data=PromptDataSettings(prompts="unused"),
        policy=AlignedPolicySettings(model=model, tuning=tuning),
        reward=ScorerSettings(model="unused"),
        rollout=RolloutSettings(engine=TransformersEngine(), temperature=0.8, max_tokens=6),
        online=OnlineSettings(
            num_steps=NUM_STEPS,
            prompts_per_step=PROMPTS_PER_STEP,
            minibatch_size=2,
            learning_rate=1e-2,
            max_staleness=max_staleness,
        ).model_copy(update=changes),
        seed=3,
    )


def play(
    model: str,
    folder: Path,
    is_asynchronous: bool,
    max_staleness: int,
    pace: str,
    changes: Mapping[str, Any] = MappingProxyType({}),
    fault: SamplerFault | None = None,
    tuning: AnyTuning = LORA,
) -> dict[str, Any]:
    """A whole run into `folder`, in a process that is a rank; how sampling began, the ledger, and what was said."""
    run, progress = small_run(model, max_staleness, changes, tuning), Progress()
    rollout = run.rollout
    spec = SamplerSpec(run.policy.ref, "rollout-0", rollout.engine, rollout.temperature, rollout.max_tokens, 4)
    sampling = Sampling(TransformersSampler(spec), PACES[pace], progress, fault)
    learning = Learning(build_learner(run, this_rank()), PACES[pace], progress)
    tokenizer = AutoTokenizer.from_pretrained(model)
    texts = [f"the car has {number} doors" for number in range(5)]
    prompts = tuple(EncodedPrompt(text, text, np.array(tokenizer(text).input_ids, np.int32)) for text in texts)
    state = OnlineState(run, OnlineInput(prompts, tokenizer.pad_token_id, ()))
    actors = OnlineWorkers(sampling, RuleScorer(lambda prompt, response: len(response) / 10), learning)
    checkpoints = Checkpoints(folder / "checkpoints", 1)
    watching = Watching()
    with MetricsLog(folder, watching) as log, OnlineRecorder(run.stage, run.online, folder, log, watching) as record:
        loop = run_online_asynchronous if is_asynchronous else run_online
        loop(run, tokenizer.pad_token_id, state, actors, checkpoints, record)
    messages = [message for _, message in watching.notes]
    return {"begun": sampling.begun, "ledger": state.ledger.counts().as_dict(), "messages": messages}
