"""A run whose reward is a function of the user's alone, which reads a column of the prompts' file."""

import io
import json
from pathlib import Path

import pytest

from plumbob.console.cli import main
from plumbob.console.display import PlainConsole
from plumbob.core.errors import RunFailed
from tests.support.score_functions import write_function
from tests.support.small_run import TRANSFORMERS, Left, Stages, settings
from tests.support.tiny_policy import write_policy

WANTED = {"the car": "e", "a door": "o", "red": "a", "an engine": "x"}
PROMPTS = [{"prompt": f"{text} {number}", "letter": letter} for text, letter in WANTED.items() for number in range(4)]

BODY = """
    def score(prompt, response, row):
        if len(response) % 4 == 0:
            raise ValueError("a length that it does not like")
        return response.count(row["letter"])
    """


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the function, the prompts and the policy."""
    folder = tmp_path_factory.mktemp("mine")
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PROMPTS))
    write_function(folder, BODY)
    write_policy(folder / "policy")
    return folder


@pytest.fixture(autouse=True)
def in_the_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


@pytest.fixture(scope="module")
def given(folder: Path) -> dict[str, object]:
    """Settings of a run of two steps; the file of the function is named from the working folder."""
    part = "{kind: function, function: my_reward.py:score, weight: 2, on_failure: -1, name: letters}"
    return {
        "policy.model": folder / "policy",
        "data.prompts": folder / "prompts.jsonl",
        "data.max_prompt_tokens": 32,
        "reward.parts": f"[{part}]",
        "reward.num_cpus": 0.25,
        "rollout.num_cpus": 0.25,
        "rollout.max_tokens": 8,
        "online.num_steps": 2,
        "online.prompts_per_step": 4,
        "online.minibatch_size": 8,
        "online.samples_per_prompt": 2,
        "online.keep_checkpoints": 2,
        **TRANSFORMERS,
    }


def test_a_function_is_what_a_policy_learns_from(stage: Stages, folder: Path, given: dict[str, object]) -> None:
    shown = io.StringIO()
    left = stage("letters", "rloo", given, listener=PlainConsole(shown))
    rows = [row for _, row in left.journal]
    assert len(rows) == 2 * 4 * 2
    by_text = {row["prompt"]: row for row in PROMPTS}
    failed = 0
    for row in rows:
        assert row.prompt_row == by_text[row.prompt]
        value = -1 if len(row.response) % 4 == 0 else row.response.count(by_text[row.prompt]["letter"])
        failed += value == -1
        assert row.rewards == {"letters": value} and row.score == 2 * value
    metrics = [line["metrics"] for line in left.metrics]
    assert sum(line.get("reward_failures/letters", 0) for line in metrics) == failed
    values = [row.rewards["letters"] for row in rows[:8]]
    assert metrics[0]["reward_mean/letters"] == pytest.approx(sum(values) / 8)
    if failed:  # Which responses are sampled is not for this test to say.
        assert " x ValueError), the first of them for ValueError: a length that it does" in shown.getvalue()
    resolved = json.loads((left.folder / "resolved.json").read_text())
    assert list(resolved["sources"]) == [f"{folder}/my_reward.py:score"]


def test_it_resumes_on_the_same_source_alone(stage: Stages, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """As of a run that ended before its time: without a summary."""
    run = stage.storage / "letters"
    (run / "summary.json").unlink()
    source = folder / "my_reward.py"
    before = source.read_text()
    source.write_text(before.replace("ValueError", "KeyError"))
    assert main(["resume", str(run)]) == 2
    assert f"{source} is not the source that the run began with" in capfd.readouterr().err
    source.write_text(before)
    stage.resume(Left(run))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("my_reward.py:score", "my_reward.py:scores"), "my_reward.py has no scores; its functions: score"),
        (("my_reward.py:score", "gone.py:score"), "there is no such file on this host"),
    ],
)
def test_what_is_no_reward_is_refused_before_anything_starts(
    change: tuple[str, str],
    message: str,
    stage: Stages,
    given: dict[str, object],
    capfd: pytest.CaptureFixture[str],
) -> None:
    other = {"reward.parts": str(given["reward.parts"]).replace(*change), "name": "refused"}
    for command in ("plan", "run"):
        assert main([command, "rloo", *settings(stage.cluster, given, other)]) == 2
        assert message in capfd.readouterr().err
    assert not (stage.storage / "refused").exists()


def test_a_failure_stops_the_run_with_the_users_lines(stage: Stages, folder: Path, given: dict[str, object]) -> None:
    write_function(folder, "def score(prompt, response, row):\n    return row['no such column']", file="other.py")
    with pytest.raises(RunFailed) as error:
        stage("stopped", "rloo", given, {"reward.parts": "[{kind: function, function: other.py:score}]"})
    said = str(error.value)
    assert "other.py:score failed on the response" in said and "return row['no such column']" in said
    assert "function_program" not in said
