"""Learning from preferences without a reference, and from labelled responses: what a run writes, told by peft."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from transformers import AutoTokenizer

from tests.support.plain_transformers import load_plain, plain_logprobs
from tests.support.small_run import LENGTHS, Left, Stages


def response_logprobs(folder: str, rows: Sequence[Mapping[str, str]], *sides: str) -> list[NDArray[np.float32]]:
    """log pi of each token, and of the EOS, of each row's first side; by plain transformers and peft. [T] each.

    Rows of which a side does not fit the limits of `LENGTHS` are left out, as a stage does.
    """
    tokenizer, model, found = AutoTokenizer.from_pretrained(folder), load_plain(folder), []
    for row in rows:
        prompt, *responses = (tokenizer(row[name], add_special_tokens=False).input_ids for name in ("prompt", *sides))
        if max(len(prompt), *(len(response) + 1 for response in responses)) <= 64:
            found.append(plain_logprobs(model, prompt, [*responses[0], tokenizer.eos_token_id], 1.0))
    assert len(found) > 4
    return found


def read_rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_orpo_needs_no_reference(stage: Stages, world: Path, pretrained: str) -> None:
    files = {"data.pairs": world / "pairs.jsonl", "data.heldout_pairs": world / "heldout_pairs.jsonl"}
    chosen = {"policy.model": pretrained, "dpo.loss.kind": "orpo", "dpo.batch_size": 32, "dpo.learning_rate": 1e-2}
    left = stage("orpo", "dpo", files, LENGTHS, chosen)
    first, last = (line["metrics"] for line in left.metrics)
    # From the pre-trained model, which knows of no responses: their likelihood rises at once.
    assert last["nll"] < first["nll"] < first["loss"]
    # A mean over responses of a mean over their tokens.
    rows = read_rows(world / "heldout_pairs.jsonl")
    nlls = [-logprobs.mean() for logprobs in response_logprobs(left.policy, rows, "chosen", "rejected")]
    assert left.summary["stages"]["dpo"]["heldout_nll"] == pytest.approx(float(np.mean(nlls)), rel=1e-4)


def test_kto_from_an_adapter(stage: Stages, world: Path, sft_lora: Left, tmp_path: Path) -> None:
    sides = ("chosen", "rejected")
    for name in ("pairs", "heldout_pairs"):
        rows = [
            {"prompt": row["prompt"], "completion": row[sides[place % 2]], "label": place % 2 == 0}
            for place, row in enumerate(read_rows(world / f"{name}.jsonl"))
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {"data.labelled": tmp_path / "pairs.jsonl", "data.heldout_labelled": tmp_path / "heldout_pairs.jsonl"}
    chosen = {"policy.model": sft_lora.policy, "kto.batch_size": 32, "kto.learning_rate": 1e-2, "kto.beta": 0.5}
    left = stage("kto", "kto", files, LENGTHS, chosen)
    first, last = (line["metrics"] for line in left.metrics)
    # Policy and reference are one model: every log-ratio is 0, and so is the KL; the loss is 1 - sigmoid(0).
    assert first["loss"] == pytest.approx(0.5, abs=1e-6)
    assert (first["margin"], first["kl"]) == (pytest.approx(0, abs=1e-6), pytest.approx(0, abs=1e-6))
    assert last["margin"] != 0
    rows = read_rows(tmp_path / "heldout_pairs.jsonl")
    policy, reference = (response_logprobs(folder, rows, "completion") for folder in (left.policy, sft_lora.policy))
    rewards = [0.5 * (ours - theirs) for ours, theirs in zip(policy, reference, strict=True)]
    expected = np.mean([reward.sum(dtype=np.float64) for reward in rewards])
    assert abs(expected) > 1e-3
    summary = left.summary["stages"]["kto"]
    assert summary["heldout_reward"] == pytest.approx(float(expected), rel=1e-3, abs=1e-4)
    # In the file each is less beta z0, and turned where the label is bad.
    margins = [pair["margin"] for pair in left.heldout_pairs]
    assert np.mean(margins) == pytest.approx(summary["heldout_margin"], rel=1e-3, abs=1e-5)
    assert [pair["rejected"] is None for pair in left.heldout_pairs][:2] == [True, False]
