"""The loop of PPO with bottleneck adapters as policy and critic: a real learner, and transformers that samples."""

from pathlib import Path

from plumbob.configs.settings.tuning.adapters import BottleneckTuning
from tests.support.learner_ranks import Ranks
from tests.support.online_steps import NUM_STEPS, play
from tests.support.small_run import Left, tensors_of
from tests.support.tiny_policy import write_policy


def test_each_version_is_sampled_from(one_rank: Ranks, tmp_path: Path) -> None:
    model = write_policy(tmp_path / "model")
    one_rank.run(play, model, tmp_path, False, 0, "free", {}, None, BottleneckTuning(width=4))
    left = Left(tmp_path)
    lines = [line["metrics"] for line in left.metrics]
    assert len(lines) == NUM_STEPS
    # Invariant 1, a policy that moves, and a sampler that moves with it.
    assert lines[0]["kl"] == 0.0 and abs(lines[-1]["kl"]) > 1e-3
    assert all(line["sampler_gap_max"] < 1e-4 for line in lines)
    assert all({int(version) for version in row.versions} == {step - 1} for step, row in left.journal)
    # Policy and critic have four tensors behind each of two blocks in two layers; the critic has its head.
    params = {name for name in tensors_of(left.last_checkpoint) if name.startswith("param.")}
    assert len(params) == 2 * 16 + 1 and len([name for name in params if ".bottleneck_up.value." in name]) == 8
