"""The preset with rules alone as its reward, on a row like GSM8K's."""

import pytest

from plumbob.configs.load_run import load_run
from plumbob.configs.runs import OnlineRun
from plumbob.reward.open_scorer import check_reward, open_scorer
from tests.support.rule_values import score_of


@pytest.mark.parametrize(
    ("response", "right", "marked"),
    [
        ("48 / 2 = 24, so 72 in all.\n#### 72", 1, 1),
        ("She sold 72.", 1, 0),
        ("#### $72.00 ", 1, 1),
        ("#### 71", 0, 1),
        ("#### many", 0, 0),
        ("72 ####", 0, 0),
        ("", 0, 0),
    ],
)
def test_a_response_earns_the_number_and_a_tenth_for_its_mark(response: str, right: float, marked: float) -> None:
    run = load_run("verifiable", ["policy.model=sft", "data.prompts=prompts.jsonl"])
    assert isinstance(run, OnlineRun)
    check_reward(run.reward.reward)
    score = score_of(open_scorer(run.reward.reward, "cpu"), response, {"answer": "48 + 24 = <<48+24=72>>72\n#### 72"})
    assert (score.parts, score.total) == ({"right": right, "marked": marked}, pytest.approx(right + 0.1 * marked))
