"""RAFT and online DPO through vLLM: what is learnt of each group, by plain transformers, and that it is served next."""

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from plumbob.rollout.journal import JournalRow
from tests.support.plain_transformers import largest_gap, load_plain, plain_logprobs
from tests.support.small_run import TEMPERATURE, Left, Stages
from tests.support.tiny_policy import write_policy

WEIGHTS = {"a": 1.0, "e": 2.0, "s": 4.0}
"""What a letter that stands in a response is worth."""

NUM_GROUPS, SAMPLES = 8, 4
BETA = 0.1


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """Two steps of one update each; the ranking is by the letters alone."""
    folder = tmp_path_factory.mktemp("ranked")
    rows = [{"prompt": f"the car has {number}"} for number in range(NUM_GROUPS)]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    parts = [{"kind": "contains", "name": each, "texts": [each], "weight": WEIGHTS[each]} for each in WEIGHTS]
    return {
        "policy.model": write_policy(folder / "policy"),
        "policy.tuning.rank": 4,
        "data.prompts": folder / "prompts.jsonl",
        "data.heldout_fraction": 0,
        "reward.parts": json.dumps(parts),
        "reward.num_cpus": 0.25,
        "rollout.num_cpus": 0.25,
        "rollout.engine.kv_cache_gib": 0.05,
        "rollout.engine.max_num_seqs": 32,
        "rollout.max_tokens": 8,
        "rollout.temperature": TEMPERATURE,
        "online.num_steps": 2,
        "online.prompts_per_step": NUM_GROUPS,
        "online.samples_per_prompt": SAMPLES,
        "online.minibatch_size": NUM_GROUPS * SAMPLES,
        "online.learning_rate": 5e-3,
        "online.kl.coefficient": 0,
        "online.shaping.missing_eos_penalty": 0,
    }


def groups_of(left: Left, step: int) -> list[list[JournalRow]]:
    """Of a step, those whose responses are not all worth the same, the best response first and the worst last."""
    groups = defaultdict(list)
    for of_step, row in left.journal:
        assert row.score == sum(worth for letter, worth in WEIGHTS.items() if letter in row.response)
        if of_step == step:
            groups[row.group_id].append(row)
    assert len(groups) == NUM_GROUPS and {len(rows) for rows in groups.values()} == {SAMPLES}
    # Of equals the first in the group is the best, and the first the worst.
    ranked = []
    for rows in groups.values():
        best, worst = (edge(rows, key=lambda row: row.score) for edge in (max, min))
        others = [row for row in rows if row is not best and row is not worst]
        ranked += [] if best.score == worst.score else [[best, *others, worst]]
    assert len(ranked) >= 3
    return ranked


def whole(row: JournalRow, name: str = "logprobs") -> float:
    return float(getattr(row, name).sum(dtype=np.float64))


def gains(left: Left, rows: list[JournalRow]) -> float:
    """The mean of log pi(response) of the run's result less that of the version that sampled it."""
    model = load_plain(left.policy)
    after = [plain_logprobs(model, row.prompt_ids, row.token_ids, TEMPERATURE).sum() for row in rows]
    return float(np.mean(np.array(after) - [whole(row) for row in rows]))


def check_served(left: Left, policy: str) -> None:
    """Each step's responses are of the version before, and vLLM's log-probs those of plain transformers."""
    assert all(set(row.versions.tolist()) == {step - 1} for step, row in left.journal)
    assert all(line["metrics"]["sampler_gap_max"] < 1e-4 for line in left.metrics)
    first, second = ([row for of_step, row in left.journal if of_step == step] for step in (1, 2))
    assert largest_gap(load_plain(policy), first, "logprobs", TEMPERATURE) < 1e-4
    assert largest_gap(load_plain(policy), second, "logprobs", TEMPERATURE) > 1e-2
    assert largest_gap(load_plain(policy), second, "ref_logprobs", TEMPERATURE) < 1e-4


def test_raft_makes_the_best_response_of_each_group_likelier(
    stage: Stages, given: dict[str, object], tmp_path: Path
) -> None:
    left = stage("vllm-raft", "raft", given)
    check_served(left, str(given["policy.model"]))
    groups = groups_of(left, 2)
    best, others = [rows[0] for rows in groups], [row for rows in groups for row in rows[1:]]
    assert gains(left, best) > max(0.1, gains(left, others))
    # Of the best responses alone, each token weighs 1, at the ratio of a policy that has not moved yet.
    assert [line["metrics"]["policy_loss"] for line in left.metrics] == pytest.approx([-1, -1], abs=1e-4)


def test_online_dpo_learns_from_the_best_and_the_worst_of_each_group(stage: Stages, given: dict[str, object]) -> None:
    left = stage("vllm-online-dpo", "online-dpo", given, {"online.estimator.loss.beta": BETA})
    check_served(left, str(given["policy.model"]))
    first, second = (line["metrics"] for line in left.metrics)
    # The policy begins as the reference, which prefers nothing; the sign of what rounding leaves is the processor's.
    assert (first["policy_loss"], first["margin"]) == pytest.approx((np.log(2), 0), abs=1e-5)
    groups = groups_of(left, 2)
    pairs = [(rows[0], rows[-1]) for rows in groups]
    ratios = np.array([[whole(row) - whole(row, "ref_logprobs") for row in pair] for pair in pairs])
    margins = BETA * (ratios[:, 0] - ratios[:, 1])
    assert second["policy_loss"] == pytest.approx(np.log1p(np.exp(-margins)).mean(), abs=1e-4)
    assert second["margin"] == pytest.approx(margins.mean(), abs=1e-4)
    chosen, rejected = (gains(left, [pair[side] for pair in pairs]) for side in (0, 1))
    assert chosen - rejected > 0.1
