"""The seconds of a stage that samples: of a loop of policy gradients, round by round, and of an evaluation."""

from dataclasses import astuple, dataclass

from plumbob.configs.settings.algorithms import RANKED, OnlineDpo, critic_of
from plumbob.configs.settings.training import OnlineSettings
from plumbob.driver.planning.durations.response_lengths import ExpectedResponses
from plumbob.driver.planning.durations.run_time import StageTime
from plumbob.driver.planning.durations.work_costs import COMMIT_S, LearnerCosts, SamplerCosts, ScorerCosts


@dataclass(frozen=True)
class OnlineCosts:
    """Of the groups of workers of a stage that samples.

    Attributes:
        teachers: of the policy's learners, for each frozen model that grades responses.
    """

    learner: LearnerCosts
    sampler: SamplerCosts
    scorers: tuple[ScorerCosts, ...]
    teachers: tuple[LearnerCosts, ...] = ()


def online_time(
    stage: str, online: OnlineSettings, expected: ExpectedResponses, costs: OnlineCosts, start_s: float
) -> StageTime:
    """All rounds by turns, also of a run that samples beside learning: both want the same cores."""
    rows, critic = online.samples_per_step, critic_of(online.estimator)
    length = expected.prompt + expected.mean

    def forward_s(learner: LearnerCosts, predicted: float = expected.mean) -> float:
        return learner.forward_s(rows * length, length, rows * predicted)

    share = 1.0
    if isinstance(online.estimator, RANKED):
        share = (2 if isinstance(online.estimator, OnlineDpo) else 1) / online.samples_per_prompt
    learnt = online.num_epochs * share * rows
    learn_s = costs.learner.learn_s(learnt * length, length, learnt * expected.mean)
    evaluate_s = forward_s(costs.learner) + sum(map(forward_s, costs.teachers))
    if online.old_logprobs == "learner" or online.max_staleness:
        evaluate_s += forward_s(costs.learner)
    if critic is not None:
        evaluate_s += forward_s(costs.learner, 0.0)
        learn_s += costs.learner.learn_s(learnt * length, length, 0.0)
    num_updates = online.updates_per_step * (1 if critic is None else 2)
    sample_s = costs.sampler.sample_s(rows, online.prompts_per_step, *astuple(expected))
    a_round = {
        "publish": costs.sampler.publish_s,
        "sample": sample_s,
        "score": sum(scorer.score_s(rows, length) for scorer in costs.scorers),
        "evaluate": evaluate_s,
        "learn": learn_s + costs.learner.steps_s(num_updates),
        "commit": COMMIT_S,
    }
    return StageTime(stage, {"start": start_s} | {name: online.num_steps * each for name, each in a_round.items()})


@dataclass(frozen=True)
class Evaluated:
    """What an evaluation samples.

    Attributes:
        num_policies: that are asked, the baseline among them.
        num_compared: of whose responses the baseline's log-probs are computed.
    """

    num_prompts: int
    samples_per_prompt: int
    num_policies: int
    num_compared: int


def evaluation_time(shape: Evaluated, expected: ExpectedResponses, costs: OnlineCosts, start_s: float) -> StageTime:
    rows, length = shape.num_prompts * shape.samples_per_prompt, expected.prompt + expected.mean
    parts = {
        "start": start_s,
        "publish": shape.num_policies * costs.sampler.publish_s,
        "sample": shape.num_policies * costs.sampler.sample_s(rows, shape.num_prompts, *astuple(expected)),
        "score": shape.num_policies * sum(scorer.score_s(rows, length) for scorer in costs.scorers),
        "evaluate": shape.num_compared * costs.learner.forward_s(rows * length, length, rows * expected.mean),
    }
    return StageTime("eval", parts)
