"""Threads of processes, where nobody says how many."""

import os
from pathlib import Path

import pytest

from plumbob.configs.load_run import load_run
from plumbob.configs.runs import OnlineRun, PipelineRun
from plumbob.driver import cpu_threads
from plumbob.driver.cpu_threads import num_cores, with_threads

PPO = ["policy.model=p", "reward.model=r", "data.prompts=x.jsonl"]


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(cpu_threads, "QUOTA", tmp_path / "cpu.max")


def threads(*overrides: str) -> tuple[int | None, int | None, int | None]:
    run = with_threads(load_run("ppo", [*PPO, *overrides]))
    assert isinstance(run, OnlineRun)
    return run.learner.num_threads, run.rollout.num_threads, run.reward.num_threads


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], (8, 8, 8)),
        (["rollout.num_threads=3"], (8, 3, 8)),
        (["cluster.num_cpus=4", "rollout.num_workers=2"], (4, 2, 4)),
        (["rollout.num_workers=16"], (8, 1, 8)),
        # Sampling continues beside learning, not beside scoring.
        (["online.max_staleness=1"], (4, 4, 8)),
        (["online.max_staleness=1", "rollout.autoscale.max_workers=2"], (4, 2, 8)),
        (["cluster.address=auto", "rollout.num_cpus=3.5"], (1, 3, 1)),
    ],
)
def test_all_cores_are_used_once(overrides: list[str], expected: tuple[int, int, int]) -> None:
    assert threads(*overrides) == expected


def test_a_pipeline_that_samples_beside_learning_shares_too() -> None:
    open_again = [f"{group}.num_threads=null" for group in ("learner", "rollout", "reward")]
    run = with_threads(load_run("toy", [*open_again, "online.max_staleness=1"]))
    assert isinstance(run, PipelineRun)
    assert (run.learner.num_threads, run.rollout.num_threads, run.reward.num_threads) == (4, 4, 8)


def test_the_environment_says_it_as_for_other_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert threads("learner.num_threads=2") == (2, 5, 5)


@pytest.mark.parametrize(
    ("quota", "expected"), [("max 100000\n", 8), ("250000 100000\n", 2), ("50000 100000\n", 1), ("1600000 100000\n", 8)]
)
def test_a_container_has_no_more_cores_than_it_is_given_time_on(quota: str, expected: int) -> None:
    cpu_threads.QUOTA.write_text(quota)
    assert num_cores(load_run("ppo", PPO).cluster) == expected


def test_what_is_open_stays_open_in_the_settings() -> None:
    run = load_run("ppo", PPO)
    with_threads(run)
    assert isinstance(run, OnlineRun) and run.learner.num_threads is None
