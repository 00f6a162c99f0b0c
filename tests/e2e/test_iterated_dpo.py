"""Iterated DPO: an online run on pairs, `plumbob pairs` out of its journal, and a run of dpo from its result."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from plumbob.console.cli import main
from plumbob.verify.optima.response_tree import EOS
from plumbob.verify.world.problem import Size
from plumbob.verify.world.tiny_world import write_model
from tests.support.plain_transformers import load_plain, plain_logprobs
from tests.support.small_run import TRANSFORMERS, Stages

LETTERS = "abcdef"
"""All that the model can say, but for its end: a response ends soon, and has a text."""
WANTED = [{"kind": "contains", "texts": ["a"]}, {"kind": "contains", "name": "b", "texts": ["b"], "weight": 2.0}]
MARGIN = 1.0


def total(response: str) -> float:
    return float("a" in response) + 2.0 * ("b" in response)


def preferences(folder: str, rows: list[dict[str, str]]) -> NDArray[np.float64]:
    """log pi(chosen) - log pi(rejected) of each pair, ends included, by plain transformers and peft."""
    model = load_plain(folder)

    def whole(row: dict[str, str], side: str) -> float:
        prompt, response = ([1 + LETTERS.index(letter) for letter in row[name]] for name in ("prompt", side))
        return float(plain_logprobs(model, prompt, [*response, EOS], 1.0).sum())

    return np.array([whole(row, "chosen") - whole(row, "rejected") for row in rows])


def test_a_policy_learns_from_pairs_of_its_own_journal(
    tmp_path: Path, stage: Stages, capfd: pytest.CaptureFixture[str]
) -> None:
    world = Size(vocab_size=len(LETTERS) + 1).world
    prompts = tmp_path / "prompts.jsonl"
    texts = [first + second for first in LETTERS for second in LETTERS if first != second]
    prompts.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    lengths = {"data.max_prompt_tokens": 4, "data.heldout_fraction": 0}
    sampled = {"policy.model": write_model(tmp_path / "base", world, seed=0), "policy.tuning.rank": 4}
    sampled |= {"data.prompts": prompts, "rollout.num_cpus": 0.25, "rollout.max_tokens": 8, **TRANSFORMERS}
    rewarded = {"reward.parts": json.dumps(WANTED), "reward.num_cpus": 0.25}
    steps = {
        "online.num_steps": 2,
        "online.prompts_per_step": 16,
        "online.samples_per_prompt": 8,
        "online.minibatch_size": 64,
    }
    left = stage("round-1", "online-dpo", lengths, sampled, rewarded, steps, {"online.learning_rate": 5e-3})
    first = left.metrics[0]["metrics"]
    assert 0 < first["accuracy"] <= 1 and first["policy_grad_norm"] > 0 and first["kl"] == 0
    assert list(left.summary["stages"]) == ["online-dpo"]

    capfd.readouterr()
    assert main(["pairs", str(left.folder), "--json", "--margin", str(MARGIN)]) == 0
    found = json.loads(capfd.readouterr().out)
    rows = [json.loads(line) for line in Path(found["pairs"]).read_text().splitlines()]
    scores: dict[str, list[float]] = {}
    for _, row in left.journal:
        assert row.score == total(row.response)
        if row.finish_reason == "stop" and row.response:
            scores.setdefault(row.prompt, []).append(row.score)
    margins = {prompt: max(own) - min(own) for prompt, own in scores.items()}
    assert {row["prompt"]: row["margin"] for row in rows} == {
        prompt: margin for prompt, margin in margins.items() if margin >= MARGIN
    }
    assert all(total(row["chosen"]) - total(row["rejected"]) == row["margin"] for row in rows) and len(rows) >= 8

    *command, policy, pairs, rendered = shlex.split(found["next"])
    assert command == ["plumbob", "run", "dpo"] and policy == f"policy.model={left.policy}"
    given = dict(word.split("=", 1) for word in (policy, pairs, rendered))
    learnt = {"data.max_response_tokens": 10, "dpo.batch_size": 4, "dpo.num_epochs": 4, "dpo.learning_rate": 5e-3}
    after = stage("round-2", "dpo", lengths, given, learnt)
    # The policy of the first round is the reference of the second.
    assert after.metrics[0]["metrics"]["margin"] == pytest.approx(0, abs=1e-5)
    moved = preferences(after.policy, rows) - preferences(left.policy, rows)
    assert moved.mean() > 0.1 and (moved > 0).mean() > 0.8
