"""`plumbob config`: the settings for a person and for a script."""

import json

import pytest

from plumbob.console.cli import main


def test_a_key_shows_itself_and_what_is_below(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "reward_training.objective", "--kind", "reward"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(" ")[0] for line in lines if not line.startswith(" ")] == [
        "reward_training.objective.kind",
        "reward_training.objective.flip_rate",
        "reward_training.objective.use_margin",
    ]
    assert lines[0] == 'reward_training.objective.kind = "bradley-terry"'
    told = " ".join(line.strip() for line in lines)
    assert "number from 0 on and below 0.5; only with reward_training.objective.kind=bradley-terry" in told
    assert "plackett-luce: Likelihood of a whole ranking of responses (Plackett 1975)." in told


def test_a_script_gets_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "storage.path", "--json"]) == 0
    (setting,) = json.loads(capsys.readouterr().out)["settings"]
    assert (setting["key"], setting["default"], setting["type"]) == ("storage.path", "runs", "text")
    assert len(setting["runs"]) == 9
    assert main(["config", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["settings"]) > 300


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["online.num_stps"], "online.num_stps: no setting is called that; did you mean online.num_steps"),
        (["micro_batch_size"], "did you mean learner.micro_batch_size?"),
        (
            ["online.clip_range"],
            "online.clip_range: no setting is called that; it is part of online.policy_loss.clip_range now",
        ),
        (["zzz"], "zzz: no setting is called that; `plumbob config` lists all"),
        (["online.num_steps", "--kind", "dpo"], "online.num_steps: no setting is called that"),
        (["--kind", "pppo"], "--kind pppo: no kind of run; expected one of pretrain, "),
    ],
)
def test_a_key_that_there_is_not(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", *arguments]) == 2
    assert message in capsys.readouterr().err
