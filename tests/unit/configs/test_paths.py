"""What can be told of a model by its name, before it is opened and perhaps on another host than the run's."""

from pathlib import Path

import pytest

from plumbob.configs.paths import may_be_adapter


def test_an_adapter_is_told_by_peft_s_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, file in (("adapter", "adapter_config.json"), ("full", "config.json")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert may_be_adapter("adapter") and may_be_adapter(str(tmp_path / "adapter"))
    assert not may_be_adapter("full") and not may_be_adapter(str(tmp_path / "full"))


def test_what_is_not_here_may_be_one_unless_it_is_a_hub_s() -> None:
    """A job that is submitted names folders of the cluster."""
    assert may_be_adapter("/shared/models/policy") and may_be_adapter("package:models/policy")
    assert not may_be_adapter("team/model")
