"""`plumbob adapters`: what its commands print, for people and for scripts, and what they refuse."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from plumbob.console.cli import main
from tests.support.libraries import write_adapter, write_sft_run
from tests.support.tiny_policy import write_policy


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_policy(tmp_path_factory.mktemp("base"))


@pytest.fixture
def added(base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """A library with the adapter of a run, and one of which nobody knows anything; the working folder has it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    run = write_sft_run(tmp_path / "runs" / "first", base)
    plain = write_adapter(tmp_path / "plain", base, rank=2)
    (plain / "trainer.bin").write_bytes(b"a pickle")
    assert main(["adapters", "add", "first", "--name", "sums", "--task", "sums in words"]) == 0
    assert main(["adapters", "add", str(plain), "--name", "other"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"adapters/sums: added, from {Path('runs/first/policy')}",
        f"adapters/other: added, from {plain}",
        "left out, being no part of a PEFT folder: trainer.bin",
    ]
    assert run.is_dir()
    return tmp_path / "adapters"


def test_the_table_has_a_line_for_each(added: Path, base: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["adapters", "list"]) == 0
    lines = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    rows = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    assert rows == [
        ["name", "task", "method", "rank", "parameters", "base", "scores"],
        ["other", "unknown", "lora", "2", "8,192", Path(base).name, "unknown"],
        ["sums", "sums in words", "lora", "4", "16,384", Path(base).name, "held-out loss 1.250, accuracy 75.0%"],
    ]
    assert main(["adapters", "list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["library"] == "adapters" and [each["name"] for each in found["adapters"]] == ["other", "sums"]
    assert found["adapters"][0]["task"] == "unknown"


def test_one_is_shown_with_all_that_is_known(added: Path, base: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["adapters", "show", "sums"]) == 0
    shown = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    facts = {name: value.strip() for name, value in shown.items()}
    assert (facts["folder"], facts["task"], facts["method"]) == ("adapters/sums", "sums in words", "lora, rank 4")
    assert (facts["base"], facts["base in few bits"]) == (str(Path(base).resolve()), "no")
    assert facts["data data.demonstrations"].startswith(f"{added.parent}/runs/rows.jsonl (")
    assert (facts["score heldout_loss"], facts["score heldout_accuracy"]) == ("1.250", "0.750")
    assert facts["run"] == f"{added.parent}/runs/first (sft)"
    assert main(["adapters", "show", "other", "--json"]) == 0
    other = json.loads(capsys.readouterr().out)
    assert (other["folder"], other["run"], other["scores"], other["parts"]) == (
        "adapters/other",
        "unknown",
        "unknown",
        {},
    )


def test_one_is_removed_and_an_unknown_one_is_refused(added: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["adapters", "rm", "other"]) == 0
    assert capsys.readouterr().out == "adapters/other: removed\n"
    assert [path.name for path in added.iterdir()] == ["sums"]
    assert main(["adapters", "rm", "other", "--json"]) == 2
    out, err = capsys.readouterr()
    assert "other: no adapter in the library adapters is called that; there are: sums" in json.loads(out)["error"]
    assert err.startswith("plumbob: other: no adapter")


def test_a_moved_base_is_located(
    base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    own = Path(write_policy(tmp_path / "mine"))
    assert main(["adapters", "add", str(write_adapter(tmp_path / "a", str(own))), "--name", "a"]) == 0
    own.rename(tmp_path / "elsewhere")
    (tmp_path / "empty").mkdir()
    capsys.readouterr()
    assert main(["adapters", "locate", "--bases", "empty"]) == 2
    out, err = capsys.readouterr()
    assert out == "a: not found\n" and "a: the base is neither where it was nor below empty; give other --bases" in err
    assert main(["adapters", "locate", "a", "--bases", "empty", "--bases", ".", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"bases": {"a": str(tmp_path / "elsewhere")}}


def test_an_empty_library_says_how_to_fill_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["adapters", "list", "--library", "mine"]) == 0
    assert capsys.readouterr().out == "mine: no adapters; add one: plumbob adapters add RUN --name NAME --task TEXT\n"
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize("arguments", [["adapters"], ["adapters", "burn"], ["adapters", "add", "x"]])
def test_words_that_are_none_end_with_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--json"])
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert err.startswith("usage: plumbob adapters") and json.loads(out)["exit_code"] == 2


def test_the_list_is_printed_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom plumbob.console.cli import main\nmain(['adapters', 'list'])\n"
        "print([name for name in ('torch', 'ray', 'transformers', 'peft') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")
