"""What a process with code of the user's sees of a run, and how it begins."""

import subprocess

import pytest

from plumbob.core.errors import UserError
from plumbob.core.programs.process_environment import command_of, kept_environment


def test_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"HF_TOKEN": "secret", "LC_TIME": "C", "TZ": "UTC", "MY_KEY": "mine"}.items():
        monkeypatch.setenv(name, value)
    found = kept_environment("function=a.py:f", "environment", ())
    assert (found["LC_TIME"], found["TZ"]) == ("C", "UTC") and not {"HF_TOKEN", "MY_KEY"} & set(found)
    assert kept_environment("function=a.py:f", "environment", ("MY_KEY",))["MY_KEY"] == "mine"


def test_a_variable_that_is_not_set_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(UserError, match=r"environment\.source=a\.py:W: variables has MY_KEY, which is not set here"):
        kept_environment("environment.source=a.py:W", "variables", ("MY_KEY",))


def test_a_program_begins_with_nothing_of_ours_in_its_way() -> None:
    """Its path is as that of any Python process, and what is imported is the standard library's."""
    *command, program = command_of("plumbob.core.process_ends.after_death")
    assert command[-1] == "-c" and program.endswith("import main; sys.path.pop(); main()")
    shown = program.replace(
        "main()", "print(sys.path); print(sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    path, modules = subprocess.run([*command, shown], capture_output=True, text=True, check=True).stdout.splitlines()
    plain = subprocess.run([*command, "import sys; print(sys.path)"], capture_output=True, text=True, check=True)
    assert path == plain.stdout.strip()
    assert not {"numpy", "torch", "pydantic", "ray"} & set(eval(modules))
