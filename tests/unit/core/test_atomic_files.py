"""A folder is replaced whole or not at all, whenever its writer dies; a file is on the disk before it has its name."""

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from plumbob.configs.resolved_copy import write_resolved
from plumbob.configs.runs import EvalRun
from plumbob.configs.settings.data import EvalDataSettings
from plumbob.configs.settings.rewards import ScorerSettings
from plumbob.core.atomic_files import flush_all, replaced, write_atomically
from tests.support.disk_calls import record_disk_calls
from tests.support.folder_names import names

FILES = ("a/config.json", "model.bin", "tokenizer.json")


def fill(folder: Path, text: str) -> None:
    for name in FILES:
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_text(text)


def export(folder: Path, text: str) -> None:
    with replaced(folder) as partial:
        fill(partial, text)
        flush_all(partial)


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def die(*_: Any, **__: Any) -> NoReturn:
    os._exit(9)


def killed_at(call: str, count: int) -> Callable[[Path], None]:
    """A writer of "new" that dies instead of making this call for the `count`th time."""

    def write(folder: Path) -> None:
        real, calls = getattr(os, call), []

        def counted(*arguments: Any, **options: Any) -> Any:
            calls.append(arguments)
            return die() if len(calls) == count else real(*arguments, **options)

        setattr(os, call, counted)
        export(folder, "new")

    return write


DEATHS = {
    "before it begins": ("mkdir", 1),
    "with nothing in it": ("mkdir", 2),
    "while it is flushed": ("fsync", 2),
    "before the old one goes": ("rename", 1),
    "between the two": ("rename", 2),
    "before the folder is flushed": ("fsync", 6),
}


@pytest.mark.parametrize("had_one", [True, False])
@pytest.mark.parametrize("death", DEATHS)
def test_a_death_leaves_the_old_the_new_or_none(tmp_path: Path, death: str, had_one: bool) -> None:
    folder = tmp_path / "policy"
    if had_one:
        export(folder, "old")
    process = multiprocessing.get_context("fork").Process(target=killed_at(*DEATHS[death]), args=(folder,))
    process.start()
    process.join(60)
    assert process.exitcode == 9
    wholes = [dict.fromkeys(FILES, text) for text in ("old", "new")]
    assert not folder.exists() or contents(folder) in wholes
    # What it left goes with the next.
    export(folder, "next")
    assert names(tmp_path) == ["policy"] and contents(folder) == dict.fromkeys(FILES, "next")


def test_an_error_leaves_the_old_one(tmp_path: Path) -> None:
    folder = tmp_path / "policy"
    export(folder, "old")
    with pytest.raises(OSError, match="no space"), replaced(folder) as partial:
        (partial / "model.bin").write_text("half")
        raise OSError("no space")
    assert names(tmp_path) == ["policy"] and contents(folder) == dict.fromkeys(FILES, "old")


@pytest.mark.parametrize("makes_it_again", [True, False])
def test_a_writer_that_was_given_up_does_not_replace_what_came_after_it(tmp_path: Path, makes_it_again: bool) -> None:
    """Libraries make the folder that they save into: the first half is gone then."""
    folder = tmp_path / "policy"
    with pytest.raises(FileNotFoundError), replaced(folder) as partial:
        (partial / "model.bin").write_text("given up")
        export(folder, "new")
        assert not partial.exists()
        if makes_it_again:
            partial.mkdir()
            (partial / "tokenizer.json").write_text("given up")
    assert names(tmp_path) == ["policy"] and contents(folder) == dict.fromkeys(FILES, "new")


def test_a_writer_that_is_overtaken_at_the_end_puts_the_old_one_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "policy"
    export(folder, "old")
    rename = os.rename

    def overtaken(source: Path, target: Path) -> None:
        if target == folder and source.name.endswith(".partial") and (source / "half").exists():
            raise FileNotFoundError(source)
        rename(source, target)

    monkeypatch.setattr(os, "rename", overtaken)
    with pytest.raises(FileNotFoundError), replaced(folder) as partial:
        (partial / "half").touch()
    assert names(tmp_path) == ["policy"] and contents(folder) == dict.fromkeys(FILES, "old")


def test_a_small_file_is_flushed_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, path = record_disk_calls(monkeypatch), tmp_path / "latest"
    write_atomically(path, "old\n")
    write_atomically(path, "new\n")
    assert names(tmp_path) == ["latest"] and path.read_text() == "new\n"
    assert calls == [("fsync", ".latest.partial"), ("replace", "latest")] * 2


def test_a_folder_is_flushed_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = record_disk_calls(monkeypatch)
    export(tmp_path / "policy", "new")
    *before, named, last = calls
    assert {"a", "config.json", "model.bin", "tokenizer.json"} < {name for call, name in before if call == "fsync"}
    assert (named, last) == (("rename", "policy"), ("fsync", tmp_path.name))


def test_the_settings_of_a_run_are_flushed_before_they_replace_those_it_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, calls = (
        EvalRun(data=EvalDataSettings(pairs="/p"), reward=ScorerSettings(model="/m")),
        record_disk_calls(monkeypatch),
    )
    write_resolved(run, tmp_path)
    write_resolved(run, tmp_path)
    assert calls == [("fsync", ".resolved.json.partial"), ("replace", "resolved.json")] * 2
    assert names(tmp_path) == ["resolved.json"]
