"""What each reward says of itself, and that settings written as they always were give it."""

import json
from pathlib import Path

import pytest

from plumbob.configs.base import IsFunction
from plumbob.configs.load_run import load_run
from plumbob.configs.paths import with_absolute_paths
from plumbob.configs.resolved_copy import read_resolved
from plumbob.configs.resume_rules import changes, check_changes
from plumbob.configs.runs import OnlineRun
from plumbob.configs.schema import marked_texts
from plumbob.configs.settings.models import ModelRef
from plumbob.configs.settings.reward_parts import ModelPart
from plumbob.configs.settings.rewards import (
    CombinedReward,
    EnsembleReward,
    GoldRewardSettings,
    ModelReward,
    PipelineScorerSettings,
    RuleReward,
    ScorerSettings,
)
from plumbob.core.errors import UserError

PPO = ("policy.model=sft", "reward.model=rm", "data.prompts=prompts.jsonl", "name=mine")


def test_one_reward_model() -> None:
    reward = ScorerSettings(model="rm", batch_size=4, max_tokens=16).reward
    assert reward == ModelReward(ModelRef("rm", "reward.model"), 4, 16, is_calibrated=True)
    assert reward.models == (ModelRef("rm", "reward.model"),)
    assert (reward.batch_size, reward.is_calibrated) == (4, True)
    assert not ScorerSettings(model="rm", normalize=False).reward.is_calibrated


def test_several_reward_models() -> None:
    reward = ScorerSettings(model="rm", ensemble=("a", "b"), uncertainty_penalty=0.5, batch_size=4).reward
    assert isinstance(reward, EnsembleReward)
    assert [(ref.name, ref.setting) for ref in reward.models] == [
        ("rm", "reward.model"),
        ("a", "reward.ensemble"),
        ("b", "reward.ensemble"),
    ]
    assert (reward.uncertainty_penalty, reward.batch_size, reward.is_calibrated) == (0.5, 4, True)


def test_a_rule_has_no_models() -> None:
    reward = RuleReward(lambda prompt, response: 1.0)
    assert (reward.models, reward.batch_size, reward.is_calibrated) == ((), 32, False)


def test_a_second_reward_model_is_named_by_its_own_section() -> None:
    reward = GoldRewardSettings(model="rm", ensemble=("a",)).reward
    assert [str(ref) for ref in reward.models] == ["gold_reward.model=rm", "gold_reward.ensemble=a"]


def test_uncalibrated_is_one_model_alone() -> None:
    assert not ScorerSettings(model="rm").uncalibrated().reward.is_calibrated
    several = ScorerSettings(model="rm", ensemble=("a",))
    assert several.uncalibrated() == several


def test_a_pipelines_scorers_have_the_model_that_it_trained() -> None:
    settings = PipelineScorerSettings(model="encoder", ensemble=("a",), uncertainty_penalty=1.0, num_workers=3)
    assert settings.trained("/run/reward_model") == ScorerSettings(
        model="/run/reward_model", ensemble=("a",), uncertainty_penalty=1.0, num_workers=3
    )
    # The encoder is none of them: its place is taken by what is trained.
    assert [str(ref) for member in settings.further_members for ref in member.models] == ["reward.ensemble=a"]


@pytest.mark.parametrize("section", ["reward", "gold_reward"])
def test_errors_name_the_section_in_which_they_are(section: str) -> None:
    given = (*PPO, "gold_reward.model=gold")
    for override, message in (
        ("uncertainty_penalty=0.5", "{0}.uncertainty_penalty=0.5 is for reward models that disagree, and there is one"),
        ("ensemble=[a]", "{0}.ensemble with {0}.normalize=false: raw scores of different models have different units"),
        ("ensembel=[a]", "command line: {0}.ensembel: unknown key; did you mean {0}.ensemble?"),
        (
            "function=my.py:score",
            "command line: {0}.function: unknown key; known below {0}: num_workers, num_threads, ",
        ),
    ):
        extra = [f"{section}.normalize=false"] if override == "ensemble=[a]" else []
        with pytest.raises(UserError) as caught:
            load_run("ppo", [*given, f"{section}.{override}", *extra])
        assert str(caught.value).startswith(message.format(section))


def test_parts_of_several_kinds_with_weights() -> None:
    part = ModelPart(model="other", weight=-0.5, max_tokens=16, name="second")
    reward = ScorerSettings(model="rm", parts=(part,)).reward
    assert isinstance(reward, CombinedReward)
    assert [(one.name, one.weight, one.is_gate) for one in reward.parts] == [
        ("model", 1.0, False),
        ("second", -0.5, False),
    ]
    assert [str(ref) for ref in reward.models] == ["reward.model=rm", "reward.parts.0.model=other"]
    alone = ScorerSettings(parts=(part,)).reward
    assert isinstance(alone, CombinedReward) and len(alone.parts) == 1


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            "[{kind: model, model: a, weigth: 2}]",
            "reward.parts.0.weigth: unknown key; did you mean reward.parts.0.wei",
        ),
        ("[{kind: model, model: a, weight: .inf}]", "reward.parts.0.weight: expected a finite number, found inf"),
        ("[{kind: model, model: a}]", "reward.parts: the name 'model' is taken"),
        ("[{kind: model, model: a, name: gold_reward}]", "reward.parts: the name 'gold_reward' is taken"),
        ("[{kind: model, weight: 2, name: b}]", "reward.parts.0.model: missing key"),
        ("[{kind: function, model: a}]", "reward.parts.0.model: not a key of reward.parts.0.kind=function; it belongs"),
        (
            "[{kind: function, function: my_reward}]",
            "reward.parts.0.function: expected file.py:function or package.mod",
        ),
        ("[{kind: function, function: 'a.py:'}]", "reward.parts.0.function: expected file.py:function or package.mod"),
        ("[{kind: function, function: 'a-b:f'}]", "reward.parts.0.function: expected file.py:function or package.mod"),
        ("[{kind: function, function: 'a:f', on_failure: never}]", "reward.parts.0.on_failure: expected"),
        ("[{model: a}]", "reward.parts.0.kind: missing key; give it, one of model, environment, "),
        ("[{kind: modle, model: a}]", "reward.parts.0.kind: expected one of 'model', 'environment'"),
        ("[{kind: exact, columns: a}]", "reward.parts.0.columns: unknown key; did you mean reward.parts.0.column?"),
        (
            "[{kind: exact, pattern: a}]",
            "reward.parts.0.pattern: not a key of reward.parts.0.kind=exact; it belongs to reward.parts.0.kind=regex",
        ),
        ("[{kind: exact}, {kind: exact, column: b}]", "reward.parts: the name 'exact' is taken"),
        ("[{kind: contains, texts: []}]", "reward.parts.0.texts: "),
        ("[{kind: length}]", "a count without bounds: give min, max or both"),
        ("[{kind: length, min: 3, max: 2}]", "a count between min=3 and max=2: min must not be above max"),
        (
            "[{kind: instructions}]",
            "a part of kind instructions has none: give instructions=[{kind: sentences, max: 1}",
        ),
        (
            "[{kind: instructions, instructions: [{kind: words, maxx: 3}]}]",
            "reward.parts.0.instructions.0.maxx: unknown key; did you mean reward.parts.0.instructions.0.max?",
        ),
        (
            "[{kind: instructions, instructions: [{max: 3}]}]",
            "reward.parts.0.instructions.0.kind: missing key; give it, one of words, sentences, ",
        ),
    ],
)
def test_errors_in_a_part_name_it(parts: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        load_run("ppo", [*PPO, f"reward.parts={parts}"])
    assert str(caught.value).removeprefix("command line: ").startswith(message)


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("https://me:word@host/score", "without user and password"),
        ("https://word@host/score", "without user and password"),
        ("https://host/score?api_key=word", "without a key or token"),
        ("https://host/score?v=1&apiKey=word", "without a key or token"),
        ("https://host/score?X-Signature=word", "without a key or token"),
        ("https://host/score?token=", "without a key or token"),
    ],
)
@pytest.mark.parametrize("part", ["kind: http", "kind: llm-judge, model: m, rubric: r"])
def test_the_address_of_a_service_holds_no_secret(url: str, what: str, part: str) -> None:
    with pytest.raises(UserError, match=rf"reward\.parts\.0\.url: expected an address {what}.*the environment keeps"):
        load_run("ppo", [*PPO, f"reward.parts=[{{{part}, url: '{url}'}}]"])


def test_the_address_of_a_service_may_have_a_query() -> None:
    url = "https://host/score?api-version=2024-10-21&max_tokens=3&keyboard=qwerty"
    load_run("ppo", [*PPO, f"reward.parts=[{{kind: http, url: '{url}'}}]"])


def test_a_function_of_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    parts = (
        "[{kind: function, function: my_reward.py:score}, {kind: function, function: a.b:c, name: c, on_failure: 0}]"
    )
    config = load_run("ppo", [*(one for one in PPO if "reward.model" not in one), f"reward.parts={parts}"])
    assert isinstance(config, OnlineRun)
    reward = config.reward.reward
    assert isinstance(reward, CombinedReward) and reward.reads_rows and reward.models == ()
    assert [part.name for part in reward.parts] == ["function", "c"]
    # A file is found from any working folder.
    found = with_absolute_paths(config)
    functions = [("reward.parts.0.function", f"{tmp_path}/my_reward.py:score"), ("reward.parts.1.function", "a.b:c")]
    assert list(marked_texts(found, IsFunction)) == functions


def test_one_part_of_a_file_is_changed_on_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "kind: online\npolicy: {model: sft}\ndata: {prompts: p.jsonl}\nreward:\n  parts:\n"
        "    - {kind: model, model: a}\n    - kind: model\n      model: b\n      name: second\n      weight: 1\n"
    )
    run = load_run(str(file), ["reward.parts.1.weight=0.5"])
    assert isinstance(run, OnlineRun) and [part.weight for part in run.reward.parts] == [1.0, 0.5]
    for override, message in (
        ("reward.parts.1.weight=x", "command line: reward.parts.1.weight: expected a number, found the text 'x'"),
        ("reward.parts.2.weight=1", "reward.parts.2.weight: reward.parts.2 is null, which has no settings below it"),
    ):
        with pytest.raises(UserError) as caught:
            load_run(str(file), [override])
        assert str(caught.value) == message
    file.write_text(file.read_text().replace("weight: 1", "wieght: 1"))
    with pytest.raises(UserError, match=r"mine\.yaml, line 10: reward\.parts\.1\.wieght: unknown key; did you mean"):
        load_run(str(file), [])


def test_the_parts_of_a_pipeline_read_the_rows_of_its_prompts() -> None:
    load_run("toy", ["reward.parts=[{kind: length, max: 9}, {kind: instructions, instructions: [{kind: lowercase}]}]"])
    load_run("toy", ["reward.parts=[{kind: http, url: 'http://localhost:1/score'}]"])
    given = ["data.pairs=pairs.jsonl", "reward.parts=[{kind: exact, column: label}]"]
    load_run("hh-minilm-cpu", [*given, "data.prompts=prompts.jsonl"])
    for preset, overrides in (("hh-minilm-cpu", given), ("toy", given[1:])):
        with pytest.raises(
            UserError, match=r"exact needs the column 'label' of the prompts' rows, .*data\.prompts=FILE"
        ):
            load_run(preset, overrides)


@pytest.mark.parametrize(
    "parts",
    [
        "[{kind: length, max: 9, is_gate: true, weight: 0}]",
        "[{kind: length, max: 9, weight: 0}, {kind: http, url: 'http://localhost:1/score', weight: 0.0}]",
        "[{kind: model, model: a, name: a, weight: -0.0}]",
    ],
)
@pytest.mark.parametrize("section", ["reward", "gold_reward"])
def test_parts_of_which_none_has_a_weight_are_no_reward(parts: str, section: str) -> None:
    given = [one for one in PPO if not one.startswith(f"{section}.")]
    with pytest.raises(UserError) as caught:
        load_run("ppo", [*given, f"{section}.parts={parts}"])
    assert str(caught.value) == (
        f"{section}.parts: the weight of every part is 0, so that every response is worth 0: give one a weight, a gate "
        f"too"
    )
    # With a weight, or beside one that has it, a gate is a reward.
    load_run("ppo", [*given, f"{section}.parts=[{{kind: length, max: 9, is_gate: true}}]"])
    load_run("ppo", [*given, f"{section}.model=rm", f"{section}.parts=[{{kind: length, max: 9, weight: 0}}]"])


def test_a_reward_of_nothing_is_refused() -> None:
    given = [one for one in PPO if not one.startswith("reward.model")]
    with pytest.raises(UserError, match=r"reward\.model is missing, and there are no reward\.parts; .*reward\.parts"):
        load_run("ppo", given)


def test_a_run_that_began_before_rewards_were_a_union_resumes(tmp_path: Path) -> None:
    """Its copy of the settings as it was written then."""
    threads = ("reward.num_threads=1", "gold_reward.num_threads=1")  # As nobody left them open then.
    asked = load_run("ppo", [*PPO, "reward.ensemble=[a]", "gold_reward.model=gold", *threads])
    config = asked.model_dump(mode="json")
    workers = {
        **{"num_workers": 1, "num_threads": 1, "num_cpus": 0.5, "num_gpus": 0.0, "memory_gib": 1.0},
        "placement": "spread",
    }
    # There were no parts then.
    of_model = {"uncertainty_penalty": 0.0, "batch_size": 32, "max_tokens": 256, "normalize": True}
    reward = {**workers, "model": "rm", "ensemble": ["a"], **of_model}
    judge = {**workers, "model": "gold", "ensemble": [], **of_model}
    for now, then in ((config["reward"], reward), (config["gold_reward"], judge)):
        assert [key for key in now if key != "parts"] == list(then)
    (tmp_path / "resolved.json").write_text(json.dumps({"config": {**config, "reward": reward, "gold_reward": judge}}))
    found = read_resolved(tmp_path)
    assert found == asked and isinstance(found, OnlineRun)
    assert found.gold_reward is not None and len(found.gold_reward.reward.models) == 1


@pytest.mark.parametrize(
    "override",
    ["reward.function=a.py:score", "reward.kinds=rule", "reward_funcs=[a]", "reward=a.py:score", "gold_reward=a.py"],
)
def test_a_reward_of_ones_own_is_told_what_a_reward_can_be(override: str) -> None:
    with pytest.raises(UserError, match=r"is a trained reward model, .*reward\.parts") as caught:
        load_run("ppo", [*PPO, override])
    assert "did you mean" not in str(caught.value)


def test_the_scale_of_parts_is_left_to_the_user() -> None:
    """Scores of calibrated models have the variance 1; a function may give 0 to 100."""
    part = "reward.parts=[{kind: model, model: a, name: b}]"
    clips = [load_run("ppo", [*PPO, *more]) for more in ((), (part,), (part, "online.shaping.clip=3"))]
    assert [run.online.shaping.clip for run in clips if isinstance(run, OnlineRun)] == [5.0, None, 3.0]


def test_a_run_resumes_with_a_service_that_has_moved() -> None:
    def resolved(**changes: object) -> dict[str, object]:
        part = {"kind": "http", "url": "http://old:1/score", "weight": 1.0} | changes
        return {"kind": "online", "reward": {"parts": [part]}}

    moved = changes(resolved(), resolved(url="http://new:1/score"))
    assert moved == {"reward.parts.0.url": ["http://old:1/score", "http://new:1/score"]}
    check_changes(OnlineRun, moved)
    with pytest.raises(UserError, match=r"^reward\.parts\.0\.weight: cannot change when a run resumes"):
        check_changes(OnlineRun, changes(resolved(), resolved(weight=2.0)))
