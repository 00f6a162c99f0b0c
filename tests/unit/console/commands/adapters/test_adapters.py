"""`plumbob adapters`: what its commands print, for people and for scripts, and what they refuse."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from plumbob.configs.settings.tuning.quantization import Nf4Quantization
from plumbob.console.cli import main
from plumbob.models.adapter import load_adapter
from plumbob.models.merging.asked_sum import SUM_KINDS
from plumbob.models.quantization.forms import round_weights
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


def test_a_sum_becomes_an_adapter_and_a_full_model(
    added: Path, base: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    third = write_adapter(tmp_path / "third", base, seed=3)
    assert main(["adapters", "add", str(third), "--name", "third"]) == 0
    capsys.readouterr()
    # What was known of a part is known of the sum, under the part's name; its scores nobody knows.
    merge = ["adapters", "merge", "sums", "third"]
    assert main([*merge, "--weights", "0.75", "-0.25", "--name", "both", "--task", "both"]) == 0
    assert capsys.readouterr().out == "adapters/both: added, sum of 0.75 x sums, -0.25 x third; rank 8\n"
    assert main(["adapters", "show", "both", "--json"]) == 0
    both = json.loads(capsys.readouterr().out)
    assert (both["parts"], both["task"], both["scores"]) == ({"sums": 0.75, "third": -0.25}, "both", "unknown")
    assert list(both["data"]) == ["sums: data.demonstrations"] and both["base"] == str(Path(base).resolve())
    assert main([*merge, "--how", "ties", "--density", "0.5", "--name", "ties", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["source"] == "ties (density 0.5, seed 0) of 1 x sums, 1 x third"
    assert main(["adapters", "merge", "both", "--full", "full", "--dtype", "bfloat16"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == "full: a full model, in bfloat16"
    assert second.startswith("its logits differ from those of the adapter beside its base by up to ")
    assert main([*merge, "--full", "other", "--json"]) == 0
    proof = json.loads(capsys.readouterr().out)
    assert (proof["folder"], proof["dtype"]) == ("other", "float32") and proof["saved_gap"] < 1e-4
    assert (tmp_path / "other" / "model.safetensors").is_file()


def test_bits_of_the_run_are_those_of_the_merge(
    base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    bits = {"policy.quantization.kind": "nf4", "policy.quantization.block_size": 128}
    run = write_sft_run(tmp_path / "quantised", base, bits)
    assert main(["adapters", "add", str(run), "--name", "q"]) == 0
    assert main(["adapters", "merge", "q", "--full", "stored"]) == 0
    assert "--dequantised takes its own" in capsys.readouterr().out
    assert main(["adapters", "merge", "q", "--full", "floats", "--dequantised"]) == 0
    assert "--dequantised" not in capsys.readouterr().out
    assert main(["adapters", "merge", "q", "--full", "floats"]) == 2
    assert "--full=floats: is there already" in capsys.readouterr().err
    (plain := tmp_path / "plain").mkdir()
    assert main(["adapters", "add", str(write_sft_run(plain / "run", base)), "--name", "stored"]) == 0
    assert main(["adapters", "merge", "stored", "--full", "never", "--dequantised"]) == 2
    assert "was trained on weights as they are stored: leave --dequantised out" in capsys.readouterr().err
    rounded = AutoModelForCausalLM.from_pretrained(base)
    round_weights(rounded, Nf4Quantization(block_size=128))
    tensors = load_adapter(run / "policy").tensors
    name = "model.layers.0.mlp.up_proj"
    a, b = (tensors[f"base_model.model.{name}.lora_{side}.weight"] for side in "AB")
    made = AutoModelForCausalLM.from_pretrained("floats").get_submodule(name).weight
    torch.testing.assert_close(made, rounded.get_submodule(name).weight + 2.5 * (b @ a), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["sums", "sums", "--name", "x"], "sums: is given twice; give it once, with the sum of its weights"),
        (["sums", "absent", "--name", "x"], "absent: no adapter in the library"),
        (["sums", "--name", "other"], "--name=other: adapters/other is there already"),
        (["sums", "--name", "x", "--dequantised"], "are of a full model: give --full FOLDER instead of --name"),
        (["sums", "--full", "x", "--task", "t"], "--task is of a new adapter of the library: give --name NEW"),
        (["sums", "other", "--weights", "1", "--name", "x"], "--weights: 1 are given for 2 adapters"),
        (["sums", "other", "--how", "linear", "--name", "x"], "All adapters must have the same r value"),
        (["sums", "--full", "~nosuchuser/x"], "--full=~nosuchuser/x: cannot be looked at: Could not determine"),
        (["sums", "--name", "x", "--library", "~nosuchuser/x"], "--library=~nosuchuser/x: cannot be looked at"),
    ],
)
def test_what_cannot_be_merged_is_one_message(
    added: Path, asked: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["adapters", "merge", *asked]) == 2
    out, err = capsys.readouterr()
    assert (
        out == "" and message in err and len([line for line in err.splitlines() if line.startswith("plumbob: ")]) == 1
    )
    assert sorted(path.name for path in added.iterdir()) == ["other", "sums"]


def test_the_kinds_of_sums_are_those_that_the_models_know(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["adapters", "merge", "a", "b", "--name", "c", "--how", "mean"])
    told = capsys.readouterr().err.partition("choose from")[2]
    assert re.findall(r"\w+", told.partition(")")[0]) == list(SUM_KINDS)


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
