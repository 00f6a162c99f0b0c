"""What a run's files say of its adapter, and how a run or a folder is found by what is typed."""

import json
from pathlib import Path

import pytest

from plumbob.core.errors import UserError
from plumbob.data.row_digest import digest_of_rows
from plumbob.driver.run_folder.made_adapter import facts_of
from plumbob.driver.run_folder.made_policy import find_adapter
from plumbob.models.library.base_digest import base_digest
from plumbob.models.library.library_entry import TrainingFacts
from tests.support.libraries import write_adapter, write_sft_run
from tests.support.tiny_policy import write_policy


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_policy(tmp_path_factory.mktemp("base"))


@pytest.fixture
def run(base: str, tmp_path: Path) -> Path:
    (tmp_path / "runs").mkdir()
    return write_sft_run(tmp_path / "runs" / "sums", base)


def test_a_run_says_stage_data_base_and_scores(run: Path, base: str) -> None:
    facts = facts_of(run / "policy")
    rows = run.parent / "rows.jsonl"
    assert (facts.run, facts.stage, facts.quantization) == (str(run), "sft", {})
    assert facts.base_digest == base_digest(base) is not None
    assert facts.scores == {"heldout_loss": 1.25, "heldout_accuracy": 0.75}
    assert facts.data is not None and set(facts.data) == {"data.demonstrations"}
    demonstrations = facts.data["data.demonstrations"]
    assert (demonstrations.file, demonstrations.digest) == (str(rows), digest_of_rows(str(rows)))
    assert facts.trained == json.loads((run / "resolved.json").read_text())["time"]


def test_bits_of_the_base_and_a_first_adapter_are_known(base: str, tmp_path: Path) -> None:
    """Of a run that began from an adapter, the digest is of that one's base."""
    quantised = write_sft_run(tmp_path / "q", base, {"policy.quantization.kind": "nf4"})
    bits = facts_of(quantised / "policy").quantization
    assert bits is not None and (bits["kind"], bits["block_size"], bits["weights_dtype"]) == ("nf4", 64, "float32")
    first = write_adapter(tmp_path / "first", base)
    facts = facts_of(write_sft_run(tmp_path / "second", base, {"policy.model": first}) / "policy")
    assert facts.base_digest == base_digest(base)


def test_a_stage_of_a_pipeline_has_its_own_scores(run: Path) -> None:
    (run / "policy").rename(run / "stage_of_old")
    (run / "dpo").mkdir()
    (run / "stage_of_old").rename(run / "dpo" / "policy")
    stages = {"sft": {"heldout_loss": 3.0}, "dpo": {"win_rate": 0.5, "win_rate_ci95": [0.4, 0.6], "done": True}}
    (run / "summary.json").write_text(json.dumps({"stages": stages}))
    facts = facts_of(run / "dpo" / "policy")
    assert (facts.run, facts.stage, facts.scores) == (str(run), "dpo", {"win_rate": 0.5})
    (run / "ppo" / "policy").mkdir(parents=True)
    (run / "ppo" / "policy" / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match=f"give the folder of one: {run}/dpo/policy, {run}/ppo/policy"):
        find_adapter(str(run))


def test_the_soft_prompt_of_one_task_is_of_the_run_of_all(run: Path, base: str) -> None:
    task = write_adapter(run / "policy" / "tasks" / "adding", base)
    assert facts_of(task) == facts_of(run / "policy")


def test_a_run_that_has_not_ended_and_a_folder_of_no_run(run: Path, base: str, tmp_path: Path) -> None:
    for name in ("summary.json", "inputs.json", "models.json"):
        (run / name).unlink()
    facts = facts_of(run / "policy")
    assert (facts.stage, facts.scores, facts.data, facts.base_digest) == ("sft", None, None, None)
    assert facts_of(write_adapter(tmp_path / "plain", base)) == TrainingFacts()
    (run / "resolved.json").write_text('{"config": 3}')
    with pytest.raises(UserError, match="its files are not as a run writes them"):
        facts_of(run / "policy")


def test_what_is_typed_finds_the_adapter(run: Path, base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.parent.parent)
    for typed in ("sums", "runs/sums", str(run), "runs/sums/policy"):
        assert find_adapter(typed).resolve() == run / "policy"
    with pytest.raises(UserError, match="has no adapter as its result"):
        find_adapter(base)
    with pytest.raises(UserError, match=r"there is no run in this folder nor in runs/summs; did you mean sums?"):
        find_adapter("summs")
