"""Exported folders, loaded by transformers and PEFT alone; and their pages, read as a hub reads them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from transformers import AutoTokenizer

from plumbob.core.errors import UserError
from plumbob.driver.result.exported_policy import export_policy
from plumbob.driver.result.usage_guidelines import SECTIONS, template
from tests.support.libraries import write_sft_run
from tests.support.plain_transformers import load_plain, plain_logprobs

PROMPT, RESPONSE = [5, 6, 7], [8, 9, 10]


@pytest.fixture(scope="module")
def run(base: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sft_run(tmp_path_factory.mktemp("runs") / "sums", base)


def header_of(folder: Path) -> dict[str, Any]:
    _, header, _ = (folder / "README.md").read_text().split("---\n", 2)
    found: dict[str, Any] = yaml.safe_load(header)
    return found


def test_an_adapter_goes_with_its_tokenizer_and_what_its_run_says(run: Path, base: str, tmp_path: Path) -> None:
    usage = tmp_path / "mine.md"
    usage.write_text("\n".join(f"## {heading}\nSums of small numbers, for children." for heading in SECTIONS))
    exported = export_policy(str(run), tmp_path / "out", base_name="team/base", usage=usage)
    assert set(exported.files) >= {"README.md", "adapter_config.json", "adapter_model.safetensors", "tokenizer.json"}
    assert (tmp_path / "out/USAGE.md").read_text() == usage.read_text()
    assert exported.notes == () and exported.proof is None
    assert json.loads((tmp_path / "out/adapter_config.json").read_text())["base_model_name_or_path"] == "team/base"
    weights = "adapter_model.safetensors"
    assert (tmp_path / "out" / weights).read_bytes() == (run / "policy" / weights).read_bytes()
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template is not None
    header = {"library_name": "peft", "base_model": "team/base", "pipeline_tag": "text-generation"}
    assert header_of(tmp_path / "out") == {**header, "tags": ["plumbob", "sft", "lora"]}
    page = (tmp_path / "out/README.md").read_text()
    assert "| `heldout_loss` | 1.25 |" in page and "rows.jsonl" in page and "LORA of rank 4 beside its base" in page
    # No path of this machine, and what nobody knows is called so.
    assert str(run.parent) not in page and str(base) not in page
    assert "| licence | missing" in page and "## Missing" in page
    settings = yaml.safe_load(page.split("```yaml\n")[1].split("\n```")[0])
    assert (settings["kind"], settings["data"]["demonstrations"]) == ("sft", "rows.jsonl")


def test_the_page_names_no_place(base: str, tmp_path: Path) -> None:
    """Of a record written by hand: each value is one that settings can have, and none may be read on a hub."""
    run = write_sft_run(tmp_path / "told", base)
    resolved = json.loads((run / "resolved.json").read_text())
    resolved["config"] |= {
        "sinks": [{"kind": "mlflow", "tracking_uri": "sqlite:////home/me/ml.db"}],
        "cluster": {"address": "head.internal:6379"},
        "mixture": {"/home/me/a/rows.jsonl": 2.0, "/home/me/b/rows.jsonl": 1.0},
        "texts": [
            *("/home/me/rows.jsonl", "file:/home/me/ml.db", "a=/home/me/a b.jsonl", "see\n/home/me/notes"),
            *("http://judge.internal:8000/v1", "Right / wrong: {prompt}</think>", "and/or", "team/base"),
        ],
    }
    (run / "resolved.json").write_text(json.dumps(resolved))
    export_policy(str(run), tmp_path / "out")
    page = (tmp_path / "out/README.md").read_text()
    places = ("home", "internal", "sinks:", "cluster:", "storage:", str(tmp_path))
    assert not [place for place in places if place in page]
    settings = yaml.safe_load(page.split("```yaml\n")[1].split("\n```")[0])
    left_out = ["left out: it names a place"] * 4
    assert settings["texts"] == ["rows.jsonl", *left_out, "Right / wrong: {prompt}</think>", "and/or", "team/base"]
    assert settings["mixture"] == {"rows.jsonl": 2.0, "rows.jsonl (2)": 1.0}
    assert settings["seed"] == resolved["config"]["seed"]


def test_nothing_is_written_where_the_page_cannot_be_made(base: str, tmp_path: Path) -> None:
    run = write_sft_run(tmp_path / "damaged", base)
    (run / "summary.json").write_text("no JSON")
    for merged in (False, True):
        with pytest.raises(UserError, match=r"summary\.json: cannot be read"):
            export_policy(str(run), tmp_path / "out", merged)
        assert not (tmp_path / "out").exists()


def test_a_base_in_a_folder_is_told_of(run: Path, tmp_path: Path) -> None:
    exported = export_policy(str(run / "policy"), tmp_path / "out")
    usage, note = exported.notes
    assert "--base-name=TEAM/NAME" in note and "base_model" not in header_of(tmp_path / "out")
    # Nobody gave usage guidelines: their template is there, and it is said that they are missing.
    assert usage.startswith("usage guidelines are missing") and (tmp_path / "out/USAGE.md").read_text() == template()
    assert "Missing: intended use, out of scope, " in (tmp_path / "out/README.md").read_text()


def test_merged_it_computes_as_the_adapter_beside_its_base(run: Path, tmp_path: Path) -> None:
    exported = export_policy(str(run), tmp_path / "full", merged=True)
    found, expected = (
        plain_logprobs(load_plain(str(folder)), PROMPT, RESPONSE, 1.0) for folder in (tmp_path / "full", run / "policy")
    )
    assert np.abs(found - expected).max() < 1e-4
    assert exported.proof is not None and exported.proof.gap < 1e-3
    assert header_of(tmp_path / "full")["library_name"] == "transformers"
    assert "merged into its base" in (tmp_path / "full/README.md").read_text()


def test_a_full_model_of_no_run_has_little_known(base: str, tmp_path: Path) -> None:
    (Path(base) / "optimizer.bin").write_text("x")
    exported = export_policy(base, tmp_path / "out")
    (Path(base) / "optimizer.bin").unlink()
    assert exported.left_out == ("optimizer.bin",)
    page = (tmp_path / "out/README.md").read_text()
    assert (
        "| stage | missing |" in page
        and "| began from | missing |" in page
        and "no run's files stood beside it" in page
    )
    assert np.array_equal(
        *(plain_logprobs(load_plain(str(one)), PROMPT, RESPONSE, 1.0) for one in (base, tmp_path / "out"))
    )


def test_options_that_do_not_go_together(run: Path, base: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for policy, options, message in (
        (base, {"merged": True}, "is a full model already"),
        (str(run), {"dtype": "bfloat16"}, "give --merged too"),
        (str(run), {"merged": True, "dequantised": True}, "was trained on weights as they are stored"),
        (str(run), {"base_name": "no name"}, "--base-name=no name: a hub name is"),
    ):
        with pytest.raises(UserError, match=message):
            export_policy(policy, out, **options)  # type: ignore[arg-type]
        assert not out.exists()
    with pytest.raises(UserError, match="is there already"):
        export_policy(str(run), tmp_path)
    with pytest.raises(UserError, match=r"^~nosuchuser/out: cannot be looked at"):
        export_policy(str(run), Path("~nosuchuser/out"))
