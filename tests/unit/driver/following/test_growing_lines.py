"""A file that another process appends to."""

from pathlib import Path

from plumbob.driver.following.growing_lines import GrowingLines


def test_it_begins_with_the_last_line_and_gives_each_new_one_once(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    lines = GrowingLines(path)
    assert lines.new() == []
    path.write_text('{"step": 1}\n{"step": 2}\n')
    assert lines.new() == [{"step": 2}]
    with path.open("a") as file:
        file.write('{"step": 3}\n{"step"')
        file.flush()
        assert lines.new() == [{"step": 3}]
        file.write(": 4}\nno JSON\n[5]\n")
        file.flush()
        assert lines.new() == [{"step": 4}]
    assert lines.new() == []


def test_a_file_that_was_written_anew_with_the_same_lines_continues(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text('{"step": 1}\n')
    lines = GrowingLines(path)
    assert lines.new() == [{"step": 1}]
    (tmp_path / "anew").write_text('{"step": 1}\n{"step": 2}\n')
    (tmp_path / "anew").replace(path)
    assert lines.new() == [{"step": 2}]


def test_a_file_that_was_cut_back_begins_again_with_its_last_line(tmp_path: Path) -> None:
    """Steps 3 and 4 are dropped and made again, otherwise."""
    path = tmp_path / "lines.jsonl"
    path.write_text("".join(f'{{"step": {step}}}\n' for step in (1, 2, 3, 4)))
    lines = GrowingLines(path)
    assert lines.new() == [{"step": 4}]
    path.write_text('{"step": 1}\n{"step": 2}\n')
    assert lines.new() == [{"step": 2}]
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3, "kl": 1}\n{"step": 4, "kl": 2}\n')
    assert lines.new() == [{"step": 3, "kl": 1}, {"step": 4, "kl": 2}]


def test_a_line_without_an_end_waits(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text('{"step": 1}')
    lines = GrowingLines(path)
    assert lines.new() == []
    path.write_text('{"step": 1}\n')
    assert lines.new() == [{"step": 1}]
