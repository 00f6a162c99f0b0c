"""A run's folder: whether it can be written is told at once, and a mistake found late leaves its name free."""

from pathlib import Path

import pytest

from plumbob.core.errors import RunFailed, RunPreempted, RunStopped, UserError
from plumbob.driver.run_folder.folder import check_writable, removed_if_nothing_computed


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_folder_that_can_be_made_is_not_made(tmp_path: Path) -> None:
    check_writable(tmp_path / "runs" / "new")
    assert everything(tmp_path) == []


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "runs" / "new"):
        with pytest.raises(UserError, match=rf"storage\.path: {folder} cannot be written: Not a directory; set stor"):
            check_writable(folder)


def test_a_file_system_that_takes_no_files() -> None:
    with pytest.raises(UserError, match=r"storage\.path: /proc/runs/new cannot be written: "):
        check_writable(Path("/proc/runs/new"))


def write(folder: Path, **content: str) -> None:
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    (folder / "logs" / "learner-0.log").write_text("loading")
    (folder / "resolved.json").write_text("{}")
    (folder / "metrics.jsonl").write_text("")
    for name, text in content.items():
        (folder / f"{name}.jsonl").write_text(text)


def test_a_user_error_leaves_nothing_of_its_own_behind(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "new"
    with pytest.raises(UserError), removed_if_nothing_computed(folder):
        write(folder)
        raise UserError("a mistake")
    assert everything(tmp_path) == []
    folder.mkdir(parents=True)
    (folder / "mine.txt").write_text("mine")
    with pytest.raises(UserError), removed_if_nothing_computed(folder):
        write(folder)
        raise UserError("a mistake")
    assert everything(tmp_path) == ["runs", "runs/new", "runs/new/mine.txt"]


@pytest.mark.parametrize("ends", [RunPreempted("SIGTERM"), RunStopped("asked to"), KeyboardInterrupt()])
def test_a_boot_that_is_ended_leaves_the_name_free(tmp_path: Path, ends: BaseException) -> None:
    with pytest.raises(type(ends)), removed_if_nothing_computed(tmp_path / "runs" / "new"):
        write(tmp_path / "runs" / "new")
        raise ends
    assert everything(tmp_path) == []
    with pytest.raises(type(ends)), removed_if_nothing_computed(tmp_path / "computed"):
        write(tmp_path / "computed", metrics="{}\n")
        raise ends
    assert everything(tmp_path / "computed") == ["logs", "logs/learner-0.log", "metrics.jsonl", "resolved.json"]


def test_what_was_computed_stays_whatever_is_reported_later(tmp_path: Path) -> None:
    with pytest.raises(UserError), removed_if_nothing_computed(tmp_path / "computed"):
        write(tmp_path / "computed", metrics="{}\n")
        raise UserError("a mistake")
    with removed_if_nothing_computed(tmp_path / "good"):
        write(tmp_path / "good")
    for name in ("computed", "good"):
        assert everything(tmp_path / name) == ["logs", "logs/learner-0.log", "metrics.jsonl", "resolved.json"]


@pytest.mark.parametrize("fails", [RunFailed("a worker died"), OSError(28, "no space"), RuntimeError("Ray did")])
def test_a_failed_start_leaves_its_name_free_and_what_tells_why(tmp_path: Path, fails: Exception) -> None:
    for _ in range(2):  # And so does another try.
        with pytest.raises(type(fails)), removed_if_nothing_computed(tmp_path / "failed"):
            write(tmp_path / "failed", events="{}\n")
            (tmp_path / "failed/driver.log").write_text("a worker died")
            (tmp_path / "failed/data").mkdir()
            raise fails
        assert everything(tmp_path / "failed") == ["driver.log", "events.jsonl", "logs", "logs/learner-0.log"]
    with pytest.raises(type(fails)), removed_if_nothing_computed(tmp_path / "computed"):
        write(tmp_path / "computed", metrics="{}\n")
        raise fails
    assert everything(tmp_path / "computed") == ["logs", "logs/learner-0.log", "metrics.jsonl", "resolved.json"]
