"""What the reward of an episode's turn counts in the response's."""

import pytest

from plumbob.configs.load_run import load_eval, load_run
from plumbob.configs.runs import OnlineRun
from plumbob.core.errors import UserError
from plumbob.reward.open_scorer import open_scorer
from plumbob.reward.scorer import ScoreRequest
from plumbob.trainers.online.part_rewards import turn_reward_scale

GIVEN = ["policy.model=p", "data.prompts=x.jsonl", "rollout.environment.source=a.py:World"]
ENVIRONMENT = "{kind: environment, weight: 0.5}"
LENGTH = "{kind: length, max: 5}"


@pytest.mark.parametrize(
    ("parts", "others", "expected"),
    [
        (f"[{ENVIRONMENT}]", [], 0.5),
        (f"[{LENGTH}, {ENVIRONMENT}]", ["online.shaping.scale=3"], 1.5),
        (f"[{LENGTH}]", [], 0.0),
        # Its place in its group counts then, and not by how much.
        (f"[{LENGTH}, {ENVIRONMENT}]", ["online.combine_parts=standardised", "online.samples_per_prompt=2"], 0.0),
    ],
)
def test_by_its_weight_and_the_scale(parts: str, others: list[str], expected: float) -> None:
    run = load_run("ppo", [*GIVEN, f"reward.parts={parts}", *others])
    assert isinstance(run, OnlineRun)
    assert turn_reward_scale(run) == expected


def test_the_part_is_what_all_turns_earned() -> None:
    run = load_run("ppo", [*GIVEN, f"reward.parts=[{ENVIRONMENT}]"])
    assert isinstance(run, OnlineRun)
    scorer = open_scorer(run.reward.reward, "cpu")
    (score,) = scorer.score([ScoreRequest("a", "b", episode_reward=-3.0)])
    assert score.total == -1.5 and score.parts == {"environment": -3.0}
    with pytest.raises(ValueError, match="no environment answered"):
        scorer.score([ScoreRequest("a", "b")])


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("ppo", ["policy.model=p", "data.prompts=x.jsonl", "reward.model=r", f"gold_reward.parts=[{ENVIRONMENT}]"]),
        ("ppo", ["policy.model=p", "data.prompts=x.jsonl", f"reward.parts=[{ENVIRONMENT}]"]),
    ],
)
def test_it_needs_an_environment(kind: str, given: list[str]) -> None:
    with pytest.raises(UserError, match=r"is what an environment gives, and there is none: name it as rollout\.env"):
        load_run(kind, given)


def test_pairs_are_no_episodes() -> None:
    given = ["data.pairs=pairs.jsonl", f"reward.parts=[{ENVIRONMENT}]", "rollout.environment.source=a.py:World"]
    with pytest.raises(UserError, match=r"the responses of data\.pairs are none: measure it on data\.prompts"):
        load_eval(given)
