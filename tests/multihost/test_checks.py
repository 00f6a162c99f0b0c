"""What the fault campaign checks can fail: each mistake of a run is found, and a fault that nobody noticed."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from plumbob.rollout.journal import JournalRow, write_step
from plumbob.rollout.journal_files import step_file
from plumbob.trainers.learner.checkpoint import Checkpoints, DamagedError, Files, on_disk
from tests.multihost.faults.checks import Undisturbed, check_complete, check_equal, check_published, newest_files
from tests.multihost.faults.kinds import check_said, unsaid
from tests.multihost.faults.system_under_test import Fault
from tests.support.small_run import Left

NUM_STEPS = 3
PROMPTS, SAMPLES = 2, 2
POLICY_FILE = "learner-0.safetensors"
LOST = "it is replaced (1 of 5 since the last step)"


@pytest.fixture
def left(tmp_path: Path) -> Left:
    """What a run of three steps leaves, with a policy that is its step's number."""
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=2)
    for step in range(1, NUM_STEPS + 1):
        prompts = range((step - 1) * PROMPTS, step * PROMPTS)
        write_step(tmp_path / "rollouts", step, [response(prompt, index) for prompt in prompts for index in (0, 1)])
        content = str(step)
        checkpoints.commit(step, lambda folder, content=content: write_policy(folder, content), {})
    metrics = {"staleness_max": 1.0, "sampler_gap_fresh": 1e-6, "reward": 0.5}
    write_metrics(tmp_path, [{"step": step, "metrics": metrics} for step in range(1, NUM_STEPS + 1)])
    return Left(tmp_path)


def response(position: int, sample_index: int) -> JournalRow:
    one = np.array([1.0], np.float32)
    ids = np.array([7], np.int32)
    return JournalRow(
        **{"position": position, "prompt_id": f"p{position}", "group_id": f"g{position}", "sample_index": sample_index},
        **{"seed": 0, "prompt": "", "response": "", "prompt_ids": ids, "token_ids": ids, "logprobs": -one},
        **{"ref_logprobs": -one, "values": one, "rewards": {"model": 1.0}, "score": 1.0, "dropped": None},
        **{"versions": ids, "action_mask": np.array([True]), "finish_reason": "stop", "worker": "rollout-0"},
    )


def write_policy(folder: Path, content: str) -> Files:
    (folder / POLICY_FILE).write_text(content)
    return on_disk(folder, [POLICY_FILE])


def write_metrics(folder: Path, lines: list[dict[str, object]]) -> None:
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def change_metric(left: Left, step: int, name: str, value: float) -> None:
    lines = left.metrics
    lines[step - 1]["metrics"][name] = value
    write_metrics(left.folder, lines)


def test_a_whole_run_passes(left: Left) -> None:
    check_complete(left, NUM_STEPS * PROMPTS, SAMPLES)
    check_published(left, 1, ["step 2: the policy does not move"])
    check_equal(left, NUM_STEPS, Undisturbed(left, {NUM_STEPS: newest_files(left, NUM_STEPS)}))


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (lambda path: path.unlink(), r"lost \{.*\(2, 0\)"),
        (
            lambda path: write_step(path.parent, 2, [response(2, 0), response(2, 1), response(3, 0)]),
            r"lost \{\(3, 1\)\}",
        ),
        (lambda path: write_step(path.parent, 4, [response(2, 0)]), r"doubled \[\(2, 0\)\]"),
        (lambda path: write_step(path.parent, 4, [response(9, 0)]), r"foreign \{\(9, 0\)\}"),
    ],
    ids=["step lost", "response lost", "doubled", "ahead of the step"],
)
def test_a_prompt_that_is_lost_or_doubled_is_found(left: Left, mistake: Callable[[Path], object], message: str) -> None:
    mistake(step_file(left.folder / "rollouts", 2))
    with pytest.raises(AssertionError, match=message):
        check_complete(left, NUM_STEPS * PROMPTS, SAMPLES)


def test_another_policy_than_the_learners_is_found_at_whatever_step_and_staleness(left: Left) -> None:
    change_metric(left, 2, "sampler_gap_fresh", 2e-4)
    with pytest.raises(AssertionError, match="sampler_gap_fresh"):
        check_published(left, 1, [])


def test_a_response_that_is_older_than_allowed_is_found(left: Left) -> None:
    with pytest.raises(AssertionError, match="staleness_max"):
        check_published(left, 0, [])


def test_the_runs_own_alarm_is_heard(left: Left) -> None:
    with pytest.raises(AssertionError, match="disagree"):
        check_published(left, 1, ["step 2: sampler and learner disagree by 0.2 nats a token on average, above ..."])


@pytest.mark.parametrize(("step", "name"), [(1, "reward"), (3, "sampler_gap_fresh")])
def test_a_line_that_differs_is_found(
    left: Left, step: int, name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = Left(tmp_path_factory.mktemp("other"))
    write_metrics(other.folder, left.metrics)
    change_metric(other, step, name, 0.25)
    with pytest.raises(AssertionError, match="where it ought to be"):
        check_equal(left, NUM_STEPS, Undisturbed(other, {NUM_STEPS: newest_files(left, NUM_STEPS)}))


def test_a_policy_that_differs_is_found_at_its_step(left: Left) -> None:
    files = newest_files(left, NUM_STEPS)
    files = {POLICY_FILE: {**files[POLICY_FILE], "blake2b": "another"}}
    with pytest.raises(AssertionError, match="the checkpoints of step 3 differ"):
        check_equal(left, NUM_STEPS, Undisturbed(left, {NUM_STEPS: files}))


def test_a_checkpoint_that_is_not_whole_or_not_the_steps_is_found(left: Left) -> None:
    with pytest.raises(AssertionError, match="where that of step 2 ought to be"):
        newest_files(left, 2)
    (left.last_checkpoint / POLICY_FILE).write_text("4")
    with pytest.raises(DamagedError):
        newest_files(left, NUM_STEPS)


def test_a_fault_that_nobody_noticed_is_one_that_hit_nothing() -> None:
    said = [
        f"rollout-2 died while sampling; {LOST}",
        f"scorer-1: its host 10.77.0.2 is gone; {LOST}",
        "step 3: learner-0",
    ]
    assert unsaid({"rollout": 1, "scorer": 1}, said) == {}
    assert unsaid({"rollout": 2}, said) == {"rollout": 1}
    assert unsaid({"rollout": 1, "learner": 1}, said) == {"learner": 1}
    assert unsaid({"scorer": 1}, []) == {"scorer": 1}


def test_a_worker_that_was_lost_by_other_means_was_not_lost_for_want_of_memory() -> None:
    fault, lost = Fault("out of memory", "scorer", "score"), {"scorer": 1}
    killed = f"scorer-1 died while scoring: 2 worker(s) were killed due to the node running low on memory; {LOST}"
    check_said(fault, lost, [killed])
    check_said(Fault("worker killed", "scorer", "score"), lost, [f"scorer-1 died; {LOST}"])
    for said in ([f"scorer-1 died; {LOST}"], [f"scorer-1 died; {LOST}", killed.replace("scorer", "rollout")], []):
        with pytest.raises(AssertionError, match="scorer"):
            check_said(fault, lost, said)
    with pytest.raises(AssertionError, match="memory"):
        check_said(fault, {}, [killed])
