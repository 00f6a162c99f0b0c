"""The plan of a run: arithmetic, what is missing, and what would fit."""

from cluster.placement import Capacity, Need, Plan, needs_of
from configs.inputs import DemonstrationData, EvalData, JudgementData, PromptData
from configs.models import AlignedPolicy, Policy
from configs.roles import Learner, RewardEncoder, Rollout, Scorer
from configs.schema import EvalRun, PpoRun, RewardRun, SftRun
from configs.stages import Calibration


def need(role: str, count: int, cpus: float, gpus: float = 0.0) -> Need:
    return Need(role, f"{role}.num_workers", count, cpus, gpus)


def test_the_sum_of_what_runs_side_by_side() -> None:
    plan = Plan((need("learner", 2, 1.5, 1), need("rollout", 3, 0.5, 2)), Capacity(4.5, 8))
    # 2 x 1.5 + 3 x 0.5 = 4.5 CPUs; 2 x 1 + 3 x 2 = 8 GPUs: exactly what there is.
    assert (plan.num_cpus, plan.num_gpus, plan.fits) == (4.5, 8, True)
    assert plan.lines() == [
        "learner  2 x 1.5 CPUs, 1 GPUs (learner.num_workers=2)",
        "rollout  3 x 0.5 CPUs, 2 GPUs (rollout.num_workers=3)",
        "together 4.5 CPUs, 8 GPUs; the cluster has 4.5 CPUs, 8 GPUs",
        "it fits",
    ]
    assert plan.as_dict()["missing"] is None
    assert not Plan(plan.needs, Capacity(4.4, 8)).fits
    assert not Plan(plan.needs, Capacity(4.5, 7)).fits


def test_the_nearest_fit_takes_from_the_largest_group_first() -> None:
    plan = Plan((need("learner", 2, 1), need("rollout", 5, 1), need("scorer", 1, 0.5)), Capacity(4.5, 0))
    # 7.5 CPUs: rollout 5 -> 4 -> 3 -> 2 gives 4.5.
    assert plan.what_is_missing() == (
        "3 CPUs are missing; this would fit: learner.num_workers=2 rollout.num_workers=2 scorer.num_workers=1"
    )
    # One less: both groups have 2, the first gives way.
    nearest = Plan(plan.needs, Capacity(3.5, 0)).nearest_fit()
    assert nearest is not None and [n.count for n in nearest] == [1, 2, 1]


def test_both_kinds_may_lack_and_one_of_each_may_be_too_many() -> None:
    plan = Plan((need("learner", 1, 2, 1), need("rollout", 1, 1, 1)), Capacity(2, 0))
    assert plan.nearest_fit() is None
    assert plan.what_is_missing() == (
        "1 CPUs and 2 GPUs are missing, and one worker of each role does not fit either: lower *.num_cpus or *.num_gpus"
    )
    assert plan.lines()[-1] == plan.what_is_missing() == plan.as_dict()["missing"]


def test_who_is_needed_at_a_runs_widest_moment() -> None:
    learner, scorer = Learner(num_workers=2, num_cpus=1.0), Scorer(model="m", num_workers=3, num_cpus=0.25)
    rollout = Rollout(num_workers=4, num_gpus=1.0, tensor_parallel=2)
    policy = AlignedPolicy(model="m")
    ppo = PpoRun(data=PromptData(prompts="f"), policy=policy, reward=scorer, rollout=rollout, learner=learner)
    assert needs_of(ppo) == (
        Need("learner", "learner.num_workers", 2, 1.0, 0.0),
        Need("rollout", "rollout.num_workers", 4, 0.5, 2.0),  # One GPU for each of the two that share the model.
        Need("scorer", "reward.num_workers", 3, 0.25, 0.0),
    )
    judged = ppo.model_copy(update={"judge": Scorer(model="other", num_workers=2, num_cpus=0.75)})
    assert needs_of(judged) == (*needs_of(ppo), Need("judge", "judge.num_workers", 2, 0.75, 0.0))
    sft = SftRun(data=DemonstrationData(demonstrations="f"), policy=Policy(model="m"), learner=learner)
    assert [n.role for n in needs_of(sft)] == ["learner"]
    reward = RewardRun(data=JudgementData(pairs="f"), reward=RewardEncoder(model="m"))
    assert [n.role for n in needs_of(reward)] == ["learner"]
    sampled = reward.model_copy(update={"calibration": Calibration(policy="m")})
    assert [n.role for n in needs_of(sampled)] == ["learner", "rollout"]
    assert [n.role for n in needs_of(EvalRun(data=EvalData(pairs="f"), reward=scorer))] == ["scorer"]
