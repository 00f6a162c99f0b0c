"""The loop of PPO with a soft prompt: a real learner with a critic, and a real sampler that reads each version."""

from pathlib import Path

import pytest

from plumbob.configs.settings.tuning.any_tuning import AnyPromptTuning
from plumbob.configs.settings.tuning.soft_prompts import PrefixTuning, PromptTuning, PTuning
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
        (PromptTuning(num_virtual_tokens=4), 1),
        # Vectors, and weight and bias of three layers.
        (PTuning(num_virtual_tokens=4, hidden_size=16), 7),
        (PrefixTuning(num_virtual_tokens=4), 1),
    ],
    ids=lambda given: getattr(given, "kind", ""),
)
def test_each_version_is_sampled_from(
    one_rank: Ranks, model: str, tmp_path: Path, tuning: AnyPromptTuning, num_trained: int
) -> None:
    one_rank.run(play, model, tmp_path, False, 0, "free", {"learning_rate": 3e-2}, None, tuning)
    left = Left(tmp_path)
    lines = [line["metrics"] for line in left.metrics]
    assert len(lines) == NUM_STEPS
    # The reference is the soft prompt as it began: invariant 1, a policy that moves, and a sampler that moves with it.
    assert lines[0]["kl"] == 0.0 and lines[-1]["kl"] > 1e-3
    assert all(line["sampler_gap_max"] < 1e-4 for line in lines)
    assert all({int(version) for version in row.versions} == {step - 1} for step, row in left.journal)
    params = {name.removeprefix("param.") for name in tensors_of(left.last_checkpoint) if name.startswith("param.")}
    assert len(params) == 2 * num_trained + 1 and not any("reference" in name for name in params)
