"""A run whose responses are programs, by the tests of their prompts' rows; the policy writes none that is right."""

import json
from pathlib import Path

import pytest

from plumbob.console.cli import main
from tests.support.small_run import TRANSFORMERS, Stages, settings
from tests.support.tiny_policy import write_policy

RIGHT_AND_WRONG = ["assert 1 + 1 == 2", "assert double(2) == 4"]
"""The one asks nothing of the program but that it runs."""


def test_programs_are_scored_by_the_rows_tests(
    stage: Stages, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    prompts = tmp_path / "prompts.jsonl"
    rows = [{"prompt": f"a car {number}", "tests": RIGHT_AND_WRONG} for number in range(4)]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = {
        "policy.model": write_policy(tmp_path / "policy"),
        "data.prompts": prompts,
        "data.max_prompt_tokens": 32,
        "reward.parts": "[{kind: code, value: share}]",
        "reward.num_cpus": 0.25,
        "rollout.num_cpus": 0.25,
        "rollout.max_tokens": 4,
        "online.num_steps": 1,
        "online.prompts_per_step": 4,
        "online.minibatch_size": 8,
        "online.samples_per_prompt": 2,
        **TRANSFORMERS,
    }
    found = [row for _, row in stage("programs", "rloo", given).journal]
    assert len(found) == 8 and all(row.prompt_row["tests"] == RIGHT_AND_WRONG for row in found)
    for row in found:
        try:
            compile(row.response, "program", "exec")
        except (SyntaxError, ValueError):
            assert row.rewards == {"code": 0.0, "code/passed": 0.0}
        else:  # Such as an empty one, or a name that is not there.
            assert row.rewards["code"] in (0.0, 0.5)
    prompts.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"prompt": "another", "tests": None}]))
    assert main(["plan", "rloo", *settings(stage.cluster, given, {"name": "refused"})]) == 2
    said = capfd.readouterr().err
    assert "the reward cannot score responses to 1 of " in said and "'tests' of the prompt's row" in said
