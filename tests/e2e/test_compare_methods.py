"""`plumbob compare-methods`: the same stage with each method, over one Ray, and the smallest rank."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from plumbob.console.cli import main
from plumbob.console.exit_codes import FAILED, RESUME_ME, USER_ERROR
from plumbob.verify.world.problem import Size
from plumbob.verify.world.tiny_world import write_model
from tests.support.signalled_run import start
from tests.support.small_run import WORKERS, Stages, settings

LETTERS = "abcdef"

# Two layers 64 wide with feed-forwards of 128 and a vocabulary of 7. LoRA of rank 4: 4 (64 + 64) in each of four
# projections, 4 (64 + 128) in each of three, twice. All weights: two embeddings, the layers' matrices, five norms.
LORA, RANK_1 = 2 * (4 * 4 * 128 + 3 * 4 * 192), 2 * (4 * 128 + 3 * 192)
FULL = 2 * 7 * 64 + 2 * (4 * 64 * 64 + 3 * 64 * 128) + 5 * 64
IA3 = 2 * (64 + 64 + 128)


@pytest.fixture(autouse=True)
def unconnected(stage: Stages) -> None:
    """A command connects this process by itself."""
    stage.close()


@pytest.fixture
def given(ray_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Each prompt is answered with its letters turned round: 30 demonstrations, 6 of them held out."""
    monkeypatch.chdir(tmp_path)
    pairs = [first + second for first in LETTERS for second in LETTERS if first != second]
    rows = [{"prompt": pair, "completion": pair[::-1]} for pair in pairs]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "old.txt").write_text("abcdef" * 20)
    base = write_model(tmp_path / "base", Size(vocab_size=len(LETTERS) + 1).world, seed=0)
    lengths = {"data.max_prompt_tokens": 4, "data.max_response_tokens": 4, "data.heldout_fraction": 0.2}
    files = {"policy.model": base, "data.demonstrations": tmp_path / "rows.jsonl"}
    retained = {"retention.text": tmp_path / "old.txt", "retention.block_tokens": 8}
    learnt = {"sft.learning_rate": 5e-3, "sft.num_epochs": 4, "sft.batch_size": 8, "policy.tuning.rank": 4}
    return settings(lengths, files, retained, learnt, WORKERS, {"cluster.address": ray_address})


def compared(capfd: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    capfd.readouterr()
    assert main(["compare-methods", "sft", *arguments, "--json"]) == 0
    found: dict[str, Any] = json.loads(capfd.readouterr().out)
    return found


def test_each_method_on_the_same_records(given: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    asked = [*given, "--methods", "lora", "ia3", "full", "--method", "biases: policy.tuning.kind=selective"]
    asked[-1] += " policy.tuning.biases=true"
    found = compared(capfd, *asked)
    lora, ia3, full, biases = found["methods"]
    assert [row["num_trained"] for row in (lora, ia3, full)] == [LORA, IA3, FULL]
    assert [row["learning_rate"] for row in (lora, ia3, full)] == pytest.approx([5e-3, 5e-2, 5e-4])
    # All begin as the same model, and learn.
    first = lora["heldout_loss_before"]
    assert [row["heldout_loss_before"] for row in (ia3, full)] == pytest.approx([first, first], abs=1e-5)
    for row in (lora, ia3, full):
        assert row["gain"] == row["heldout_loss_before"] - row["heldout_loss"] > 0
        assert row["retained_growth"] > 0 and row["records_per_s"] > 0 and row["expected_memory_gib"] > 0
        assert [step for step, _ in row["curve"]] == list(range(1, 13))  # 4 epochs of 24 records in batches of 8
    # Of LoRA 4 bytes a parameter are exported, and all of the model in full fine-tuning; names and shapes come before.
    assert 4 * LORA < lora["exported_mib"] * 2**20 < 4 * LORA + 8192
    assert 4 * FULL < full["exported_mib"] * 2**20 < 4 * FULL + 8192
    assert biases["method"] == "biases" and "no parameter is a bias" in biases["reason"]
    folder = tmp_path / "runs/sft-methods"
    # Each in a process of its own, so that its memory is.
    assert len(list((folder / "logs").glob("learner-*.log"))) == 3
    assert json.loads((folder / "comparison.json").read_text())["methods"] == found["methods"]
    page = (folder / "comparison.html").read_text()
    assert all(name in page for name in ("lora", "ia3", "full", "no parameter is a bias"))
    # Once more: the runs are there already, and nothing of them is made again.
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/metrics.jsonl")}
    assert compared(capfd, *asked)["methods"][:3] == found["methods"][:3]
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*/metrics.jsonl")} == before
    # On other rows in the same file they are no results, and there are no others.
    rows = (tmp_path / "rows.jsonl").read_text().splitlines()
    (tmp_path / "rows.jsonl").write_text("\n".join(rows[:-1]) + "\n")
    assert main(["compare-methods", "sft", *given, "--methods", "lora"]) == FAILED
    assert "lora: data.demonstrations=" in (out := capfd.readouterr().out) and "not those that the run began" in out
    # Of an adapter every method would be the same: it is trained as what it is.
    on_adapter = [*given, f"policy.model={folder / 'lora' / 'policy'}", "name=further"]
    assert main(["compare-methods", "sft", *on_adapter, "--methods", "lora"]) == USER_ERROR
    assert (
        f"is an adapter, which every method would train further as what it is; give its base, {tmp_path / 'base'}"
        in (capfd.readouterr().err)
    )


@pytest.mark.slow
def test_the_smallest_rank_each_with_its_best_learning_rate(
    given: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    # With a millionth nothing is learnt. A rank of 1 gains more than a tenth of what all weights do.
    found = compared(capfd, *given, "--smallest-rank", "0.1", "--rates", "1e-6", "5e-3")
    full, rank_1 = found["methods"]
    assert (full["num_trained"], rank_1["num_trained"]) == (FULL, RANK_1)
    assert [row["learning_rate"] for row in (full, rank_1)] == [5e-3, 5e-3]
    assert full["folder"].endswith("full-0.005") and rank_1["folder"].endswith("lora-rank-1-0.005")
    assert found["smallest_rank"] == {"share": 0.1, "full_gain": full["gain"], "smallest": "lora-rank-1"}
    assert rank_1["gain"] >= 0.1 * full["gain"]


def test_a_signal_ends_the_comparison_and_not_only_the_run_that_it_is_in(given: list[str], tmp_path: Path) -> None:
    more = ["sft.num_epochs=300", f"storage.path={tmp_path / 'runs'}"]
    run = start(
        tmp_path / "runs/sft-methods/lora", "compare-methods", "sft", *given, *more, "--methods", "lora", "full"
    )
    try:
        run.wait_for(lambda: run.num_steps() >= 3)
        run.signal_group(signal.SIGTERM)
        printed = run.end()
    finally:
        run.kill()
    assert run.driver.returncode == RESUME_ME, printed
    assert "SIGTERM: the run was asked to stop" in printed
    assert not (tmp_path / "runs/sft-methods/full").exists()
    assert not (tmp_path / "runs/sft-methods/comparison.json").exists()


def test_what_cannot_be_compared_is_said_before_anything_starts(
    given: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare-methods", "sft", *given, "data.heldout_fraction=0"]) == USER_ERROR
    assert "sft.evaluate_first=true measures held-out records, and there are none" in capfd.readouterr().err
    assert main(["compare-methods", "toy"]) == USER_ERROR
    assert "kind is pipeline; methods are compared by a run of kind sft, dpo or kto" in capfd.readouterr().err
    assert main(["compare-methods", "sft", *given, "--methods", "lara"]) == USER_ERROR
    assert "did you mean lora?" in capfd.readouterr().err
    assert main(["compare-methods", "sft", *given, "--methods", "lora", "--smallest-rank"]) == USER_ERROR
    assert "leave --methods and --method out" in capfd.readouterr().err
    assert not (tmp_path / "runs").exists()
