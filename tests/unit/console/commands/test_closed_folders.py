"""What lies below a folder that a user may not enter: one message, for any user but root."""

import json
import os
import sys
from pathlib import Path

import pytest

from plumbob.console.cli import main
from tests.support.tiny_policy import write_policy

NOBODY = 65534

MODEL, DATA, STORAGE = (
    "policy.model={closed}/model",
    "data.demonstrations={closed}/rows.jsonl",
    "storage.path={closed}/runs",
)
COMMANDS = {
    "plan, the model": ["plan", "sft", MODEL, "data.demonstrations={rows}", "storage.path={runs}"],
    "plan, the data": ["plan", "sft", "policy.model={base}", DATA, "storage.path={runs}"],
    "plan, the storage": ["plan", "sft", "policy.model={base}", "data.demonstrations={rows}", STORAGE],
    "run, the model": ["run", "sft", MODEL, "data.demonstrations={rows}", "storage.path={runs}"],
    "run, its settings": ["run", "{closed}/mine.yaml", "storage.path={runs}"],
    "eval, the policy": ["eval", MODEL, "reward.model={closed}/reward", "data.prompts={rows}", "storage.path={runs}"],
    "submit, the model": [
        "submit",
        "sft",
        MODEL,
        "data.demonstrations={rows}",
        "storage.path={runs}",
        "--render=slurm",
    ],
    "submit, the storage": [
        *("submit", "sft", "name=a", "policy.model={base}", "data.demonstrations={rows}", STORAGE, "--render=slurm")
    ],
}


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("asked", COMMANDS.values(), ids=COMMANDS)
def test_it_is_one_message(asked: list[str], tmp_path: Path) -> None:
    base = Path(write_policy(tmp_path / "base"))
    base.chmod(0o755)
    for path in base.iterdir():
        path.chmod(0o644)
    closed, runs, rows = tmp_path / "closed", tmp_path / "runs", tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"prompt": "a", "response": "b"}) + "\n")
    (closed / "model").mkdir(parents=True)
    runs.mkdir(mode=0o777)
    runs.chmod(0o777)
    for path in (tmp_path, *list(tmp_path.parents)[:-1]):
        path.chmod(path.stat().st_mode | 0o755)
    closed.chmod(0o700)
    arguments = [each.format(closed=closed, runs=runs, rows=rows, base=base) for each in asked]
    main(arguments)  # As root it fails at what is not there; what it imports may lie where others may not read.
    written = tmp_path / "written"
    child = os.fork()
    if not child:
        sys.stdout = sys.stderr = written.open("w")
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        try:
            status = main(arguments)
        except BaseException:
            status = 99
        sys.stdout.flush()
        os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    message = written.read_text()
    assert status == 2, message
    assert "Traceback" not in message and str(closed) in message
    assert "ermission denied" in message or "may not" in message or "right to" in message, message
