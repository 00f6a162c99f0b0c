"""The loops of PPO in a world of small fakes: samplers, scorer, learners and recorder in one, with a diary."""

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from plumbob.configs.runs import OnlineRun
from plumbob.configs.settings.algorithms import AdaptiveKl
from plumbob.configs.settings.data import PromptDataSettings
from plumbob.configs.settings.models import AlignedPolicySettings
from plumbob.configs.settings.rewards import ScorerSettings
from plumbob.configs.settings.training import OnlineSettings
from plumbob.core.errors import NotFinite, RunStopped
from plumbob.data.prompts import EncodedPrompt
from plumbob.models.adapter import Adapter
from plumbob.reward.scorer import Score, ScoreRequest
from plumbob.rollout.rollout_records import Rollout, SampleRequest
from plumbob.trainers.algorithms.whole_batch import ONE_RANK
from plumbob.trainers.learner.checkpoint import Checkpoints, Files, read_checkpoint
from plumbob.trainers.learner.learner_protocol import UpdateResult
from plumbob.trainers.metrics.metrics_log import MetricsLog
from plumbob.trainers.metrics.step_record import StepRecord
from plumbob.trainers.online.collection.collector import StepResponses
from plumbob.trainers.online.objective import forward_with_entropies
from plumbob.trainers.online.online_input import OnlineInput
from plumbob.trainers.online.online_loop import OnlineState, OnlineWorkers, run_online, run_online_asynchronous
from plumbob.trainers.online.recorder import OnlineRecorder

NUM_PROMPTS = 6
PROMPTS_PER_STEP = 2
PROMPTS = tuple(
    EncodedPrompt(f"p{place}", f"prompt {place}", np.array([3, place], np.int32)) for place in range(NUM_PROMPTS)
)


class DriverDeathError(Exception):
    """Stands for the driver's death."""


class FakeOnlineWorld:
    """Samplers, scorer, learners of one rank and recorder in one, with a diary of what they were asked.

    Args:
        num_ahead: batches that are sampled and scored before a step is learnt from, beside its own; None does not wait
            for any.
    """

    num_ranks, batch, kept = 1, ONE_RANK, None
    rollouts: Sequence[Rollout] = ()

    def __init__(self, num_ahead: int | None, num_steps: int) -> None:
        self._num_ahead, self._num_left = num_ahead, num_steps
        self._scored = threading.Semaphore(0)
        self.diary: list[str] = []
        self.messages: list[str] = []
        self.accounts: list[tuple[int, dict[str, Any]]] = []
        self.requests: list[SampleRequest] = []
        self.versions_learnt: list[int] = []
        self.responses_learnt: list[StepResponses] = []
        self.roles: set[str] = set()
        self.scales: list[float] = []
        self.seeds: list[int] = []
        self.batches: list[Any] = []
        self.minibatch_sizes: list[int] = []
        self.version = -1
        self.dies_in = ""
        self.stops_at = 0
        self.broken_rows: tuple[int, ...] = ()
        self.is_stopped = False

    def sample(self, requests: Sequence[SampleRequest]) -> list[Rollout]:
        self.diary.append(f"sample with {self.version}")
        self.requests += requests
        ones = np.ones(1, np.int32)
        return [
            Rollout(r, "stop", str(r.sample_index), ones, -np.ones(1, np.float32), ones * self.version, ones > 0, "w")
            for r in requests
        ]

    def load(self, first: Any) -> None:
        """As samplers, an adapter; as learners, a checkpoint's folder."""
        if isinstance(first, Adapter):
            self.diary.append(f"publish {first.version}")
            if self.dies_in == "publish" and first.version == 2:
                raise DriverDeathError
            self.version = first.version
        else:
            self.diary.append(f"load {first.name}")

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """The responses to prompts of an even number differ in reward, those to the others do not."""
        self.diary.append("score")
        numbers = [int(request.prompt[-1]) for request in requests]
        scores = [
            Score(float(number + (int(request.response) if number % 2 == 0 else 0)), {})
            for number, request in zip(numbers, requests, strict=True)
        ]
        self._scored.release()
        return scores

    def _wait_for_scores(self) -> None:
        """So that the sampling thread is as far ahead as it may be, however the threads are scheduled."""
        if self._num_ahead is None:
            return
        wanted = min(1 + self._num_ahead, self._num_left)
        for _ in range(wanted):
            assert self._scored.acquire(timeout=60)
        for _ in range(wanted - 1):
            self._scored.release()
        self._num_left -= 1

    def on_ranks(
        self, doing: str, function: Callable[..., Any], common: Any, shares: Sequence[Any], rollouts: Any = ()
    ) -> list[Any]:
        for refs in rollouts:
            self.rollouts = refs.of(refs.parts)
        return [function(self, common, share) for share in shares]

    def compute(self, batch: Any, role: Any, function: Callable[..., Any]) -> np.ndarray:
        if role == "policy":
            self._wait_for_scores()
        self.roles.add(role)
        # A KL of 9 nats a token, far above the target: the adaptive coefficient grows by its largest factor.
        number = {"policy": -1.0, "reference": -10.0, "value": 0.0}[role]
        rows, columns = batch.input_ids.shape
        shape = (rows, 2, columns) if function is forward_with_entropies else (rows, columns)
        return np.full(shape, number, np.float32)

    def update(self, batch: Any, plan: Any) -> UpdateResult:
        self.diary.append("learn")
        if self.broken_rows:
            raise NotFinite("the policy's loss is nan", self.broken_rows)
        self.batches.append(batch)
        self.minibatch_sizes.append(plan.minibatch_size)
        self.scales.append(plan.learning_rate_scale)
        self.seeds.append(plan.seed)
        return UpdateResult({}, {})

    def policy_weights(self, version: int) -> Adapter:
        return Adapter(version, {}, {})

    def save(self, folder: Path) -> Files:
        self.diary.append("commit")
        if self.dies_in == "commit" and self.version == 1:
            raise DriverDeathError
        return {}

    def export(self, folder: Path) -> None:
        self.diary.append("export")

    def phase(self, name: str) -> AbstractContextManager[None]:
        return nullcontext()

    def record_update(self, responses: StepResponses, *others: Any) -> None:
        self.versions_learnt.append(int(responses.rollouts[0].versions[0]))
        self.responses_learnt.append(responses)
        self.diary.append("line")

    def record_final_counts(self, step: int, rows: Any) -> None:
        self.accounts += [(step, row) for row in rows]

    def check_stop(self) -> None: ...

    def stepped(self, record: StepRecord) -> None:
        if record.step == self.stops_at:
            raise RunStopped("good enough")

    def notify(self, stage: str, message: str) -> None:
        self.messages.append(message)


def settings(**changes: Any) -> OnlineRun:
    online = OnlineSettings(
        num_steps=6,
        prompts_per_step=PROMPTS_PER_STEP,
        minibatch_size=2,
        schedule="linear",
        warmup_fraction=0.0,
        kl=AdaptiveKl(coefficient=0.1, target=1.0, horizon=2),
        keep_checkpoints=10,
    )
    return OnlineRun(
        data=PromptDataSettings(prompts="unused"),
        policy=AlignedPolicySettings(model="unused"),
        reward=ScorerSettings(model="unused"),
        online=online.model_copy(update=changes),
        seed=5,
    )


def play(
    run: OnlineRun, folder: Path, resume_at: int | None = None, loop: Any = run_online
) -> tuple[FakeOnlineWorld, OnlineState]:
    """The loop from its beginning, or from the checkpoint of a step on."""
    is_in_order = loop is run_online_asynchronous and run.online.dynamic_sampling is None
    world: Any = FakeOnlineWorld(
        run.online.max_staleness if is_in_order else None, run.online.num_steps - (resume_at or 0)
    )
    state = OnlineState(run, OnlineInput(PROMPTS, 0, ()))
    checkpoints = Checkpoints(folder, run.online.keep_checkpoints)
    if resume_at is not None:
        state.restore(read_checkpoint(folder / f"step-{resume_at:06d}"))
    loop(run, 0, state, OnlineWorkers(world, world, world), checkpoints, world)
    return world, state


def recorded(
    run: OnlineRun, folder: Path, dies_in: str = "", loop: Any = run_online, stops_at: int = 0
) -> FakeOnlineWorld:
    """From the newest checkpoint on, with a real recorder and log; the death is in the second step.

    `stops_at` is the step after which who hears of it ends the run.
    """
    world: Any = FakeOnlineWorld(
        run.online.max_staleness if loop is run_online_asynchronous else None, run.online.num_steps
    )
    world.dies_in, world.stops_at = dies_in, stops_at
    state = OnlineState(run, OnlineInput(PROMPTS, 0, ()))
    checkpoints = Checkpoints(folder / "checkpoints", 2)
    newest = checkpoints.newest(lambda message: world.notify("ppo", message))
    if newest is not None:
        state.restore(newest)
    with MetricsLog(folder, world) as log:
        log.truncate_after(state.step)
        with OnlineRecorder(run.stage, run.online, folder, log, world) as record:
            loop(run, 0, state, OnlineWorkers(world, world, world), checkpoints, record)
    world.ledger = state.ledger
    return world
