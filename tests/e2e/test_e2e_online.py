"""The online objectives without a critic, through the whole loop."""

import math
from collections import Counter, defaultdict

import pytest

from tests.small_run import PPO, Stages

NO_CRITIC = {
    "ppo.estimator.kind": "grpo",
    "ppo.samples_per_prompt": 2,
    "ppo.loss_mean": "answer",
    "ppo.kl.place": "loss",
    "ppo.kl.estimate": "k3",
    "ppo.dynamic_sampling.max_rounds": 2,
}
TWO_WORKERS = {"rollout.num_workers": 2, "rollout.chunk_size": 4}
"""The second may come while the first steps are made: chunks are taken by whoever is there."""


def test_grpo_with_kl_in_the_loss_and_dynamic_sampling(stage: Stages, ppo_settings: dict[str, object]) -> None:
    left = stage("grpo", "ppo", ppo_settings, NO_CRITIC, TWO_WORKERS)
    lines = [line["metrics"] for line in left.metrics]
    assert len(lines) == PPO["ppo.num_steps"]
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
    num_groups = int(str(PPO["ppo.prompts_per_step"]))
    assert len(used) == len(lines) * num_groups and not used.keys() & dropped.keys()
    assert len(dropped) == sum(metrics["num_dropped_groups"] for metrics in lines)
    assert any(len(scores) > 1 for scores in used.values())


@pytest.mark.parametrize(("preset", "group_size"), [("rloo", 4), ("dr-grpo", 8), ("reinforce-plus-plus", 1)])
def test_presets_without_a_critic_take_a_step(
    preset: str, group_size: int, stage: Stages, ppo_settings: dict[str, object]
) -> None:
    """With all their own settings of the objective, at a smaller size."""
    given = {key: value for key, value in ppo_settings.items() if not key.startswith("ppo.")}
    sizes = {"ppo.num_steps": 1, "ppo.prompts_per_step": 8, "ppo.minibatch_size": 8}
    left = stage(f"preset-{preset}", preset, given, sizes)
    (line,) = left.metrics
    assert line["metrics"]["policy_grad_norm"] > 0
    assert all(math.isfinite(value) for value in line["metrics"].values())
    groups = Counter(row.group_id for _, row in left.journal)
    assert len(groups) == 8 and set(groups.values()) == {group_size}
