"""A run whose responses are episodes: what is learnt from, what is kept of them, and that it continues where it was."""

import json
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from plumbob.console.cli import main
from plumbob.data.texts.chat_text import PLAIN_CHAT_TEMPLATE
from plumbob.rollout.rollout_records import NO_VERSION
from tests.support.small_run import TRANSFORMERS, Left, Stages, settings
from tests.support.tiny_policy import EOS, write_policy

ENVIRONMENTS = Path(__file__).parents[1] / "support/echo_environments.py"
THINGS = ("car", "door", "engine", "red car", "four doors", "red door")


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """Settings of a run of PPO, of two steps, in which the environment asks about the row and answers twice."""
    folder = tmp_path_factory.mktemp("episodes")
    (folder / "rows.jsonl").write_text("".join(json.dumps({"thing": thing}) + "\n" for thing in THINGS))
    policy = write_policy(folder / "policy")
    tokenizer = AutoTokenizer.from_pretrained(policy)
    tokenizer.chat_template = PLAIN_CHAT_TEMPLATE
    tokenizer.save_pretrained(policy)
    return {
        "policy.model": policy,
        "data.prompts": folder / "rows.jsonl",
        "data.max_prompt_tokens": 64,
        "reward.parts": "[{kind: environment, weight: 0.5}]",
        "reward.num_cpus": 0.25,
        "rollout.num_cpus": 0.25,
        "rollout.max_tokens": 160,
        "rollout.environment.source": f"{ENVIRONMENTS}:Asking",
        "online.num_steps": 2,
        "online.prompts_per_step": 4,
        "online.samples_per_prompt": 2,
        "online.minibatch_size": 8,
        "online.keep_checkpoints": 2,
        **TRANSFORMERS,
    }


def test_episodes_are_learnt_from_and_kept_whole(stage: Stages, given: dict[str, object]) -> None:
    left = stage("asked", "ppo", given)
    rows = [row for _, row in left.journal]
    assert len(rows) == 2 * 4 * 2
    num_ended = 0
    for row in rows:
        assert row.prompt == f"\n\nHuman: about the {row.prompt_row['thing']}\n\nAssistant:"
        assert row.episode is not None and row.episode.failure is None
        turns = row.episode.turns
        num_ended += row.finish_reason == "stop"
        # Turn n earns n; one that was cut within earns nothing.
        expected = [1.0, 2.0][: len(turns)]
        if row.token_ids[-1] != EOS:
            expected[-1] = 0.0
        assert [turn.reward for turn in turns] == expected
        assert row.rewards == {"environment": sum(expected)} and row.score == pytest.approx(sum(expected) / 2)
        assert len(row.values) == len(row.token_ids)
        written_by_others = ~row.action_mask
        assert (row.versions[written_by_others] == NO_VERSION).all() and (row.versions[row.action_mask] >= 0).all()
        assert written_by_others.any() == (len(turns) > 1)
        # Nothing outside the policy's own tokens has a log-prob or a value.
        for numbers in (row.logprobs, row.ref_logprobs, row.values):
            assert (numbers[written_by_others] == 0).all()
    assert num_ended, "no episode came to its end"
    lines = [line["metrics"] for line in left.metrics]
    first = [row.episode for row in rows[:8] if row.episode is not None]
    assert lines[0]["episode_turns"] == pytest.approx(np.mean([len(episode.turns) for episode in first]))
    assert lines[0]["environment_failures"] == 0
    # The two engines agree on what the policy wrote, whatever stands between.
    assert max(line["sampler_gap_max"] for line in lines) < 1e-4
    assert main(["report", str(left.folder)]) == 0
    page = (left.folder / "report.html").read_text()
    assert "user: the car has" in page and "policy: " in page


def test_ahead_of_learning_versions_are_those_of_the_policys_own_tokens(
    stage: Stages, given: dict[str, object]
) -> None:
    """An environment's tokens have none, and no age: theirs would be that of a version before the first."""
    left = stage("ahead", "ppo", given, {"online.max_staleness": 1, "online.num_steps": 3})
    behind: dict[int, set[int]] = {1: set(), 2: set(), 3: set()}
    num_answered = 0
    for step, row in left.journal:
        assert (row.versions[~row.action_mask] == NO_VERSION).all()
        num_answered += not row.action_mask.all()
        (version,) = set(row.versions[row.action_mask].tolist())
        behind[step].add(step - 1 - version)
    assert num_answered, "no episode had a second turn"
    # Which version a later episode gets hangs on which of publishing and sampling is faster.
    assert behind[1] == {0} and behind[2] | behind[3] <= {0, 1}
    for line in left.metrics:
        metrics, ages = line["metrics"], behind[line["step"]]
        assert metrics["staleness_max"] == max(ages) and min(ages) <= metrics["staleness_mean"] <= max(ages)
        assert metrics["environment_failures"] == 0


def test_it_resumes_on_the_same_environment_alone(stage: Stages, capfd: pytest.CaptureFixture[str]) -> None:
    """As of a run that ended before its time: without a summary."""
    run = stage.storage / "asked"
    (run / "summary.json").unlink()
    resolved = run / "resolved.json"
    content = json.loads(resolved.read_text())
    (source,) = content["sources"]
    before = content["sources"][source]
    content["sources"][source] = "0" * len(before)
    resolved.write_text(json.dumps(content))
    assert main(["resume", str(run)]) == 2
    assert "is not the source that the run began with" in capfd.readouterr().err
    content["sources"][source] = before
    resolved.write_text(json.dumps(content))
    stage.resume(Left(run))


def test_an_evaluation_plays_whole_episodes_too(stage: Stages, given: dict[str, object]) -> None:
    of_eval = {key: value for key, value in given.items() if not key.startswith("online.")}
    asked = {"policy.model": stage.storage / "asked/policy", "evaluation.num_prompts": 4}
    assert "reward" in stage.evaluate(*settings(stage.cluster, of_eval, asked))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rollout.environment.source": f"{ENVIRONMENTS}:Forgetful"}, "gives other messages when it is reset again"),
        ({"rollout.environment.source": f"{ENVIRONMENTS}:Missing"}, "has no Missing"),
        (
            {"rollout.environment": "null"},
            "kind environment is what an environment gives, and there is none",
        ),
        ({"rollout.partial_tokens": 8}, "leave it out with rollout.environment"),
    ],
)
def test_what_cannot_be_played_is_refused_before_anything_starts(
    changes: dict[str, object],
    message: str,
    stage: Stages,
    given: dict[str, object],
    capfd: pytest.CaptureFixture[str],
) -> None:
    changed = {key: value for key, value in given.items() if key not in changes} | changes | {"name": "refused"}
    if "rollout.environment" in changes:
        del changed["rollout.environment.source"]
    assert main(["run", "ppo", *settings(stage.cluster, changed)]) == 2
    assert message in capfd.readouterr().err
    assert not (stage.storage / "refused").exists()
