"""`status` and `report` of run folders whose files were damaged, one after the other."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from plumbob.console.cli import main

STATUS = {
    **{"time": 1.0, "stage": "ppo", "step": 1, "num_steps": 2, "metrics": {"reward": 1.0}, "seconds": {"learn": 1.0}},
    **{"last_message": "", "workers": {"rollout": [{"worker": "r", "host": "h", "state": "idle", "answers": 3}]}},
    **{"rollout": None, "least": [], "autoscale": None, "workers_lost": 0},
    "answers": {"versions": {"0": {"issued": 1, "finished": 1, "scored": 1, "trained": 1, "dropped": {}}}},
}
STEP = {"stage": "ppo", "step": 1, "num_steps": 2, "metrics": {"reward": 1.0}, "seconds": {"learn": 1.0}, "time": 1.0}
SUMMARY = {
    **{"name": "run", "kind": "ppo", "seed": 0, "seconds_total": 2.0},
    "stages": {"ppo": {"reward": 1.0, "seconds": 2.0, "peak_memory_gib": 1.0, "notes": ["a"], "monitors": []}},
}
SAMPLE = {"prompt": "q", "answers": {"policy": {"text": "a", "reward": 1.0}}}
FILES = {
    "resolved.json": json.dumps({"config": {"kind": "ppo", "name": "run", "seed": 0}}),
    "summary.json": json.dumps(SUMMARY),
    "status.json": json.dumps(STATUS),
    "samples.jsonl": json.dumps(SAMPLE) + "\n",
    "metrics.jsonl": json.dumps(STEP) + "\n" + json.dumps(STEP | {"step": 2}) + "\n",
    "cluster.json": json.dumps({"address": "127.0.0.1:1", "name": "run", "token": "t"}),
}
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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        (tmp_path / name).write_text(content)
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


def check(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    status = main(arguments)
    told = capsys.readouterr()
    assert status in (0, 2)
    if status == 2:
        assert told.err.startswith("plumbob: ") and len(told.err) < 2000, told.err


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("command", ["status", "report"])
def test_a_file_that_holds_another_thing(
    folder: Path, name: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    check([command, str(folder)], capsys)
    for content in (*DAMAGES, *(FILES[name].encode()[:size] for size in range(0, len(FILES[name]), 17))):
        if name == "cluster.json" and content[-1:] == b"}":
            continue
        (folder / name).write_bytes(content)
        check([command, str(folder)], capsys)


@pytest.mark.parametrize("name", ["summary.json", "status.json", "samples.jsonl", "metrics.jsonl", "resolved.json"])
def test_values_of_other_types(folder: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = "status" if name == "status.json" else "report"
    first = json.loads(FILES[name].splitlines()[0])
    for changed in cut(first):
        (folder / name).write_text(json.dumps(changed) + "\n")
        check([command, str(folder)], capsys)


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
