"""Tab, in the shells that are on this machine: what the script of `plumbob completion` makes of a line so far."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from plumbob.console.cli import main

PRESSED = """
source "$1"
COMP_LINE=$2 COMP_POINT=${#2}
read -ra COMP_WORDS <<< "$2"
[[ $2 == *" " ]] && COMP_WORDS+=("")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMP_TYPE=9 COMP_KEY=9
handler=$(complete -p plumbob | sed 's/.*-F \\([^ ]*\\).*/\\1/')
$handler plumbob "${COMP_WORDS[COMP_CWORD]}" ""
printf '%s\\n' "${COMPREPLY[@]}"
"""
"""What bash does when Tab is pressed behind the line `$2`, with the script in the file `$1`."""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "plumbob.bash"
    command = [sys.executable, "-m", "plumbob.console.cli", "completion", "bash"]
    path.write_text(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the line is typed, with a run and a file of settings."""
    (tmp_path / "runs/align").mkdir(parents=True)
    (tmp_path / "runs/align/resolved.json").write_text("{}")
    (tmp_path / "mine.yaml").write_text("kind: kto\n")
    return tmp_path


def completed(script: Path, line: str, folder: Path) -> list[str]:
    """The words that bash would offer behind `line`, without the space that follows the only one."""
    binaries = Path(sys.executable).parent  # Whose `plumbob` the script calls.
    environment = {**os.environ, "PATH": f"{binaries}:{os.environ['PATH']}"}
    command = ["bash", "--norc", "-c", PRESSED, "bash", str(script), line]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, timeout=60)
    assert done.stderr == ""
    return [word.rstrip() for word in done.stdout.splitlines() if word.strip()]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("plumbob comp", ["compare", "compare-methods", "completion"]),
        ("plumbob runs ", ["compare", "list", "rm"]),
        ("plumbob run --tr", ["--trace"]),
        ("plumbob run smollm2-", ["smollm2-cpu", "smollm2-instructions"]),
        ("plumbob plan mi", ["mine.yaml"]),
        ("plumbob run dpo dpo.loss.l", ["dpo.loss.likelihood="]),
        ("plumbob run mine.yaml kto.desirable", ["kto.desirable_weight="]),
        ("plumbob status al", ["align"]),
        ("plumbob completion ", ["bash", "fish", "zsh"]),
    ],
)
def test_bash_completes_commands_options_presets_settings_and_runs(
    line: str, words: list[str], script: Path, folder: Path
) -> None:
    assert sorted(completed(script, line, folder)) == words


def test_behind_the_equals_sign_bash_offers_what_a_choice_may_be(script: Path, folder: Path) -> None:
    """To bash the equals sign ends a word, so that only what is behind it is offered."""
    assert sorted(completed(script, "plumbob run dpo learner.offload_optimizer=", folder)) == ["cpu", "none"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_script_is_one_that_its_shell_can_read(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    printed = capsys.readouterr().out
    assert "plumbob" in printed
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=printed, text=True, check=True)


def test_a_person_is_told_where_the_script_belongs() -> None:
    with pytest.raises(SystemExit):
        main(["completion"])
