"""Who runs side by side in each kind of run."""

from plumbob.cluster.resources import ResourceNeed, resource_needs
from plumbob.configs.runs import EvalRun, PpoRun, RewardRun, SftRun
from plumbob.configs.settings.data import (
    DemonstrationDataSettings,
    EvalDataSettings,
    FeedbackDataSettings,
    PromptDataSettings,
)
from plumbob.configs.settings.models import AlignedPolicySettings, PolicySettings
from plumbob.configs.settings.rewards import JudgeSettings, RewardEncoderSettings, ScorerSettings
from plumbob.configs.settings.training import CalibrationSettings
from plumbob.configs.settings.workers import LearnerSettings, RolloutSettings


def test_who_is_needed_at_a_runs_widest_moment() -> None:
    learner = LearnerSettings(num_workers=2, num_cpus=1.0, memory_gib=8.0)
    scorer = ScorerSettings(model="m", num_workers=3, num_cpus=0.25)
    rollout = RolloutSettings(num_workers=4, num_gpus=1.0, tensor_parallel=2, placement="pack")
    policy = AlignedPolicySettings(model="m")
    ppo = PpoRun(data=PromptDataSettings(prompts="f"), policy=policy, reward=scorer, rollout=rollout, learner=learner)
    assert resource_needs(ppo) == (
        # Learners are packed, the others spread, where nothing else is asked.
        ResourceNeed("learner", "learner.num_workers", 2, 1.0, 0.0, 8.0, spread=False),
        # One GPU for each of the two that share the model.
        ResourceNeed("rollout", "rollout.num_workers", 4, 0.5, 2.0, 1.0, spread=False),
        ResourceNeed("scorer", "reward.num_workers", 3, 0.25, 0.0, 1.0, spread=True),
    )
    judged = ppo.model_copy(update={"judge": JudgeSettings(model="other", num_workers=2, num_cpus=0.75)})
    assert resource_needs(judged) == (
        *resource_needs(ppo),
        ResourceNeed("judge", "judge.num_workers", 2, 0.75, 0.0, 1.0, spread=True),
    )
    sft = SftRun(data=DemonstrationDataSettings(demonstrations="f"), policy=PolicySettings(model="m"), learner=learner)
    assert [n.role for n in resource_needs(sft)] == ["learner"]
    reward = RewardRun(data=FeedbackDataSettings(pairs="f"), reward=RewardEncoderSettings(model="m"))
    assert [n.role for n in resource_needs(reward)] == ["learner"]
    sampled = reward.model_copy(update={"calibration": CalibrationSettings(policy="m")})
    assert [n.role for n in resource_needs(sampled)] == ["learner", "rollout"]
    assert [n.role for n in resource_needs(EvalRun(data=EvalDataSettings(pairs="f"), reward=scorer))] == ["scorer"]
