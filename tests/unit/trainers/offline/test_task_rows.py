"""Supervised fine-tuning of several tasks: rows that name theirs, a soft prompt for each, and what is refused."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoModelForCausalLM

from plumbob.configs.load_run import load_run
from plumbob.configs.runs import SftRun
from plumbob.core.errors import UserError
from plumbob.data.tokenization import collate_tasks
from plumbob.models.adapter import save_adapter
from plumbob.models.resolution import resolve_model
from plumbob.models.tuning.methods import method_of
from plumbob.trainers.offline.sft import prepare_sft
from tests.support.learner_ranks import Ranks
from tests.support.opened_models import opened_policy, policy_ref
from tests.support.task_walk import walk_tasks
from tests.support.tiny_policy import make_adapter, write_policy

TUNING = {"kind": "multitask-prompt-tuning", "tasks": ("doors", "colour"), "num_virtual_tokens": 3}
ROWS = [
    {"prompt": "the car has", "completion": "four doors", "task": "doors"},
    {"prompt": "the car has", "completion": "a red engine", "task": "colour"},
    {"prompt": "the car", "completion": "has doors", "task": "doors"},
]


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_policy(tmp_path_factory.mktemp("policy"))


def sft(policy: str, tmp_path: Path, rows: Sequence[Mapping[str, Any]], **tuning: Any) -> SftRun:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"demonstrations": str(file), "heldout_fraction": 0.0}
    return SftRun.model_validate({"data": data, "policy": {"model": policy, "tuning": TUNING | tuning}})


def test_tasks_are_trained_apart_and_exported_each(one_rank: Ranks, policy: str, tmp_path: Path) -> None:
    (found,) = one_rank.run(walk_tasks, policy, tmp_path)
    assert found.losses[1] < found.losses[0]
    # All begin as the one that they share, but for the noise of the second rank.
    assert found.start_gap < 1e-2 < found.difference
    moved, learnt = found.moved
    assert moved == learnt and len(learnt) == 3
    assert found.export_gap < 3e-5 and max(found.task_gaps) < 3e-5
    assert found.is_resumed_exactly
    with pytest.raises(UserError, match=r"is a soft prompt of several tasks, .* such as .*/policy/tasks/NAME"):
        resolve_model(policy_ref(tmp_path / "policy"))
    assert resolve_model(policy_ref(tmp_path / "policy/tasks/third")).base == policy


def test_rows_have_the_numbers_of_their_tasks(policy: str, tmp_path: Path) -> None:
    found = prepare_sft(sft(policy, tmp_path, ROWS))
    assert [sequence.task for sequence in found.train] == [0, 1, 0]
    batch = collate_tasks(found.train, found.pad_id)
    assert batch.tasks.tolist() == [0, 1, 0] and batch.num_rows == 3
    assert batch.rows(np.array([1])).tasks.tolist() == [1]
    assert batch.lengths.tolist() == [len(sequence.ids) for sequence in found.train]
    renamed = [{"prompt": row["prompt"], "completion": row["completion"], "kind": row["task"]} for row in ROWS]
    assert [one.task for one in prepare_sft(sft(policy, tmp_path, renamed, task_column="kind")).train] == [0, 1, 0]


@pytest.mark.parametrize(
    ("rows", "wanted"),
    [
        ([{**ROWS[0], "task": "size"}], r"'task' \(policy\.tuning\.task_column\): expected .*; found 'size'"),
        ([{"prompt": "a", "completion": "b"}], r"expected one of .*doors, colour; found None"),
        ([{**ROWS[0], "task": ["doors"]}], r"expected one of .*doors, colour; found \['doors'\]"),
        (ROWS[:1], r"^policy\.tuning\.tasks: no demonstration that is learnt is of colour: take that out"),
    ],
)
def test_rows_of_no_task_and_tasks_of_no_row(
    policy: str, tmp_path: Path, rows: list[dict[str, Any]], wanted: str
) -> None:
    with pytest.raises(UserError, match=wanted):
        prepare_sft(sft(policy, tmp_path, rows))


def test_an_adapter_is_not_trained_as_several(policy: str, tmp_path: Path) -> None:
    save_adapter(make_adapter(policy, 0, seed=1), tmp_path / "lora")
    with pytest.raises(UserError, match=r"kind=multitask-prompt-tuning: .* is trained further as what it is; leave"):
        prepare_sft(sft(str(tmp_path / "lora"), tmp_path, ROWS))


def test_what_is_trained_is_counted(policy: str, tmp_path: Path) -> None:
    model = opened_policy(policy).empty(AutoModelForCausalLM)
    tuning: Any = sft(policy, tmp_path, ROWS, rank=2).policy.tuning
    # Three vectors of 128; for each of two tasks two columns of 3 and two rows of 128.
    assert method_of(tuning).size(model).num_trained == 3 * 128 + 2 * 2 * (3 + 128)


SFT = ["policy.model=m", "data.demonstrations=d"]
GIVEN = "policy.tuning={kind: multitask-prompt-tuning, tasks: [a, b]}"


@pytest.mark.parametrize(
    ("preset", "given", "wanted"),
    [
        ("sft", [*SFT, "policy.tuning={kind: multitask-prompt-tuning, tasks: [a, a]}"], "names a twice"),
        ("sft", [*SFT, "policy.tuning={kind: multitask-prompt-tuning, tasks: [a]}"], "policy.tuning.tasks: expected"),
        ("sft", [*SFT, "policy.tuning={kind: multitask-prompt-tuning, tasks: [a, ../b]}"], "policy.tuning.tasks.1: "),
        ("sft", [*SFT, GIVEN, "retention.text=t"], "retention.text names no task"),
        ("sft", [*SFT, GIVEN, "replay.text=t"], "replay.text names no task"),
        ("dpo", ["policy.model=m", "data.pairs=p", GIVEN], "is for runs of kind sft, whose rows name"),
        ("kto", ["policy.model=m", "data.labelled=l", GIVEN], "give one of its tasks (policy/tasks/NAME"),
        ("toy", ["policy.sft_tuning={kind: multitask-prompt-tuning, tasks: [a, b]}"], "is for runs of kind sft"),
    ],
)
def test_where_it_does_not_go(preset: str, given: list[str], wanted: str) -> None:
    with pytest.raises(UserError) as found:
        load_run(preset, given)
    assert wanted in str(found.value)
