"""The loops of PPO with small fakes: what happens in which order, versions, the cursor, and resuming."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plumbob.configs.settings.algorithms import DynamicSamplingSettings, Rloo
from plumbob.configs.settings.metrics.monitors import KlMonitorSettings, MonitoringSettings
from plumbob.core.errors import NotFinite, RunStopped
from plumbob.data.tokenization import TokenSequence
from plumbob.rollout.journal import read_journal, read_step
from plumbob.trainers.forgetting.packed_text import PackedText
from plumbob.trainers.learner.checkpoint import Checkpoints
from plumbob.trainers.metrics.sinks.jsonl import read_metrics
from plumbob.trainers.online.monitors import monitor_result
from plumbob.trainers.online.online_input import OnlineInput
from plumbob.trainers.online.online_loop import OnlineState, OnlineWorkers, run_online, run_online_asynchronous
from plumbob.trainers.online.recorder import online_summary, steps_on_disk
from tests.support.online_world import PROMPTS, DriverDeathError, FakeOnlineWorld, play, recorded, settings


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
    assert world.seeds == [5 * 2**32 + step for step in range(4)]
    # An error clipped at 0.2 on as many responses as the horizon: a factor of 1.2 a step.
    assert state.kl_coefficient == pytest.approx(0.1 * 1.2**4)


DYNAMIC = {"dynamic_sampling": DynamicSamplingSettings(max_rounds=3), "samples_per_prompt": 2}


@pytest.mark.parametrize("loop", [run_online, run_online_asynchronous])
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


def test_other_prompts_are_not_gone_on_with(tmp_path: Path) -> None:
    run = settings()
    play(run, tmp_path)
    checkpoint = Checkpoints(tmp_path, 10).newest(pytest.fail)
    assert checkpoint is not None
    with pytest.raises(ValueError, match="not those that the run began with"):
        OnlineState(run, OnlineInput(PROMPTS[:5], 0, ())).restore(checkpoint)


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


@pytest.mark.parametrize("loop", [run_online, run_online_asynchronous])
def test_who_hears_of_a_step_ends_the_run_after_the_commit(tmp_path: Path, loop: Any) -> None:
    run = settings(num_steps=3, max_staleness=1)
    with pytest.raises(RunStopped, match="good enough"):
        recorded(run, tmp_path, loop=loop, stops_at=2)
    assert [path.name for path in sorted((tmp_path / "checkpoints").glob("step-*"))] == ["step-000001", "step-000002"]
    resumed = recorded(run, tmp_path, loop=run_online)
    assert resumed.diary.count("learn") == 1
    assert [line.step for line in read_metrics(tmp_path)] == [1, 2, 3]


@pytest.mark.parametrize("loop", [run_online, run_online_asynchronous])
def test_a_monitor_ends_the_run_after_the_commit(tmp_path: Path, loop: Any) -> None:
    # A KL of 9 nats a response at every step, so the first is the last.
    monitors = MonitoringSettings(kl=KlMonitorSettings(bound=5.0, action="stop"))
    run = settings(num_steps=4, monitors=monitors, max_staleness=1)
    for num_learnt in (1, 0):  # Run, and resumed before the result was written.
        world = recorded(run, tmp_path, loop=loop)
        assert world.diary.count("learn") == world.diary.count("commit") == num_learnt
        assert world.version == 1
        assert world.messages == ["step 1: KL 9.00 is above online.monitors.kl.bound=5"] * num_learnt
        rows = world.ledger.counts().as_dict()["versions"].values()
        assert all(row["issued"] == row["trained"] + row["dropped"].get("stopped", 0) for row in rows)
        # The second step's, which were sampled asynchronously.
        num_ahead = 2 if loop is run_online_asynchronous and num_learnt else 0
        assert sum(row["dropped"].get("stopped", 0) for row in rows) == num_ahead
    (line,) = read_metrics(tmp_path)
    assert line.metrics["alarm_kl"] == 1.0
    assert monitor_result(steps_on_disk(tmp_path), run.online).metrics["stopped_at_step"] == 1


def test_text_is_learnt_beside_each_batch_and_what_was_known_survives_a_resume(tmp_path: Path) -> None:
    block = TokenSequence(np.arange(3, dtype=np.int32), np.ones(3, np.bool_))
    data = OnlineInput(PROMPTS, 0, (), replayed=PackedText((block,), 0, ()))
    run = settings(num_steps=2)
    world: Any = FakeOnlineWorld(None, 2)
    state = OnlineState(run, data)
    state.retained = 1.5
    run_online(run, 0, state, OnlineWorkers(world, world, world), Checkpoints(tmp_path, 2), world)
    assert [batch.replayed.input_ids.tolist() for batch in world.batches] == [[[0, 1, 2]] * 2] * 2
    resumed, newest = OnlineState(run, data), Checkpoints(tmp_path, 2).newest(pytest.fail)
    assert newest is not None
    resumed.restore(newest)
    assert resumed.retained == 1.5


def test_a_death_after_the_last_commit_leaves_the_figures(tmp_path: Path) -> None:
    run = settings(num_steps=2)
    with pytest.raises(DriverDeathError):
        recorded(run, tmp_path, "publish")
    recorded(run, tmp_path)
    steps = steps_on_disk(tmp_path)
    # A KL of 9 nats a token, one token a response.
    assert online_summary(steps)["train_kl"] == pytest.approx(9.0)
    rewards = [line.metrics["reward"] for line in read_metrics(tmp_path)]
    assert [online_summary(steps)[name] for name in ("first_train_reward", "train_reward")] == rewards


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
        assert [row.dropped for row in rows] == [None] * 4 + ["flat"] * int(2 * line.metrics["num_dropped_groups"])
        assert all(len(row.ref_logprobs) == (0 if row.dropped else 1) for row in rows)
    # Every prompt that was asked stands in the journal with its own place, whether it was learnt from or not.
    positions = {row.position: row.prompt_id for _, row in read_journal(tmp_path / "rloo" / "rollouts")}
    assert positions == dict(enumerate(request.prompt_id for request in world.requests[::2]))


def test_a_loss_that_is_not_finite_names_the_prompts_of_its_rows(tmp_path: Path) -> None:
    run = settings(num_steps=1)
    world: Any = FakeOnlineWorld(None, 1)
    world.broken_rows = (1,)
    state = OnlineState(run, OnlineInput(PROMPTS, 0, ()))
    with pytest.raises(NotFinite, match=r"loss is nan; .*the rows are 1 \(prompt p\d\)") as caught:
        run_online(run, 0, state, OnlineWorkers(world, world, world), Checkpoints(tmp_path, 2), world)
    assert caught.value.rows == (1,)
    assert f"prompt {world.requests[1].prompt_id})" in str(caught.value)
