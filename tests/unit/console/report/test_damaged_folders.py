"""`status` and `report` of run folders whose files were damaged, one after the other."""

import itertools
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from plumbob.configs.settings.data import ReadingSettings
from plumbob.configs.settings.stewardship.data_checks import DataCheckSettings
from plumbob.console.cli import main
from plumbob.data.audit.data_report import report_files
from plumbob.rollout.journal import JournalRow, write_step

STATUS = {
    **{"time": 1.0, "stage": "ppo", "step": 1, "num_steps": 2, "metrics": {"reward": 1.0}, "seconds": {"learn": 1.0}},
    **{"last_message": "", "workers": {"rollout": [{"worker": "r", "host": "h", "state": "idle", "answers": 3}]}},
    **{"rollout": None, "least": [], "autoscale": None, "workers_lost": 0},
    "answers": {
        "versions": {"0": {"issued": 1, "finished": 1, "scored": 1, "trained": 1, "dropped": {}}},
        "reissued": 0,
    },
}
STEP = {"stage": "ppo", "step": 1, "num_steps": 2, "metrics": {"reward": 1.0}, "seconds": {"learn": 1.0}, "time": 1.0}
SUMMARY = {
    **{"name": "run", "kind": "online", "seed": 0, "seconds_total": 2.0},
    "stages": {"ppo": {"reward": 1.0, "seconds": 2.0, "peak_memory_gib": 1.0, "notes": ["a"], "monitors": []}},
}
SAMPLE = {"prompt": "q", "answers": {"policy": {"text": "a", "reward": 1.0}}}
TEXTS = {
    "resolved.json": json.dumps({"config": {"kind": "online", "name": "run", "seed": 0}}),
    "summary.json": json.dumps(SUMMARY),
    "status.json": json.dumps(STATUS),
    "samples.jsonl": json.dumps(SAMPLE) + "\n",
    "metrics.jsonl": json.dumps(STEP) + "\n" + json.dumps(STEP | {"step": 2}) + "\n",
    "cluster.json": json.dumps({"address": "127.0.0.1:1", "name": "run", "token": "t"}),
    "inputs.json": json.dumps({"data.prompts=/data/prompts.jsonl": "0123456789abcdef"}),
    "models.json": json.dumps({"/models/policy": {"config.json": "0123", "model.safetensors": "4567"}}),
}
DATA_REPORT, JOURNAL = "data_report.json", "rollouts/step-000001.parquet"
FILES = (*TEXTS, DATA_REPORT, JOURNAL)
RESPONSE = JournalRow(
    **{
        "position": 0,
        "prompt_id": "p1",
        "group_id": "g1",
        "sample_index": 0,
        "seed": 1,
        "prompt": "q",
        "response": "a",
    },
    **{"prompt_ids": np.array([5], np.int32), "token_ids": np.array([9, 1], np.int32)},
    **{name: np.array([-0.1, -2.5], np.float32) for name in ("logprobs", "ref_logprobs", "values")},
    **{"rewards": {"model": 1.25}, "score": 1.25, "dropped": None, "versions": np.array([0, 0], np.int32)},
    **{"action_mask": np.array([True, True]), "finish_reason": "stop", "worker": "rollout-0"},
)
DAMAGES = [
    b"",
    b"\n",
    b"[]\n",
    b"3\n",
    b"null\n",
    b'"a"\n',
    b"{}\n",
    b"\xff\xfe\n",
    b'{"a":' * 5000 + b"\n",
    b"\0" * 99,
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Name -> content of all that `status` and `report` read, the last two as a run writes them."""
    made = tmp_path_factory.mktemp("whole")
    pairs = made / "pairs.jsonl"
    pairs.write_text(json.dumps({"prompt": "q", "chosen": "a", "rejected": "b"}) + "\n")
    report = report_files([str(pairs)], [], DataCheckSettings(), ReadingSettings())
    journal = write_step(made, 1, [RESPONSE]).read_bytes()
    texts = TEXTS | {DATA_REPORT: json.dumps(report.as_dict())}
    return {name: text.encode() for name, text in texts.items()} | {JOURNAL: journal}


@pytest.fixture
def folder(tmp_path: Path, whole: dict[str, bytes]) -> Path:
    (tmp_path / JOURNAL).parent.mkdir()
    for name, content in whole.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "cluster.json").unlink()
    return tmp_path


def cut(value: object, path: tuple[object, ...] = ()) -> Iterator[object]:
    """The value with each of its parts, in turn, replaced by another type."""
    yield from (None, 3, "x", [], {}, [3], {"x": 3}, -1e308)
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        for changed in cut(part):
            copy = value.copy()  # type: ignore[attr-defined]
            copy[key] = changed
            yield copy


def check(command: str, folder: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It works, or names the damaged file in one message."""
    status = main([command, str(folder)])
    told = capsys.readouterr()
    assert status in (0, 2)
    if status == 2:
        assert told.err.startswith(f"plumbob: {folder}") and name in told.err and len(told.err) < 2000, told.err


def changes(content: bytes) -> Iterator[object]:
    """`cut` of a file's first line; of a large one every seventh, which meets each of the eight types as well."""
    yield from itertools.islice(cut(json.loads(content.splitlines()[0])), None, None, 7 if len(content) > 500 else 1)


def damaged(content: bytes) -> Iterator[bytes]:
    """Another thing, a part of it, or one byte of it changed."""
    yield from DAMAGES
    for place in range(0, len(content), max(17, len(content) // 60)):
        yield content[:place]
        yield content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("command", ["status", "report"])
def test_a_file_that_holds_another_thing(
    folder: Path, whole: dict[str, bytes], name: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, str(folder)]) == 0
    for content in damaged(whole[name]):
        if name == "cluster.json" and content[-1:] == b"}":
            continue
        (folder / name).write_bytes(content)
        check(command, folder, name, capsys)


@pytest.mark.parametrize("name", [name for name in FILES if name not in ("cluster.json", JOURNAL)])
def test_values_of_other_types(
    folder: Path, whole: dict[str, bytes], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = "status" if name == "status.json" else "report"
    for changed in changes(whole[name]):
        (folder / name).write_text(json.dumps(changed) + "\n")
        check(command, folder, name, capsys)


def test_a_report_that_cannot_be_written_is_one_message(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "report.html.partial").mkdir()  # In the way, for root too.
    assert main(["report", str(folder)]) == 2
    assert capsys.readouterr().err == (
        f"plumbob: {folder}/report.html: cannot be written: [Errno 21] Is a directory: "
        f"'{folder}/report.html.partial'; make room there, or copy the run to where you may write\n"
    )


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("command", ["status", "report", "resume"])
@pytest.mark.parametrize("closed", [".", "..", "resolved.json", "summary.json", "status.json", "metrics.jsonl"])
def test_what_another_user_may_not_read(folder: Path, command: str, closed: str) -> None:
    run = Path(shutil.copytree(folder, folder / "outer" / "run", ignore=shutil.ignore_patterns("outer")))
    for path in run.parents[: len(run.parents) - 1]:
        path.chmod(path.stat().st_mode | 0o755)
    (run / closed).chmod(0o700 if "." in closed[:1] else 0o600)
    child = os.fork()
    if not child:
        os.setgid(65534)
        os.setuid(65534)
        try:
            status = main([command, str(run)])
        except BaseException:
            status = 99
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) in (0, 1, 2)
