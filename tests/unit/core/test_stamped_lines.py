"""Lines with the time at which they were begun, from Python and beside what else prints to the same file."""

import re
import subprocess
import sys
import threading
from pathlib import Path

from plumbob.core.stamped_lines import StampedLines

STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z "

PRINTS = """
import os, sys
from pathlib import Path
from plumbob.core.stamped_lines import sent_to
sys.stdout = sys.stderr = sent_to(Path(sys.argv[1]))
print("from Python")
os.write(1, b"from a library\\n")
raise KeyError("the end")
"""


def test_a_line_written_in_pieces_has_one_stamp(tmp_path: Path) -> None:
    with StampedLines(tmp_path / "log") as log:
        log.write("loss")
        log.write(" 2.5\n\nstep 2\nan")
        log.write(" end")
    text = (tmp_path / "log").read_text()
    assert re.fullmatch(f"{STAMP}loss 2.5\n{STAMP}\n{STAMP}step 2\n{STAMP}an end", text)


def test_what_is_printed_in_the_middle_of_a_line_ends_no_thread(tmp_path: Path) -> None:
    """As a finaliser does that the collection of garbage calls."""

    class Interrupted(str):
        def splitlines(self, keepends: bool = False) -> list[str]:
            log.write("a finaliser\n")
            return super().splitlines(keepends)

    with StampedLines(tmp_path / "log") as log:
        writing = threading.Thread(target=log.write, args=(Interrupted("a line\n"),), daemon=True)
        writing.start()
        writing.join(60)
        assert not writing.is_alive()
    text = (tmp_path / "log").read_text()
    assert re.fullmatch(f"{STAMP}a finaliser\n{STAMP}a line\n", text)


def test_what_a_process_prints_until_it_dies_is_in_its_log(tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    log.write_text("of the one before\n")
    ran = subprocess.run([sys.executable, "-c", PRINTS, str(log)], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout, ran.stderr) == (1, "", "")
    lines = log.read_text().splitlines()
    assert lines[0] == "of the one before" and re.fullmatch(f"{STAMP}from Python", lines[1])
    assert lines[2] == "from a library" and re.fullmatch(f"{STAMP}KeyError: 'the end'", lines[-1])


def test_a_full_disk_loses_lines_and_ends_nothing() -> None:
    with StampedLines(Path("/dev/full")) as log:
        assert log.write("never fits\n") == 11
