"""The loops of PPO with a policy tuned in its own weights: a real learner, a real sampler, by turns and ahead."""

from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from plumbob.configs.settings.tuning.weights import FullTuning, SelectiveTuning
from tests.support.learner_ranks import Ranks
from tests.support.online_steps import NUM_STEPS, play
from tests.support.small_run import Left, tensors_of
from tests.support.tiny_policy import write_policy


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_policy(tmp_path_factory.mktemp("policy"))


@pytest.mark.parametrize(
    ("tuning", "num_trained"),
    [
        # Of two layers and untied embeddings; the critic has a head instead of the other one.
        (FullTuning(), 21 + 21),
        (SelectiveTuning(norms=True, targets=("lm_head",), critic="head"), 6 + 1),
    ],
    ids=["full", "selective"],
)
def test_each_version_is_sampled_from_by_turns(
    one_rank: Ranks, model: str, tmp_path: Path, tuning: FullTuning | SelectiveTuning, num_trained: int
) -> None:
    one_rank.run(play, model, tmp_path, False, 0, "free", {"learning_rate": 1e-3}, None, tuning)
    left = Left(tmp_path)
    lines = [line["metrics"] for line in left.metrics]
    assert len(lines) == NUM_STEPS
    # Invariant 1, a policy that moves, and a sampler that moves with it.
    assert lines[0]["kl"] == 0.0 and lines[-1]["kl"] != 0.0
    assert all(line["sampler_gap_max"] < 1e-4 for line in lines)
    assert all({int(version) for version in row.versions} == {step - 1} for step, row in left.journal)
    found = tensors_of(left.last_checkpoint)
    params = {name.removeprefix("param.") for name in found if name.startswith("param.")}
    assert len(params) == num_trained and not any("reference" in name for name in params)
    before = AutoModelForCausalLM.from_pretrained(model)
    moved = {
        name: float((found[f"param.causal_lm.{name}"] - tensor).abs().max())
        for name, tensor in before.named_parameters()
        if f"causal_lm.{name}" in params
    }
    assert min(moved.values()) > 1e-4


def test_ahead_of_learning_each_token_is_of_one_version(one_rank: Ranks, model: str, tmp_path: Path) -> None:
    changes = {"learning_rate": 1e-3}
    one_rank.run(play, model, tmp_path, True, 1, "published between chunks", changes, None, FullTuning())
    left = Left(tmp_path)
    behind = {step - 1 - int(version) for step, row in left.journal for version in row.versions}
    assert behind == {0, 1}
    # On tokens of the learner's own version; others were sampled from another policy.
    assert all(line["metrics"]["sampler_gap_fresh"] < 1e-4 for line in left.metrics)
