"""What `plumbob doctor` looks at."""

import json

import pytest

from plumbob.console.cli import main
from plumbob.console.commands import doctor
from plumbob.console.diagnosis.machine_check import MachineCheck


@pytest.fixture(autouse=True)
def no_engine_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """test_engines.py starts some."""
    monkeypatch.setattr(doctor, "engine_checks", lambda deep: [MachineCheck("ray works", not deep, "so", "do this")])


def test_everything_is_looked_at_and_every_problem_has_its_advice() -> None:
    checks = list(doctor.examine())
    names = {"python", "torch", "ray", "deepspeed", "peft", "vllm", "device", "memory", "shared memory", "disk"}
    assert names | {"cpu", "ports", "matrix products", "ray works"} <= {check.name for check in checks}
    assert all(check.ok or check.advice for check in checks)


def test_an_engine_that_fails_is_a_problem_in_the_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json", "--deep"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert not found["ok"]
    assert found["checks"][-1] == {
        **{"name": "ray works", "ok": False, "found": "so", "advice": "do this", "seconds": None}
    }
