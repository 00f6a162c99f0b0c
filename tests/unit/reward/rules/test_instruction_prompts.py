"""The prompts of the preset `smollm2-instructions`: what each asks for is what its checks give 1 for."""

from pathlib import Path

import pytest

from examples.verifiable_instructions import INSTRUCTIONS, NUM_HELDOUT_TOPICS, TOPICS, rows_of, write_prompts
from plumbob.configs.load_run import load_run
from plumbob.configs.runs import OnlineRun
from plumbob.reward.open_scorer import open_scorer
from tests.support.rule_values import score_of

# Of each instruction, in their order: a response that keeps it, and one that does not.
RESPONSES = [
    ("Rain is water.", "Rain is water. It falls."),
    ("rain is water.", "Rain is water."),
    ("Rain falls and rivers rise.", "Rain falls, and rivers rise."),
    ("One two three four five six seven eight nine ten eleven twelve.", "a b c d e f g h i j k l m"),
    ("RAIN IS WATER.", "RAIN is water."),
    ("In my view rain is water.", "Rain is, in my view, water."),
    ('"Rain is water."', 'Rain is "water".'),
    ("A gentle rain.", "It rains gently."),
]


@pytest.mark.parametrize("number", range(len(INSTRUCTIONS)))
def test_a_response_is_worth_what_was_asked_for(number: int) -> None:
    run = load_run("smollm2-instructions", ["data.prompts=prompts.jsonl"])
    assert isinstance(run, OnlineRun)
    scorer = open_scorer(run.reward.reward, "cpu")
    row = rows_of(TOPICS[:1])[number]
    values = [score_of(scorer, response, row).total for response in RESPONSES[number]]
    assert values == [1, 0]


def test_no_topic_is_on_both_sides(tmp_path: Path) -> None:
    heldout, prompts = write_prompts(tmp_path)
    asked = [
        [line.split("about ")[1].split(".")[0] for line in path.read_text().splitlines()] for path in (heldout, prompts)
    ]
    assert set(asked[0]) == set(TOPICS[:NUM_HELDOUT_TOPICS]) and not set(asked[0]) & set(asked[1])
    assert [len(each) for each in asked] == [16 * 8, 32 * 8]
