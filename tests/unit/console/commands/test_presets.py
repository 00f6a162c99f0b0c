"""`plumbob presets`: every preset with what it is for."""

import json

import pytest

from plumbob.configs.load_run import preset_names
from plumbob.console.cli import main
from plumbob.console.commands.presets import purpose


def test_every_preset_is_listed_with_its_purpose(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets", "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert list(about) == preset_names()
    assert about["dpo"] == "DPO with LoRA, on preference pairs of your own"
    assert all(about.values())
    assert main(["presets"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(maxsplit=1) for line in lines] == [list(item) for item in about.items()]


def test_a_purpose_may_take_several_lines_and_ends_before_the_command() -> None:
    assert purpose("# Two\n# lines:\n#   plumbob run it\n# More.\nkind: online\n") == "Two lines"
    assert purpose("kind: online\n") == ""
