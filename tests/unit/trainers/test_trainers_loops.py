"""The loops of PPO with small fakes: what happens in which order, versions, the cursor, and resuming."""

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.inputs import PromptData
from configs.models import AlignedPolicy
from configs.monitors import KlMonitor, Monitors
from configs.objectives import AdaptiveKl, DynamicSampling, Rloo
from configs.roles import Scorer
from configs.schema import PpoRun
from configs.stages import Ppo
from data.prompts import EncodedPrompt
from data.tokens import TokenSequence
from models.adapters import Adapter
from reward.scorer import Score
from rollout.journal import read_step
from rollout.records import Rollout, SampleRequest
from trainers.checkpoint import Checkpoints, read_checkpoint
from trainers.collect import Answers
from trainers.errors import NotFinite, StaleRollouts
from trainers.metrics import MetricsLog, StepRecord, read_metrics
from trainers.monitors import monitor_figures
from trainers.ppo import PpoActors, PpoInput, PpoState, run_ppo, run_ppo_overlapped
from trainers.ppo_recorder import PpoRecorder, ppo_figures
from trainers.texts import PackedText

NUM_PROMPTS = 6
PROMPTS_PER_STEP = 2
PROMPTS = tuple(
    EncodedPrompt(f"p{place}", f"prompt {place}", np.array([3, place], np.int32)) for place in range(NUM_PROMPTS)
)


class DriverDeathError(Exception):
    """Stands for the driver's death."""


class World:
    """Samplers, scorer, learners and recorder in one, with a diary of what they were asked.

    Args:
        num_ahead: batches that are sampled and scored before a step is learnt from, beside its own; None does not wait
            for any.
    """

    def __init__(self, num_ahead: int | None, num_steps: int) -> None:
        self._num_ahead, self._num_left = num_ahead, num_steps
        self._scored = threading.Semaphore(0)
        self.diary: list[str] = []
        self.requests: list[SampleRequest] = []
        self.versions_learnt: list[int] = []
        self.answers_learnt: list[Answers] = []
        self.roles: set[str] = set()
        self.scales: list[float] = []
        self.seeds: list[int] = []
        self.batches: list[Any] = []
        self.version = -1
        self.dies_in = ""
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

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[Score]:
        """The answers to prompts of an even number differ in reward, those to the others do not."""
        self.diary.append("score")
        numbers = [int(prompt[-1]) for prompt, _ in pairs]
        scores = [
            Score(float(number + (int(response) if number % 2 == 0 else 0)), {})
            for number, (_, response) in zip(numbers, pairs, strict=True)
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

    def compute(self, batch: Any, role: Any, function: Callable[..., Any]) -> np.ndarray:
        if role == "policy":
            self._wait_for_scores()
        self.roles.add(role)
        # A KL of 9 nats a token, far above the target: the adaptive coefficient grows by its largest factor.
        return np.full(batch.input_ids.shape, {"policy": -1.0, "reference": -10.0, "value": 0.0}[role], np.float32)

    def update(self, batch: Any, plan: Any) -> dict[str, float]:
        self.diary.append("learn")
        if self.broken_rows:
            raise NotFinite("the policy's loss is nan", self.broken_rows)
        self.batches.append(batch)
        self.scales.append(plan.learning_rate_scale)
        self.seeds.append(plan.seed)
        return {}

    def adapter(self, version: int) -> Adapter:
        return Adapter(version, {}, {})

    def save(self, folder: Path) -> None:
        self.diary.append("commit")
        if self.dies_in == "commit" and self.version == 1:
            raise DriverDeathError

    def phase(self, name: str) -> AbstractContextManager[None]:
        return nullcontext()

    def learnt(self, answers: Answers, *others: Any) -> None:
        self.versions_learnt.append(int(answers.rollouts[0].versions[0]))
        self.answers_learnt.append(answers)
        self.diary.append("line")

    def stepped(self, record: StepRecord) -> None: ...

    def said(self, stage: str, message: str) -> None: ...


def settings(**changes: Any) -> PpoRun:
    ppo = Ppo(
        num_steps=6,
        prompts_per_step=PROMPTS_PER_STEP,
        minibatch_size=2,
        schedule="linear",
        warmup_fraction=0.0,
        kl=AdaptiveKl(coefficient=0.1, target=1.0, horizon=2),
        keep_checkpoints=10,
    )
    return PpoRun(
        data=PromptData(prompts="unused"),
        policy=AlignedPolicy(model="unused"),
        reward=Scorer(model="unused"),
        ppo=ppo.model_copy(update=changes),
        seed=5,
    )


def play(run: PpoRun, folder: Path, resume_at: int | None = None, loop: Any = run_ppo) -> tuple[World, PpoState]:
    is_in_order = loop is run_ppo_overlapped and run.ppo.dynamic_sampling is None
    world: Any = World(1 if is_in_order else None, run.ppo.num_steps - (resume_at or 0))
    state = PpoState(run, PpoInput(PROMPTS, 0, ()))
    checkpoints = Checkpoints(folder, run.ppo.keep_checkpoints)
    if resume_at is not None:
        checkpoint = read_checkpoint(folder / f"step-{resume_at:06d}")
        assert checkpoint is not None
        state.take_over(checkpoint)
    loop(run, 0, state, PpoActors(world, world, world), checkpoints, world)
    return world, state


def test_the_order_of_a_step(tmp_path: Path) -> None:
    world, state = play(settings(num_steps=2), tmp_path)
    assert world.diary == [
        "publish 0",
        *("sample with 0", "score", "learn", "line", "commit", "publish 1"),
        *("sample with 1", "score", "learn", "line", "commit", "publish 2"),
    ]
    assert state.step == 2 and world.versions_learnt == [0, 1]


def test_every_prompt_of_an_epoch_is_asked_once(tmp_path: Path) -> None:
    world, _ = play(settings(), tmp_path)
    asked = [request.prompt_id for request in world.requests]
    # 6 steps of 2 of 6 prompts: two epochs.
    assert sorted(asked[:6]) == sorted(asked[6:]) == [prompt.prompt_id for prompt in PROMPTS]
    assert asked[:6] != asked[6:]
    assert [request.group_id for request in world.requests[:4]] == ["0-0", "0-1", "1-0", "1-1"]


def test_the_coefficient_and_the_learning_rate_move_step_by_step(tmp_path: Path) -> None:
    world, state = play(settings(num_steps=4), tmp_path)
    assert world.scales == pytest.approx([1, 0.75, 0.5, 0.25])
    assert world.seeds == [5, 6, 7, 8]
    # An error clipped at 0.2 on as many answers as the horizon: a factor of 1.2 a step.
    assert state.kl_coefficient == pytest.approx(0.1 * 1.2**4)


DYNAMIC = {"dynamic_sampling": DynamicSampling(max_rounds=3), "samples_per_prompt": 2}


@pytest.mark.parametrize("loop", [run_ppo, run_ppo_overlapped])
@pytest.mark.parametrize("resume_at", [1, 3, 5])
@pytest.mark.parametrize("changes", [{}, DYNAMIC], ids=["once", "in rounds"])
def test_resuming_asks_and_weighs_as_not_stopping_would(
    tmp_path: Path, loop: Any, resume_at: int, changes: dict[str, Any]
) -> None:
    run = settings(max_staleness=1, **changes)
    whole, end = play(run, tmp_path, loop=loop)
    resumed, end_of_resumed = play(run, tmp_path, resume_at, loop)
    rest = [request for request in whole.requests if int(request.group_id.split("-")[0]) >= resume_at]
    assert [(r.prompt_id, r.group_id, r.seed) for r in resumed.requests] == [
        (r.prompt_id, r.group_id, r.seed) for r in rest
    ]
    assert resumed.diary[0] == f"publish {resume_at}"
    assert end_of_resumed.kl_coefficient == end.kl_coefficient
    assert end_of_resumed.cursor.state() == end.cursor.state()
    assert resumed.scales == whole.scales[resume_at:] and resumed.seeds == whole.seeds[resume_at:]


def test_without_a_critic_no_one_is_asked_for_values(tmp_path: Path) -> None:
    world, _ = play(settings(num_steps=1), tmp_path / "gae")
    assert world.roles == {"policy", "reference", "value"}
    world, _ = play(settings(num_steps=1, samples_per_prompt=2, estimator=Rloo()), tmp_path / "rloo")
    assert world.roles == {"policy", "reference"}


def test_the_overlapped_loop_is_one_version_behind(tmp_path: Path) -> None:
    world, state = play(settings(max_staleness=1), tmp_path, loop=run_ppo_overlapped)
    assert world.versions_learnt == [0, 0, 1, 2, 3, 4]
    assert state.step == 6 and world.version == 6
    # Two batches are asked for before the first is learnt from, and the last step asks for none.
    asked = ["sample with 0", "score"]
    assert world.diary[:7] == ["publish 0", *asked, *asked, "learn", "line"]
    assert len(world.requests) == 12


def test_the_overlapped_loop_needs_a_bound_of_one(tmp_path: Path) -> None:
    with pytest.raises(StaleRollouts, match=r"version 0, but the learner is at version 1 .*max_staleness=0"):
        play(settings(), tmp_path, loop=run_ppo_overlapped)


def test_other_prompts_are_not_gone_on_with(tmp_path: Path) -> None:
    run = settings()
    play(run, tmp_path)
    checkpoint = Checkpoints(tmp_path, 10).newest()
    assert checkpoint is not None
    with pytest.raises(ValueError, match="not those that the run began with"):
        PpoState(run, PpoInput(PROMPTS[:5], 0, ())).take_over(checkpoint)


def recorded(run: PpoRun, folder: Path, dies_in: str = "", loop: Any = run_ppo) -> World:
    """From the newest checkpoint on, with a real recorder and log; the death is in the second step."""
    world: Any = World(None, run.ppo.num_steps)
    world.dies_in = dies_in
    state = PpoState(run, PpoInput(PROMPTS, 0, ()))
    checkpoints = Checkpoints(folder / "checkpoints", 2)
    newest = checkpoints.newest()
    if newest is not None:
        state.take_over(newest)
    with MetricsLog(folder, world) as log:
        log.truncate_after(state.step)
        record = PpoRecorder(run.ppo, folder, log, world)
        loop(run, 0, state, PpoActors(world, world, world), checkpoints, record)
    return world


@pytest.mark.parametrize("dies_in, num_learnt_again", [("commit", 2), ("publish", 1)])
def test_a_death_around_the_commit_costs_no_line(tmp_path: Path, dies_in: str, num_learnt_again: int) -> None:
    run = settings(num_steps=3)
    with pytest.raises(DriverDeathError):
        recorded(run, tmp_path, dies_in)
    # In the commit of step 2, the newest checkpoint is of step 1; after it, of step 2, whose line is not made again.
    assert [line.step for line in read_metrics(tmp_path)] == [1, 2]
    resumed = recorded(run, tmp_path)
    assert resumed.diary.count("learn") == num_learnt_again
    assert [line.step for line in read_metrics(tmp_path)] == [1, 2, 3]


@pytest.mark.parametrize("loop", [run_ppo, run_ppo_overlapped])
def test_a_monitor_ends_the_run_after_the_commit(tmp_path: Path, loop: Any) -> None:
    # A KL of 9 nats an answer at every step, so the first is the last.
    monitors = Monitors(kl=KlMonitor(bound=5.0, action="stop"))
    run = settings(num_steps=4, monitors=monitors, max_staleness=1)
    for num_learnt in (1, 0):  # Run, and resumed before the result was written.
        world = recorded(run, tmp_path, loop=loop)
        assert world.diary.count("learn") == world.diary.count("commit") == num_learnt
        assert world.version == 1
    (line,) = read_metrics(tmp_path)
    assert line.metrics["alarm_kl"] == 1.0
    assert monitor_figures([line.metrics], run.ppo)["stopped_at_step"] == 1


def test_text_is_learnt_beside_each_batch_and_what_was_known_survives_a_resume(tmp_path: Path) -> None:
    block = TokenSequence(np.arange(3, dtype=np.int32), np.ones(3, np.bool_))
    data = PpoInput(PROMPTS, 0, (), replayed=PackedText((block,), 0, ()))
    run = settings(num_steps=2)
    world: Any = World(None, 2)
    state = PpoState(run, data)
    state.retained = 1.5
    run_ppo(run, 0, state, PpoActors(world, world, world), Checkpoints(tmp_path, 2), world)
    assert [batch.replayed.input_ids.tolist() for batch in world.batches] == [[[0, 1, 2]] * 2] * 2
    resumed, newest = PpoState(run, data), Checkpoints(tmp_path, 2).newest()
    assert newest is not None
    resumed.take_over(newest)
    assert resumed.retained == 1.5


def test_a_death_after_the_last_commit_leaves_the_figures(tmp_path: Path) -> None:
    run = settings(num_steps=2)
    with pytest.raises(DriverDeathError):
        recorded(run, tmp_path, "publish")
    recorded(run, tmp_path)
    # A KL of 9 nats a token, one token an answer.
    assert ppo_figures(read_metrics(tmp_path))["train_kl"] == pytest.approx(9.0)


def test_what_a_line_says_of_the_critic_and_of_dynamic_sampling(tmp_path: Path) -> None:
    recorded(settings(num_steps=1), tmp_path / "gae")
    (plain,) = read_metrics(tmp_path / "gae")
    assert "explained_variance" in plain.metrics and "num_rounds" not in plain.metrics
    world = recorded(settings(num_steps=3, estimator=Rloo(), **DYNAMIC), tmp_path / "rloo")
    lines = read_metrics(tmp_path / "rloo")
    assert all("explained_variance" not in line.metrics for line in lines)
    # Half of the prompts teach, so some are dropped: all that were asked and not learnt from.
    num_dropped = len(world.requests) // 2 - 6
    assert num_dropped > 0
    assert sum(line.metrics["num_dropped_groups"] for line in lines) == num_dropped
    for line in lines:
        rows = read_step(tmp_path / "rloo" / "rollouts" / f"step-{line.step:06d}.parquet")
        assert [row.dropped for row in rows] == [False] * 4 + [True] * int(2 * line.metrics["num_dropped_groups"])
        assert all(len(row.ref_logprobs) == (0 if row.dropped else 1) for row in rows)


def test_a_loss_that_is_not_finite_names_the_prompts_of_its_rows(tmp_path: Path) -> None:
    run = settings(num_steps=1)
    world: Any = World(None, 1)
    world.broken_rows = (1,)
    state = PpoState(run, PpoInput(PROMPTS, 0, ()))
    with pytest.raises(NotFinite, match=r"loss is nan; .*the rows are 1 \(prompt p\d\)") as caught:
        run_ppo(run, 0, state, PpoActors(world, world, world), Checkpoints(tmp_path, 2), world)
    assert caught.value.rows == (1,)
    assert f"prompt {world.requests[1].prompt_id})" in str(caught.value)
