"""Online runs: without a critic, with sampling in order and ahead of learning, and watched by others."""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

import pytest

from plumbob.driver.stages.online_stage import NO_SECOND_REWARD_MODEL
from tests.support.small_run import PPO, Left, Stages, text_settings

NO_CRITIC = {
    "online.estimator.kind": "grpo",
    "online.samples_per_prompt": 2,
    "online.loss_mean": "response",
    "online.kl.place": "loss",
    "online.kl.estimate": "k3",
    "online.dynamic_sampling.max_rounds": 2,
}
CLIP = 0.05
FLAT: dict[str, object] = {"online.shaping.clip": CLIP, "online.shaping.missing_eos_penalty": 0}
"""Scores are normalised to a spread of 1, so that two of a sign, as a good half of all pairs are, earn the same."""

TWO_WORKERS = {"rollout.num_workers": 2, "rollout.chunk_size": 4}
"""The second may come while the first steps are made: chunks are taken by whoever is there."""


def rewards(scores: Iterable[float]) -> set[float]:
    return {min(max(score, -CLIP), CLIP) for score in scores}


def test_grpo_with_kl_in_the_loss_and_dynamic_sampling(stage: Stages, ppo_settings: dict[str, object]) -> None:
    left = stage("grpo", "ppo", ppo_settings, NO_CRITIC, FLAT, TWO_WORKERS)
    lines = [line["metrics"] for line in left.metrics]
    assert len(lines) == PPO["online.num_steps"]
    for metrics in lines:
        assert {"policy_loss", "kl_loss", "num_rounds"} <= metrics.keys()
        assert not {"value_loss", "value_grad_norm", "explained_variance"} & metrics.keys()
        assert metrics["sampler_gap_max"] < 1e-4
    assert lines[0]["kl"] == 0.0  # The policy begins as the reference.
    used, dropped = defaultdict(set), defaultdict(set)
    for step, row in left.journal:
        # Whichever worker made it, a token of step n is of the policy after n - 1 updates.
        assert {int(version) for version in row.versions} == {step - 1}
        (dropped if row.dropped else used)[step, row.group_id].add(row.score)
        assert len(row.values) == 0
        assert len(row.ref_logprobs) == (0 if row.dropped else len(row.token_ids))
    # It is called what was asked for, in all that it leaves.
    assert list(left.summary["stages"]) == ["grpo"]
    assert json.loads((left.folder / "status.json").read_text())["stage"] == "grpo"
    assert NO_SECOND_REWARD_MODEL in left.summary["stages"]["grpo"]["notes"]
    num_groups = int(str(PPO["online.prompts_per_step"]))
    assert len(used) == len(lines) * num_groups and not used.keys() & dropped.keys()
    assert len(dropped) == sum(metrics["num_dropped_groups"] for metrics in lines)
    assert dropped and all(len(rewards(scores)) == 1 for scores in dropped.values())
    num_flat = sum(len(rewards(scores)) == 1 for scores in used.values())
    assert num_flat == sum(metrics["num_flat_groups"] for metrics in lines) < len(used)


@pytest.mark.parametrize(
    ("preset", "group_size"),
    [
        *(("rloo", 4), ("dr-grpo", 8), ("reinforce-plus-plus", 1), ("dapo", 8), ("gspo", 8), ("cispo", 8)),
        *(("raft", 8), ("online-dpo", 4)),
    ],
)
def test_presets_without_a_critic_take_a_step(
    preset: str, group_size: int, stage: Stages, ppo_settings: dict[str, object]
) -> None:
    """With all their own settings of the objective, at a smaller size."""
    given = {key: value for key, value in ppo_settings.items() if not key.startswith("online.")}
    sizes: dict[str, object] = {"online.num_steps": 1, "online.prompts_per_step": 8, "online.minibatch_size": 8}
    if preset == "dapo":
        sizes["online.shaping.overlong_penalty.cache_tokens"] = 4
    left = stage(f"preset-{preset}", preset, given, sizes)
    (line,) = left.metrics
    assert line["metrics"]["policy_grad_norm"] > 0
    assert all(math.isfinite(value) for value in line["metrics"].values())
    groups = Counter(row.group_id for _, row in left.journal if row.dropped is None)
    assert len(groups) == 8 and set(groups.values()) == {group_size}


def test_the_synchronous_loop_is_never_behind(ppo_from_adapter: Left) -> None:
    behind = {(step, step - 1 - version) for step, row in ppo_from_adapter.journal for version in row.versions.tolist()}
    assert behind == {(1, 0), (2, 0), (3, 0)}
    assert all(line["metrics"]["sampler_gap_max"] < 1e-4 for line in ppo_from_adapter.metrics)


@pytest.mark.slow
def test_the_asynchronous_loop_trains_on_what_is_one_version_old_at_most(
    stage: Stages, ppo_settings: dict[str, object]
) -> None:
    left = stage("asynchronous", "ppo", ppo_settings, {"online.max_staleness": 1})
    behind = defaultdict(set)
    for step, row in left.journal:
        behind[step] |= {step - 1 - version for version in row.versions.tolist()}
    # Which version a later response gets hangs on which of publishing and sampling is faster.
    assert behind.pop(1) == {0} and set(behind) == {2, 3} and set.union(*behind.values()) <= {0, 1}
    for line in left.metrics:
        assert line["metrics"]["staleness_max"] == max(behind.get(line["step"], {0}))
    state = json.loads((left.last_checkpoint / "state.json").read_text())["state"]
    rows = state["ledger"]["versions"].values()
    num_responses = PPO["online.num_steps"] * PPO["online.prompts_per_step"]
    assert all(row["issued"] == row["finished"] == row["scored"] == row["trained"] for row in rows)
    assert sum(row["trained"] for row in rows) == num_responses == len(left.journal)
    assert sorted(row.position for _, row in left.journal) == list(range(num_responses))


@pytest.mark.slow
def test_merged_adapters_ahead_of_learning_and_in_parts(stage: Stages, ppo_settings: dict[str, object]) -> None:
    ahead = {"online.max_staleness": 1, "rollout.partial_tokens": 4}
    given = {key: value for key, value in ppo_settings.items() if key != "rollout.engine.kind"}
    left = stage("merged", "ppo", given, ahead)
    assert left.summary["stages"]["ppo"]["rollout_adapter"] == "merged"
    mixed = set()
    for step, row in left.journal:
        versions = row.versions.tolist()
        # What an older version began a newer one ended.
        assert versions == sorted(versions) and {step - 1 - version for version in versions} <= {0, 1}
        mixed.add(len(set(versions)))
    assert mixed <= {1, 2} and any(len(row.token_ids) > 4 for _, row in left.journal)
    # On tokens of the learner's own version; others were sampled from another policy.
    assert all(line["metrics"]["sampler_gap_fresh"] < 1e-4 for line in left.metrics)
    assert left.metrics[-1]["metrics"]["kl"] != 0


def test_ppo_is_watched(stage: Stages, ppo_settings: dict[str, object], reward_model: str, world: Path) -> None:
    gold = {"gold_reward.model": reward_model, "gold_reward.max_tokens": 64, "gold_reward.num_cpus": 0.25}
    left = stage(
        "watched",
        "ppo",
        ppo_settings,
        gold,
        text_settings(world),
        {"online.num_steps": 2, "online.monitors.sampler_gap.bound": 1e-12},
    )
    for line in left.metrics:
        # The gold reward is that of the reward model itself.
        assert line["metrics"]["gold_reward"] == pytest.approx(line["metrics"]["reward"], abs=1e-5)
        assert 0 < line["metrics"]["entropy"] < math.log(320)
    summary = left.summary["stages"]["ppo"]
    before = math.log(summary["retention"]["perplexity_before"])
    assert left.metrics[0]["metrics"]["replay_loss"] == pytest.approx(before, rel=0.2)
    assert summary["retention"]["growth"] != 1
    assert NO_SECOND_REWARD_MODEL not in summary["notes"]
    # vLLM and the learner never agree to the last bit.
    (alarm,) = summary["monitors"]
    assert (alarm["name"], alarm["step"]) == ("sampler_gap", 1)
    assert "above online.monitors.sampler_gap.bound=1e-12: " in alarm["message"]
