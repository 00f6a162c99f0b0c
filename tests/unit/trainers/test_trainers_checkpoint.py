"""Checkpoints are whole or absent, and `latest` names a whole one."""

from pathlib import Path

import pytest

from configs.errors import RunFailed
from trainers.checkpoint import LATEST_FILE, STATE_FILE, Checkpoints, read_checkpoint, replace_text


def write(text: str):  # type: ignore[no-untyped-def]
    def into(folder: Path) -> None:
        (folder / "weights.bin").write_text(text)

    return into


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_committed_comes_back(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    assert checkpoints.newest() is None
    folder = checkpoints.commit(3, write("three"), {"cursor": {"position": 7}, "kl_coefficient": 0.1})
    found = checkpoints.newest()
    assert found is not None
    assert (found.folder, found.step) == (folder, 3)
    assert found.state == {"cursor": {"position": 7}, "kl_coefficient": 0.1}
    assert (folder / "weights.bin").read_text() == "three"


def test_the_newest_stay_and_latest_names_the_last(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (1, 2, 10):
        checkpoints.commit(step, write(str(step)), {})
    assert names(tmp_path) == [LATEST_FILE, "step-000002", "step-000010"]
    assert (tmp_path / LATEST_FILE).read_text() == "step-000010\n"


def test_the_protected_one_stays_until_another_is(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=1)
    for step, protected in ((1, 1), (2, 1), (3, 1), (4, 4), (5, 4)):
        checkpoints.commit(step, write(str(step)), {}, protected)
        assert names(tmp_path)[1:] == [f"step-{kept:06d}" for kept in sorted({protected, step})]
    assert (checkpoints.at(4).folder / "weights.bin").read_text() == "4"
    (tmp_path / "step-000004/weights.bin").unlink()
    with pytest.raises(RunFailed, match="step-000004: this checkpoint is missing or damaged"):
        checkpoints.at(4)


def test_a_write_that_raises_leaves_the_old_one(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.commit(1, write("one"), {})

    def torn(folder: Path) -> None:
        (folder / "weights.bin").write_text("half")
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        checkpoints.commit(2, torn, {})
    found = checkpoints.newest()
    assert found is not None and found.step == 1
    assert (tmp_path / LATEST_FILE).read_text() == "step-000001\n"
    # What the failed attempt left does not get into the next.
    checkpoints.commit(2, lambda folder: (folder / "other").touch(), {})
    assert names(tmp_path / "step-000002") == ["other", STATE_FILE]
    assert names(tmp_path) == [LATEST_FILE, "step-000002"]


@pytest.mark.parametrize("damage", ["short file", "no file", "no state", "half a state"])
def test_a_torn_folder_is_passed_over(tmp_path: Path, damage: str) -> None:
    checkpoints = Checkpoints(tmp_path, keep=3)
    checkpoints.commit(1, write("one"), {})
    torn = checkpoints.commit(2, write("two"), {})
    match damage:
        case "short file":
            (torn / "weights.bin").write_text("t")
        case "no file":
            (torn / "weights.bin").unlink()
        case "no state":
            (torn / STATE_FILE).unlink()
        case _:
            (torn / STATE_FILE).write_text((torn / STATE_FILE).read_text()[:20])
    assert read_checkpoint(torn) is None
    found = checkpoints.newest()
    assert found is not None and found.step == 1


def test_a_step_made_again_replaces_the_old_one(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.commit(1, write("first"), {"try": 1})
    folder = checkpoints.commit(1, write("second"), {"try": 2})
    found = checkpoints.newest()
    assert found is not None and found.state == {"try": 2} and (folder / "weights.bin").read_text() == "second"


def test_a_small_file_is_replaced_whole(tmp_path: Path) -> None:
    replace_text(tmp_path / "latest", "old\n")
    replace_text(tmp_path / "latest", "new\n")
    assert names(tmp_path) == ["latest"] and (tmp_path / "latest").read_text() == "new\n"
