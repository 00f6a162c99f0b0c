"""Each stage by itself, from folders and files to a folder."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer

from plumbob.reward.reward_models.bert_scorer import BertScorer
from tests.support.plain_transformers import load_plain, plain_logprobs
from tests.support.score_requests import score_requests
from tests.support.small_run import (
    BERT,
    LENGTHS,
    LLAMA,
    Left,
    Stages,
    model_settings,
    settings,
    tensors_of,
    text_settings,
)
from tests.support.tiny_scorer import model_reward, write_scorer


def losses(left: Left) -> list[float]:
    return [line["metrics"]["loss"] for line in left.metrics]


def test_pretraining_makes_a_model(stage: Stages, world: Path) -> None:
    sizes = {"pretrain.block_tokens": 64, "pretrain.batch_size": 16, "pretrain.learning_rate": 1e-2}
    left = stage(
        "pretrain", "pretrain", {"data.text": world / "text.jsonl"}, sizes, model_settings("policy.model", LLAMA)
    )
    # A new model knows nothing: a uniform guess among 320 tokens costs log(320) = 5.77 nats.
    assert losses(left)[0] == pytest.approx(math.log(320), abs=1)
    assert losses(left)[-1] < losses(left)[0] - 0.3
    tokenizer = AutoTokenizer.from_pretrained(left.policy)
    assert len(tokenizer("who builds it?").input_ids) > 1
    ids = tokenizer("Question: ").input_ids
    assert np.isfinite(plain_logprobs(load_plain(left.policy), ids[:1], ids[1:], 1.0)).all()
    assert json.loads((left.folder / "resolved.json").read_text())["config"]["kind"] == "pretrain"
    # What each step took stands beside its seconds; starting the workers took more than nothing beside them.
    energy = left.summary["stages"]["pretrain"]["energy"]
    learn = sum(line["joules"]["learn"] for line in left.metrics)
    assert learn > 0 and energy["phases_wh"]["learn"] == pytest.approx(learn / 3600)
    assert energy["wh"] > sum(energy["phases_wh"].values()) > 0
    num_samples = 16 * len(left.metrics)
    assert energy["wh_per_1000_samples"] == pytest.approx(energy["wh"] / num_samples * 1000)


def test_masked_word_training_makes_an_encoder(stage: Stages, world: Path) -> None:
    sizes = {"pretrain.block_tokens": 64, "pretrain.batch_size": 16, "pretrain.learning_rate": 3e-3}
    left = stage(
        "encoder", "pretrain-encoder", {"data.text": world / "text.jsonl"}, sizes, model_settings("reward.model", BERT)
    )
    assert losses(left)[-1] < losses(left)[0] - 0.1
    _, info = AutoModelForMaskedLM.from_pretrained(left.folder / "encoder", output_loading_info=True)
    assert not info["missing_keys"]


def test_full_fine_tuning_resumes_from_a_folder(
    stage: Stages, sft_settings: dict[str, object], pretrained: str, world: Path, tmp_path: Path
) -> None:
    file = tmp_path / "demonstrations.jsonl"
    file.write_text((world / "demonstrations.jsonl").read_text() + '{"prompt": "Question: who?"}\n')
    changed = {"data.demonstrations": file, "data.bad_rows": "skip", "policy.tuning": "{kind: full}"}
    left = stage("sft-full", "sft", sft_settings, changed, {"sft.learning_rate": 3e-3})
    (note,) = [note for note in left.summary["stages"]["sft"]["notes"] if "malformed" in note]
    assert "1 of 65 rows skipped" in note
    assert "row 65" in note
    assert losses(left)[-1] < losses(left)[0]
    before, after = load_plain(pretrained).state_dict(), load_plain(left.policy).state_dict()
    assert set(before) == set(after)
    assert not torch.equal(before["model.layers.1.mlp.up_proj.weight"], after["model.layers.1.mlp.up_proj.weight"])


def test_fine_tuning_with_lora_leaves_an_adapter_on_the_base(sft_lora: Left, pretrained: str) -> None:
    assert losses(sft_lora)[-1] < losses(sft_lora)[0]
    config = json.loads((Path(sft_lora.policy) / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == pretrained
    assert config["r"] == 4
    assert [path.name for path in sorted((sft_lora.folder / "checkpoints").glob("step-*"))] == [
        "step-000004",
        "step-000005",
    ]


def test_early_stopping_leaves_the_best_step(stage: Stages, sft_settings: dict[str, object], world: Path) -> None:
    # Nothing falls by 10 nats a token: the first of the 5 steps stays the best, and two measurements later it is over.
    stopping = {"sft.evaluate_every": 1, "sft.early_stopping": "{patience: 2, min_delta: 10}"}
    left = stage("sft-stopped", "sft", sft_settings, stopping, text_settings(world))
    summary = left.summary["stages"]["sft"]
    assert (summary["best_step"], summary["stopped_at_step"]) == (1, 3)
    assert any("stopped early after step 3 of 5" in note for note in summary["notes"])
    heldout = [line["metrics"]["heldout_loss"] for line in left.metrics]
    assert len(heldout) == 3
    assert summary["heldout_loss"] == heldout[0] != heldout[2]
    retained = summary["retention"]
    assert retained["growth"] == pytest.approx(retained["perplexity_after"] / retained["perplexity_before"])
    # Both texts are the same, so what the first step replays costs about what was measured before it.
    assert left.metrics[0]["metrics"]["replay_loss"] == pytest.approx(math.log(retained["perplexity_before"]), rel=0.2)
    exported = load_file(Path(left.policy) / "adapter_model.safetensors")
    kept = tensors_of(left.folder / "checkpoints/step-000001")
    last = tensors_of(left.last_checkpoint)
    for name, tensor in exported.items():
        inside = f"param.causal_lm.{name.removesuffix('.weight')}.policy.weight"
        assert torch.equal(tensor, kept[inside])
        assert not torch.equal(tensor, last[inside])


def test_dpo_from_an_adapter(stage: Stages, world: Path, sft_lora: Left) -> None:
    files = {"data.pairs": world / "pairs.jsonl", "data.heldout_pairs": world / "heldout_pairs.jsonl"}
    left = stage(
        "dpo", "dpo", files, LENGTHS, {"policy.model": sft_lora.policy, "dpo.batch_size": 16, "dpo.learning_rate": 3e-3}
    )
    first = left.metrics[0]["metrics"]
    # Policy and reference are one model: every log-ratio is 0 and the loss -log sigmoid(0).
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert first["chosen_reward"] == pytest.approx(0, abs=1e-6)
    assert first["margin"] == pytest.approx(0, abs=1e-6)
    assert left.metrics[-1]["metrics"]["margin"] != 0
    # A trained adapter stays one of the rank that it was.
    assert json.loads((Path(left.policy) / "adapter_config.json").read_text())["r"] == 4
    summary = left.summary["stages"]["dpo"]
    assert math.isfinite(summary["heldout_loss"])
    # The file of held-out pairs is of the last step, and has what the means are of.
    pairs = left.heldout_pairs
    margins = np.array([pair["margin"] for pair in pairs])
    assert {pair["step"] for pair in pairs} == {len(left.metrics)}
    assert margins.mean() == pytest.approx(summary["heldout_margin"], rel=1e-4)
    assert ((np.sign(margins) + 1) / 2).mean() == pytest.approx(summary["heldout_accuracy"])
    written = {line["prompt"]: line for line in map(json.loads, files["data.heldout_pairs"].read_text().splitlines())}
    assert written[pairs[0]["prompt"]]["chosen"] == pairs[0]["chosen"]
    assert written[pairs[0]["prompt"]]["rejected"] == pairs[0]["rejected"]


def reward_settings(world: Path, pipeline: Left) -> dict[str, object]:
    return {
        **{"data.pairs": world / "pairs.jsonl", "data.heldout_pairs": world / "heldout_pairs.jsonl"},
        **{"reward.model": pipeline.folder / "pretrain-encoder/encoder", "reward.max_tokens": 64},
        **{"reward_training.batch_size": 32, "reward_training.learning_rate": 1e-3},
    }


TELLING = ("it is good and right", "it is fair", "it is bad and wrong")
"""Responses from best to worst, which a few steps tell apart."""


def write_judgements(folder: Path) -> dict[str, Path]:
    """Rankings of three or two responses by two annotators, scores of single ones, and pairs, on 40 prompts."""
    rows: dict[str, list[dict[str, object]]] = {"rankings": [], "scores": [], "pairs": []}
    for number in range(40):
        prompt = {"prompt": f"Question {number}: how is it?"}
        better, worse = TELLING[number % 2], TELLING[number % 2 + 1]
        ranking = {"answers": [*reversed(TELLING)], "ranks": [3, 2, 1]} if number % 4 else {"answers": [better, worse]}
        rows["rankings"].append({**prompt, **ranking, "annotator": "ann" if number % 3 else "bob"})
        rows["scores"].append({**prompt, "response": TELLING[number % 3], "rating": 5 - 2 * (number % 3)})
        rows["pairs"].append({**prompt, "chosen": better, "rejected": worse, "annotator": "ann"})
    for name, lines in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return {name: folder / f"{name}.jsonl" for name in rows}


def test_reward_models_of_rankings_and_of_scores_and_their_ensemble(stage: Stages, tmp_path: Path) -> None:
    files = write_judgements(tmp_path)
    sizes = {"reward.max_tokens": 64, "data.heldout_fraction": 0.25, "reward_training.batch_size": 10}
    training = {"reward_training.learning_rate": 5e-3, "reward_training.num_epochs": 4}
    folders = []
    for name, objective in (("rankings", "plackett-luce"), ("scores", "regression")):
        given = {f"data.{name}": files[name], "reward_training.objective.kind": objective}
        left = stage(f"reward-{name}", "reward", given, sizes, training, model_settings("reward.model", BERT))
        folders.append(left.folder / "reward_model")
        assert losses(left)[-1] < losses(left)[0]
        figures = left.summary["stages"]["reward"]
        assert (figures["num_records"], figures[f"num_cut_{name}"]) == (30, 0)
        assert math.isfinite(figures["heldout_loss"])
        if name == "rankings":
            assert figures["heldout_accuracy"] > 0.5
            assert 0 <= figures["heldout_calibration_error"] <= 1
            # Ten held-out records, of three pairs or of one.
            assert 10 <= sum(found["num_pairs"] for found in figures["annotators"].values()) <= 30
            for name, found in figures["annotators"].items():
                margins = [pair["margin"] for pair in left.heldout_pairs if pair["annotator"] == name]
                assert (len(margins), np.mean(np.sign(margins)) / 2 + 0.5) == (found["num_pairs"], found["accuracy"])
            assert set(figures["annotators"]) <= {"ann", "bob"}
        else:
            assert "heldout_explained_variance" in figures and "heldout_accuracy" not in figures
            assert "in the scores file" in figures["calibration"]["under"]
            assert figures["calibration"]["num_samples"] == 30
    reward = {
        **{"reward.model": folders[0], "reward.ensemble": f"[{folders[1]}]"},
        **{"reward.uncertainty_penalty": 0.5, "reward.max_tokens": 64},
    }
    asked = settings(stage.cluster, {"name": "eval-ensemble", "data.pairs": files["pairs"]}, reward)
    figures = stage.evaluate(*asked)
    members = [BertScorer(model_reward(folder, 8, 64, is_calibrated=True)) for folder in folders]
    pairs = [json.loads(line) for line in files["pairs"].read_text().splitlines()]
    margins = []
    for pair in pairs:
        better, worse = (
            np.array([member.score(score_requests([(pair["prompt"], pair[side])]))[0].total for member in members])
            for side in ("chosen", "rejected")
        )
        margins.append(better.mean() - 0.5 * better.std() - worse.mean() + 0.5 * worse.std())
    assert figures["mean_margin"] == pytest.approx(np.mean(margins), abs=1e-4)
    assert figures["annotators"] == {"ann": {"accuracy": figures["accuracy"], "num_pairs": 40}}


def test_a_reward_model_by_lora_on_4_bits(stage: Stages, tmp_path: Path) -> None:
    begun = write_scorer(tmp_path / "begun")
    rows = [{"prompt": f"{letter} b", "chosen": "c d", "rejected": "d c"} for letter in "efghijklmnopqrst"]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = {"reward.model": begun, "data.pairs": tmp_path / "pairs.jsonl", "data.heldout_fraction": 0.25}
    tuned = {"reward.tuning.kind": "lora", "reward.quantization.kind": "nf4", "reward.quantization.block_size": 32}
    trained = {"reward_training.learning_rate": 2e-2, "reward_training.batch_size": 4, "reward_training.num_epochs": 4}
    left = stage("reward-lora", "reward", given, tuned, trained, {"reward.max_tokens": 16})
    assert losses(left)[-1] < 0.5 * losses(left)[0]
    folder = left.folder / "reward_model"
    # A plain model: as many weights as it began with, and no adapters.
    assert load_file(folder / "model.safetensors").keys() == load_file(begun / "model.safetensors").keys()
    scorer = BertScorer(model_reward(folder, 8, 16, is_calibrated=True))
    better, worse = (score.total for score in scorer.score(score_requests([("u b", "c d"), ("u b", "d c")])))
    assert better > worse + 1


def test_a_reward_model_is_calibrated_on_its_pairs(stage: Stages, world: Path, pipeline: Left) -> None:
    left = stage("reward-pairs", "reward", reward_settings(world, pipeline))
    folder = str(left.folder / "reward_model")
    pairs = [json.loads(line) for line in (world / "pairs.jsonl").read_text().splitlines()]
    texts = [(pair["prompt"], pair[side]) for pair in pairs for side in ("chosen", "rejected")]
    scores = BertScorer(model_reward(folder, 8, 64, is_calibrated=True)).score(score_requests(texts))
    totals = np.array([score.total for score in scores])
    # Nothing is held out of this file, so its responses are those that it was calibrated on: mean 0, variance 1.
    assert totals.mean() == pytest.approx(0, abs=1e-4)
    assert totals.std() == pytest.approx(1, abs=1e-4)
    assert left.summary["stages"]["reward"]["calibration"]["num_samples"] == 128


def test_a_reward_model_is_calibrated_on_a_policy(pipeline: Left, sft_full: str) -> None:
    stored = json.loads((pipeline.folder / "reward/reward_model/calibration.json").read_text())
    assert stored == pipeline.summary["stages"]["reward"]["calibration"]
    # calibration_prompts=8, and two responses to each.
    assert stored["num_samples"] == 16
    assert sft_full in stored["under"]
    assert stored["std"] > 0


def test_the_form_of_its_prompts_is_kept_with_a_reward_model(pipeline: Left) -> None:
    form = json.loads((pipeline.folder / "reward/reward_model/dialogue_form.json").read_text())
    # The toy world's prompts are texts, "Question: ...\nAnswer:".
    assert form["chat_template"] is None and form["ending"].endswith("\nAnswer:")


@torch.no_grad()
def test_a_reward_model_is_a_plain_classifier(reward_model: str) -> None:
    texts = [
        ("Question: who builds it?\nAnswer:", " A small firm."),
        ("Question: how fast?\nAnswer:", " Ask elsewhere"),
    ]
    model, info = AutoModelForSequenceClassification.from_pretrained(reward_model, output_loading_info=True)
    assert not info["missing_keys"]
    tokenizer = AutoTokenizer.from_pretrained(reward_model)
    plain = [float(model.eval()(**tokenizer(*text, return_tensors="pt")).logits) for text in texts]
    ours = BertScorer(model_reward(reward_model, 8, 64, is_calibrated=False)).score(score_requests(texts))
    assert [score.total for score in ours] == pytest.approx(plain, abs=1e-5)
    assert plain[0] != pytest.approx(plain[1], abs=1e-4)
