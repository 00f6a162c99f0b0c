"""Where a user's function stands, found without running anything of it, and by what its source is known again."""

import hashlib
from pathlib import Path

import pytest

from plumbob.configs.base import IsFunction
from plumbob.configs.schema import marked_texts
from plumbob.configs.settings.programs.reward_programs import FunctionPart
from plumbob.configs.settings.rewards import ScorerSettings
from plumbob.core.errors import UserError
from plumbob.core.programs.function_source import changed_sources, digest_of_source, source_digests, source_file

SOURCE = "raise SystemExit('it was run')"


def test_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_reward.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    assert source_file("my_reward.py:score") == source_file(f"{tmp_path}/my_reward.py:f") == tmp_path / "my_reward.py"
    with pytest.raises(UserError, match=r"function=gone\.py:score: there is no such file on this host"):
        source_file("gone.py:score")


def test_a_module_and_none_of_the_packages_that_it_is_in_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wheels/round").mkdir(parents=True)
    for name in ("wheels/__init__.py", "wheels/round/__init__.py", "wheels/round/spokes.py", "axle.py"):
        (tmp_path / name).write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    for module, file in (
        ("wheels.round.spokes", "wheels/round/spokes.py"),
        ("wheels.round", "wheels/round/__init__.py"),
        ("axle", "axle.py"),
    ):
        assert source_file(f"{module}:score") == tmp_path / file
    for module in ("wheels.square", "wheels.round.spokes.below", "axle.below", "no_such_package", "math"):
        with pytest.raises(
            UserError, match=rf"function={module}:f: no Python source of a module {module} is installed"
        ):
            source_file(f"{module}:f")


def test_the_digest_is_that_of_the_file(tmp_path: Path) -> None:
    one, other = tmp_path / "one.py", tmp_path / "other.py"
    one.write_bytes(b"a = 1")
    other.write_bytes(b"a = 2")
    parts = tuple(FunctionPart(function=f"{file}:f", name=file.stem) for file in (one, other))
    found = source_digests(marked_texts(ScorerSettings(parts=parts), IsFunction))
    assert found == {
        f"{one}:f": hashlib.sha256(b"a = 1").hexdigest(),
        f"{other}:f": hashlib.sha256(b"a = 2").hexdigest(),
    }
    assert digest_of_source(f"{one}:g") == found[f"{one}:f"]
    one.write_bytes(b"a = 3")
    now = source_digests(marked_texts(ScorerSettings(parts=parts), IsFunction))
    assert list(changed_sources(now, found)) == [f"{one}:f"] and list(changed_sources(now, {})) == []
