"""Who runs side by side in each kind of run."""

from dataclasses import replace

import pytest

from plumbob.cluster.resources import (
    Expected,
    Host,
    ResourceAmount,
    ResourceNeed,
    expected_gib,
    memory_lines,
    resource_needs,
)
from plumbob.configs.runs import EvalRun, OnlineRun, RewardRun, SftRun
from plumbob.configs.settings.data import (
    DemonstrationDataSettings,
    EvalDataSettings,
    FeedbackDataSettings,
    PromptDataSettings,
)
from plumbob.configs.settings.models import AlignedPolicySettings, PolicySettings, RewardEncoderSettings
from plumbob.configs.settings.rewards import GoldRewardSettings, ScorerSettings
from plumbob.configs.settings.training import CalibrationSettings
from plumbob.configs.settings.workers import LearnerSettings, RolloutSettings
from plumbob.models.sizes.memory import DRIVER_FLOOR, GIB, PRIVATE_RAY_FLOOR, MemoryEstimate


def test_who_is_needed_at_a_runs_widest_moment() -> None:
    learner = LearnerSettings(num_workers=2, num_cpus=1.0, memory_gib=8.0)
    scorer = ScorerSettings(model="m", num_workers=3, num_cpus=0.25)
    rollout = RolloutSettings(num_workers=4, num_gpus=1.0, tensor_parallel=2, placement="pack")
    policy = AlignedPolicySettings(model="m")
    online = OnlineRun(
        data=PromptDataSettings(prompts="f"), policy=policy, reward=scorer, rollout=rollout, learner=learner
    )
    assert resource_needs(online) == (
        # Learners are packed, the others spread, where nothing else is asked.
        ResourceNeed("learner", "learner.num_workers", 2, 1.0, 0.0, 8.0, spread=False),
        # One GPU for each of the two that share the model.
        ResourceNeed("rollout", "rollout.num_workers", 4, 0.5, 2.0, 1.0, spread=False),
        ResourceNeed("scorer", "reward.num_workers", 3, 0.25, 0.0, 1.0, spread=True),
    )
    judged = online.model_copy(update={"gold_reward": GoldRewardSettings(model="other", num_workers=2, num_cpus=0.75)})
    assert resource_needs(judged) == (
        *resource_needs(online),
        ResourceNeed("gold_scorer", "gold_reward.num_workers", 2, 0.75, 0.0, 1.0, spread=True),
    )
    distilled = online.model_copy(update={"reward": None})
    assert [n.role for n in resource_needs(distilled)] == ["learner", "rollout"]
    sft = SftRun(data=DemonstrationDataSettings(demonstrations="f"), policy=PolicySettings(model="m"), learner=learner)
    assert [n.role for n in resource_needs(sft)] == ["learner"]
    reward = RewardRun(data=FeedbackDataSettings(pairs="f"), reward=RewardEncoderSettings(model="m"))
    assert [n.role for n in resource_needs(reward)] == ["learner"]
    sampled = reward.model_copy(update={"calibration": CalibrationSettings(policy="m")})
    assert [n.role for n in resource_needs(sampled)] == ["learner", "rollout"]
    assert [n.role for n in resource_needs(EvalRun(data=EvalDataSettings(pairs="f"), reward=scorer))] == ["scorer"]


LEARNER, SCORER = (
    ResourceNeed("learner", "learner.num_workers", 2, 0.5, 0.0, 1.0, spread=False),
    ResourceNeed("scorer", "reward.num_workers", 1, 0.5, 0.0, 4.0, spread=True),
)
EXPECTED: Expected = {
    "ppo": {
        "learner": MemoryEstimate(weights=GIB, optimizer=2 * GIB, activations=GIB // 2),
        "scorer": MemoryEstimate(weights=GIB // 4),
    }
}


def test_what_is_expected_stands_beside_what_is_asked_for() -> None:
    rest = (DRIVER_FLOOR + PRIVATE_RAY_FLOOR) / GIB
    for free, end in ((20.0, ""), (5.0, ", which is less: the run may be ended for want of memory")):
        host = Host("10.0.0.1", "n1", ResourceAmount(4, 0, free))
        assert memory_lines((LEARNER, SCORER), EXPECTED, (host,)) == [
            "learner: about 3.5 GiB each (weights 1, optimizer 2, activations 0.5); learner.memory_gib=1 is less, so "
            "that hosts may be filled past their memory: set learner.memory_gib=3.5",
            "scorer: about 0.25 GiB each (weights 0.25); reward.memory_gib=4",
            f"in all about {2 * 3.5 + 0.25 + rest:.3g} GiB, {rest:.3g} GiB of it the driver and Ray; {free:g} GiB are "
            f"free{end}",
        ]
    found = expected_gib((LEARNER, SCORER), EXPECTED)
    assert found["roles"]["learner"] == {
        "each": 3.5,
        "parts": {"weights": 1.0, "optimizer": 2.0, "activations": 0.5},
        "programs_may_add": 0.0,
        "declared": 1.0,
    }
    assert found["driver_and_ray"] == rest
    assert found["total"] == pytest.approx(7.25 + rest)
    assert memory_lines((LEARNER,), {}, ()) == [] and expected_gib((LEARNER,), {}) == {}


def test_what_programs_may_take_more_is_not_expected_and_stands_there() -> None:
    scorer = MemoryEstimate(weights=GIB // 4, programs=GIB // 8, beyond=2 * GIB)
    row, whole = memory_lines((SCORER,), {"ppo": {"scorer": scorer}}, ())
    assert row == (
        "scorer: about 0.375 GiB each (weights 0.25, programs 0.12); reward.memory_gib=4; its programs may take 2 GiB "
        "more"
    )
    assert whole.startswith(f"in all about {0.375 + (DRIVER_FLOOR + PRIVATE_RAY_FLOOR) / GIB:.3g} GiB")


def test_what_is_on_gpus_asks_for_no_memory_of_the_host() -> None:
    (row, _) = memory_lines((replace(LEARNER, num_gpus=1.0),), EXPECTED, ())
    assert row.endswith("each on its GPUs (weights 1, optimizer 2, activations 0.5); learner.memory_gib=1")
