"""Bad input from the command line: one clear message, status 2, nothing written."""

import gzip
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from plumbob.console.cli import main
from plumbob.core.errors import UserError
from tests.support.small_run import Left, Stages, settings

DEMONSTRATION = {"prompt": "Question: who?\nAnswer:", "completion": " Me."}


def write_rows(path: Path, rows: list[object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@dataclass(frozen=True)
class Refusals:
    """Runs commands that must be refused before anything is written."""

    storage: Path
    capfd: pytest.CaptureFixture[str]

    def __call__(self, kind: str, *groups: Mapping[str, object]) -> str:
        """The one message of a run that is refused."""
        self.capfd.readouterr()
        status = main(["run", kind, *settings({"storage.path": self.storage, "name": "bad"}, *groups)])
        said = self.capfd.readouterr().err
        assert status == 2, said
        assert "Traceback" not in said
        assert not self.storage.exists()
        lines = [line for line in said.splitlines() if line.startswith("plumbob: ")]
        assert len(lines) == 1, said
        return lines[0].removeprefix("plumbob: ")


@pytest.fixture
def refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Refusals:
    return Refusals(tmp_path / "storage", capfd)


@pytest.fixture
def alone(stage: Stages, sft_lora: Left) -> None:
    """For a command that connects by itself."""
    stage.close()


@pytest.fixture(scope="module")
def sft(sft_settings: dict[str, object]) -> dict[str, object]:
    return sft_settings


# -------------------------------------------------------------------------------------------------------------- files


def test_a_missing_file(refused: Refusals, sft: dict[str, object], tmp_path: Path) -> None:
    message = refused("sft", sft, {"data.demonstrations": tmp_path / "absent.jsonl"})
    assert f"{tmp_path}/absent.jsonl" in message
    assert "does not exist" in message


def test_a_corrupt_archive(refused: Refusals, sft: dict[str, object], tmp_path: Path) -> None:
    whole = gzip.compress(b"".join(json.dumps(DEMONSTRATION).encode() + b"\n" for _ in range(1000)))
    path = tmp_path / "cut.jsonl.gz"
    path.write_bytes(whole[: len(whole) // 2])
    message = refused("sft", sft, {"data.demonstrations": path})
    assert str(path) in message
    assert "damaged" in message


def test_malformed_rows_are_named(refused: Refusals, sft: dict[str, object], tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", [DEMONSTRATION, {"prompt": "Question: who?"}, DEMONSTRATION, 7])
    message = refused("sft", sft, {"data.demonstrations": path})
    assert "2 of 4 rows are malformed" in message
    assert "row 2" in message
    assert "row 4" in message
    assert "data.bad_rows=skip" in message


def test_prompts_on_both_sides(refused: Refusals, ppo_settings: dict[str, object], tmp_path: Path) -> None:
    train = write_rows(tmp_path / "train.jsonl", [{"prompt": "one"}, {"prompt": "two"}])
    apart = write_rows(tmp_path / "apart.jsonl", [{"prompt": "two"}, {"prompt": "three"}])
    both = {"data.prompts": train, "data.heldout_prompts": apart}
    message = refused("ppo", ppo_settings, both)
    assert "1 prompts stand in both" in message
    assert "data.overlap=drop" in message
    # Dropped, nothing is left of the same file on both sides.
    same = {"data.prompts": train, "data.heldout_prompts": train, "data.overlap": "drop"}
    assert "leaves nothing to train on" in refused("ppo", ppo_settings, same)


# ------------------------------------------------------------------------------------------------------------- models


def test_a_prompt_longer_than_the_context(refused: Refusals, ppo_settings: dict[str, object], tmp_path: Path) -> None:
    path = write_rows(tmp_path / "long.jsonl", [{"prompt": "why " * 200}, {"prompt": "who"}])
    limits = {"data.prompts": path, "data.max_prompt_tokens": 1000, "data.heldout_fraction": 0}
    message = refused("ppo", {**ppo_settings, "data.heldout_prompts": "null"}, limits)
    assert "the longest prompt has" in message
    assert "the model has 128 positions" in message
    assert "data.max_prompt_tokens to 118" in message


def test_a_tokenizer_without_a_pad_token(
    refused: Refusals, sft: dict[str, object], pretrained: str, tmp_path: Path
) -> None:
    folder = tmp_path / "unpadded"
    shutil.copytree(pretrained, folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    del config["pad_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    message = refused("sft", sft, {"policy.model": folder})
    assert str(folder) in message
    assert "no pad token" in message


def test_an_encoder_as_policy(refused: Refusals, sft: dict[str, object], pipeline: Left) -> None:
    message = refused("sft", sft, {"policy.model": pipeline.folder / "pretrain-encoder/encoder"})
    assert "BertForMaskedLM is not a causal language model" in message


def test_scores_without_a_calibration(
    refused: Refusals, ppo_settings: dict[str, object], reward_model: str, tmp_path: Path
) -> None:
    folder = tmp_path / "raw"
    shutil.copytree(reward_model, folder)
    (folder / "calibration.json").unlink()
    message = refused("ppo", ppo_settings, {"reward.model": folder})
    assert "calibration.json" in message
    assert "reward.normalize=false" in message


def test_an_encoder_as_reward_model(refused: Refusals, ppo_settings: dict[str, object], pipeline: Left) -> None:
    message = refused("ppo", ppo_settings, {"reward.model": pipeline.folder / "pretrain-encoder/encoder"})
    assert "BertForMaskedLM is no reward model" in message


def test_corrupt_weights(
    refused: Refusals, sft: dict[str, object], ppo_settings: dict[str, object], reward_model: str, tmp_path: Path
) -> None:
    def cut(folder: object, file: str) -> Path:
        copy = tmp_path / f"{file}-of-{Path(str(folder)).parent.name}"
        shutil.copytree(str(folder), copy)
        (copy / file).write_bytes(b"cut")
        return copy

    full = cut(sft["policy.model"], "model.safetensors")
    adapter = cut(ppo_settings["policy.model"], "adapter_model.safetensors")
    scorer = cut(reward_model, "model.safetensors")
    for kind, group, named in (
        ("sft", sft, {"policy.model": full}),
        ("ppo", ppo_settings, {"policy.model": adapter}),
        ("ppo", ppo_settings, {"reward.model": scorer}),
        ("ppo", ppo_settings, {"gold_reward.model": scorer}),
    ):
        ((key, folder),) = named.items()
        assert refused(kind, group, named).startswith(f"{key}={folder}: ")


def test_more_tokens_than_the_reward_model_has_positions(refused: Refusals, ppo_settings: dict[str, object]) -> None:
    message = refused("ppo", ppo_settings, {"reward.max_tokens": 129})
    assert "takes at most 128 tokens; set reward.max_tokens=128" in message


def test_what_only_a_worker_can_see_leaves_the_name_free(
    stage: Stages, ppo_settings: dict[str, object], reward_model: str, tmp_path: Path
) -> None:
    folder = tmp_path / "headless"
    shutil.copytree(reward_model, folder)
    tensors = load_file(folder / "model.safetensors")
    del tensors["classifier.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"the weights lack classifier\.weight"):
        stage("headless", "ppo", ppo_settings, {"reward.model": folder})
    assert not (stage.storage / "headless").exists()


def test_targets_that_the_model_does_not_have(
    refused: Refusals, ppo_settings: dict[str, object], sft_full: str
) -> None:
    wrong = {"policy.model": sft_full, "policy.tuning.targets": "[q_proj, query]", "rollout.engine.kind": "vllm"}
    message = refused("ppo", ppo_settings, wrong)
    assert message.startswith(f"policy.tuning.targets: query is no module in {sft_full}; choose among down_proj, ")


# ----------------------------------------------------------------------------------------------------------- settings


def test_a_batch_that_ranks_cannot_share(refused: Refusals, sft: dict[str, object]) -> None:
    message = refused("sft", sft, {"sft.batch_size": 15, "learner.num_workers": 2})
    assert "sft.batch_size=15" in message
    assert "multiple of 2" in message


def test_an_adapter_too_wide_for_vllm(refused: Refusals, ppo_settings: dict[str, object], sft_full: str) -> None:
    served = {"rollout.engine.kind": "vllm", "rollout.adapter": "lora"}
    wide = {"policy.model": sft_full, "policy.tuning.rank": 1024} | served
    message = refused("ppo", ppo_settings, wide)
    assert "policy.tuning.rank=1024" in message
    assert "512" in message


@pytest.mark.slow
@pytest.mark.usefixtures("alone")
def test_more_workers_than_cpus(
    refused: Refusals, stage: Stages, sft: dict[str, object], capfd: pytest.CaptureFixture[str]
) -> None:
    many = {
        "learner.num_workers": 12,
        "learner.num_cpus": 0.5,
        "learner.memory_gib": 0,
        "cluster.address": stage.address,
    }
    message = refused("sft", sft, many)
    # 12 x 0.5 = 6 of the 4 CPUs; 8 x 0.5 fit.
    assert "2 CPUs are missing" in message
    assert "learner.num_workers=8" in message
    message = refused("sft", sft, many, {"cluster.wait_s": 0.3})
    assert "after waiting 0.3 s" in message


@pytest.mark.slow
@pytest.mark.usefixtures("alone")
def test_waiting_for_a_cluster_is_reported(
    stage: Stages, sft: dict[str, object], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    many = {"learner.num_workers": 12, "learner.memory_gib": 0}
    waiting = {"cluster.address": stage.address, "cluster.wait_s": 0.3, "storage.path": tmp_path / "storage"}
    assert main(["run", "sft", *settings(sft, many, waiting)]) == 2
    assert "2 CPUs are missing; this would fit: learner.num_workers=8; waiting up to 0.3 s" in capfd.readouterr().out


def test_a_plan_that_does_not_fit_starts_nothing(
    sft: dict[str, object], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    needed = 2 * (os.cpu_count() or 1) + 2
    many = {
        "learner.num_workers": needed,
        "learner.memory_gib": 0,
        "sft.batch_size": needed,
        "storage.path": tmp_path / "storage",
    }
    assert main(["plan", "sft", "--json", *settings(sft, many)]) == 1
    plan = json.loads(capfd.readouterr().out)
    # Half a CPU a worker: one CPU more than there are.
    assert plan["missing"].startswith("1 CPUs are missing")
    assert not (tmp_path / "storage").exists()


def test_a_name_that_is_taken(
    stage: Stages, sft: dict[str, object], sft_lora: Left, capfd: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in sft_lora.folder.rglob("*")}
    assert main(["run", "sft", *settings(stage.cluster, sft, {"name": sft_lora.folder.name})]) == 2
    said = capfd.readouterr().err
    assert f"plumbob resume {sft_lora.folder}" in said
    assert {path: path.stat().st_mtime_ns for path in sft_lora.folder.rglob("*")} == before
