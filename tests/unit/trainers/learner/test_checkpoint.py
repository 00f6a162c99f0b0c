"""Checkpoints are whole or absent, `latest` names a whole one, and a damaged one is passed over aloud."""

from collections.abc import Callable
from pathlib import Path

import pytest

from plumbob.core.disk_errors import replace_text
from plumbob.core.errors import RunFailed
from plumbob.trainers.learner.checkpoint import LATEST_FILE, STATE_FILE, Checkpoint, Checkpoints, Files, Write, on_disk
from tests.support.disk_calls import record_disk_calls
from tests.support.folder_names import names


def write(text: str) -> Write:
    def into(folder: Path) -> Files:
        (folder / "weights.bin").write_text(text)
        return on_disk(folder, ["weights.bin"])

    return into


def whole(checkpoints: Checkpoints) -> Checkpoint | None:
    """The newest, which is not damaged."""
    return checkpoints.newest(pytest.fail)


def test_what_is_committed_comes_back(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    assert whole(checkpoints) is None
    state = {"cursor": {"position": 7}, "kl_coefficient": 0.1, "issued": {2: 5, 10: 1}}
    folder = checkpoints.commit(3, write("three"), state).folder
    found = whole(checkpoints)
    assert found is not None
    assert (found.folder, found.step) == (folder, 3)
    # JSON has no keys but text.
    assert found.state == {"cursor": {"position": 7}, "kl_coefficient": 0.1, "issued": {"2": 5, "10": 1}}
    assert (folder / "weights.bin").read_text() == "three"


def test_a_checkpoint_is_on_the_disk_before_anything_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = record_disk_calls(monkeypatch)
    Checkpoints(tmp_path / "checkpoints", keep=2).commit(1, write("one"), {})
    partial = calls[2][1]
    assert partial.startswith(".step-000001.")
    made = [call for call in calls if call[0] != "rename" or call[1][0] != "."]  # No earlier one had to make way.
    assert made == [
        *(("fsync", tmp_path.name), ("fsync", "weights.bin"), ("fsync", partial)),
        *(("fsync", "state.json"), ("fsync", partial)),
        *(("rename", "step-000001"), ("fsync", "checkpoints")),
        *(("fsync", ".latest.partial"), ("replace", "latest")),
    ]


def test_the_newest_stay_and_latest_names_the_last(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (1, 2, 10):
        checkpoints.commit(step, write(str(step)), {})
    assert names(tmp_path) == [LATEST_FILE, "step-000002", "step-000010"]
    assert (tmp_path / LATEST_FILE).read_text() == "step-000010\n"


def test_steps_past_a_million_are_newer_than_those_before(tmp_path: Path) -> None:
    """By name, step-1000001 stands before step-999999."""
    checkpoints = Checkpoints(tmp_path, keep=2)
    (tmp_path / "step-of-mine").mkdir()
    for step in (999_998, 999_999, 1_000_000, 1_000_001):
        checkpoints.commit(step, write(str(step)), {})
    assert names(tmp_path) == [LATEST_FILE, "step-1000000", "step-1000001", "step-of-mine"]
    found = whole(checkpoints)
    assert found is not None and found.step == 1_000_001
    # Step 999,999 is made again, once those after it were passed over.
    checkpoints.commit(999_999, write("again"), {})
    assert names(tmp_path) == [LATEST_FILE, "step-999999", "step-of-mine"]


def test_the_protected_one_stays_until_another_is(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=1)
    for step, protected in ((1, 1), (2, 1), (3, 1), (4, 4), (5, 4)):
        checkpoints.commit(step, write(str(step)), {}, protected)
        assert names(tmp_path)[1:] == [f"step-{kept:06d}" for kept in sorted({protected, step})]
    assert (checkpoints.at(4).folder / "weights.bin").read_text() == "4"
    (tmp_path / "step-000004/weights.bin").unlink()
    with pytest.raises(
        RunFailed, match=r"step-000004 is damaged: weights\.bin: No such file or directory; it holds the result"
    ):
        checkpoints.at(4)


def test_a_write_that_raises_leaves_the_old_one(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.commit(1, write("one"), {})

    def torn(folder: Path) -> Files:
        (folder / "weights.bin").write_text("half")
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        checkpoints.commit(2, torn, {})
    found = whole(checkpoints)
    assert found is not None and found.step == 1
    assert names(tmp_path) == [LATEST_FILE, "step-000001"]
    assert (tmp_path / LATEST_FILE).read_text() == "step-000001\n"
    # What a death left does not get into the next.
    (tmp_path / ".step-000002.0a1b2c3d.partial").mkdir()
    (tmp_path / ".step-000002.0a1b2c3d.partial/weights.bin").write_text("half")
    checkpoints.commit(2, write("two"), {})
    assert (tmp_path / "step-000002/weights.bin").read_text() == "two"
    assert names(tmp_path) == [LATEST_FILE, "step-000002"]


def test_what_was_written_and_cannot_be_seen_is_no_checkpoint(tmp_path: Path) -> None:
    """As where another host wrote it, and this one's listing of the folder is older."""
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.commit(1, write("one"), {})
    with pytest.raises(RunFailed, match=r"weights\.bin was written there and cannot be read by the driver"):
        checkpoints.commit(2, lambda folder: {"weights.bin": {"size": 3, "blake2b": "0"}}, {})

    def seen_in_part(folder: Path) -> Files:
        files = write("two")(folder)
        write("t")(folder)
        return files

    with pytest.raises(RunFailed, match=r"of weights\.bin, 3 bytes were written; the driver sees 1"):
        checkpoints.commit(2, seen_in_part, {})
    found = whole(checkpoints)
    assert found is not None and found.step == 1
    assert names(tmp_path) == [LATEST_FILE, "step-000001"]


def test_a_writer_that_was_given_up_does_not_write_into_a_later_attempt(tmp_path: Path) -> None:
    checkpoints, given_up = Checkpoints(tmp_path, keep=2), []

    def lost(folder: Path) -> Files:
        given_up.append(folder)
        raise RunFailed("its host is gone")

    with pytest.raises(RunFailed, match="gone"):
        checkpoints.commit(1, lost, {})

    def beside_it(folder: Path) -> Files:
        files = write("new")(folder)
        given_up[0].mkdir(exist_ok=True)
        write("old")(given_up[0])
        return files

    assert (checkpoints.commit(1, beside_it, {}).folder / "weights.bin").read_text() == "new"
    assert whole(checkpoints) is not None
    # What it left goes with the next commit.
    checkpoints.commit(2, write("two"), {})
    assert names(tmp_path) == [LATEST_FILE, "step-000001", "step-000002"]


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "short file": (lambda torn: (torn / "weights.bin").write_text("t"), "weights.bin has 1 bytes, 3 were written"),
    "changed file": (
        lambda torn: (torn / "weights.bin").write_text("twp"),
        "weights.bin is not what was written, by its blake2b",
    ),
    "no file": (lambda torn: (torn / "weights.bin").unlink(), "weights.bin: No such file or directory"),
    "no state": (lambda torn: (torn / STATE_FILE).unlink(), "state.json: No such file or directory"),
    "half a state": (
        lambda torn: (torn / STATE_FILE).write_text((torn / STATE_FILE).read_text()[:20]),
        "state.json is not whole",
    ),
    "changed state": (
        lambda torn: (torn / STATE_FILE).write_text((torn / STATE_FILE).read_text().replace("0.25", "0.75")),
        "state.json is not what was written",
    ),
    "another state": (lambda torn: (torn / STATE_FILE).write_text('{"step": 2}'), "state.json is not whole"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_one_is_passed_over_and_reported(tmp_path: Path, damage: str) -> None:
    checkpoints = Checkpoints(tmp_path, keep=3)
    checkpoints.commit(1, write("one"), {})
    torn = checkpoints.commit(2, write("two"), {"kl_coefficient": 0.25}).folder
    spoil, reason = DAMAGES[damage]
    spoil(torn)
    heard: list[str] = []
    found = checkpoints.newest(heard.append)
    assert found is not None and found.step == 1
    assert heard == [f"{torn} is damaged: {reason}; going back to step-000001"]


def test_none_that_is_whole_is_no_new_beginning(tmp_path: Path) -> None:
    """What the lines of metrics and the journal tell must not be thrown away unasked."""
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (1, 2):
        (checkpoints.commit(step, write("some"), {}).folder / "weights.bin").unlink()
    with pytest.raises(RunFailed) as failed:
        checkpoints.newest(pytest.fail)
    assert "step-000002 is damaged" in str(failed.value) and "step-000001 is damaged" in str(failed.value)
    assert str(failed.value).endswith(f"no checkpoint is whole; to begin this stage anew, delete {tmp_path}")


def test_damaged_ones_take_no_whole_ones_place(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (10, 20):
        checkpoints.commit(step, write(str(step)), {})
    (tmp_path / "step-000020/weights.bin").unlink()
    # Gone back to step 10; the next commit comes before the damaged one's step.
    checkpoints.commit(15, write("15"), {})
    assert names(tmp_path) == [LATEST_FILE, "step-000010", "step-000015"]


def test_a_step_made_again_replaces_the_old_one(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.commit(1, write("first"), {"try": 1})
    folder = checkpoints.commit(1, write("second"), {"try": 2}).folder
    found = whole(checkpoints)
    assert found is not None and found.state == {"try": 2} and (folder / "weights.bin").read_text() == "second"


def test_a_small_file_is_replaced_whole(tmp_path: Path) -> None:
    replace_text(tmp_path / "latest", "old\n")
    replace_text(tmp_path / "latest", "new\n")
    assert names(tmp_path) == ["latest"] and (tmp_path / "latest").read_text() == "new\n"
