"""Presets, files and overrides become a run; every setting error is named with its place and its key."""

import json
from pathlib import Path

import pytest

from plumbob.configs.load_run import load_eval, load_run
from plumbob.configs.resolved_copy import read_resolved, write_resolved
from plumbob.configs.runs import EvalRun, OnlineRun, PretrainRun
from plumbob.configs.settings.algorithms import AdaptiveKl, FixedKl, Rloo
from plumbob.configs.settings.models import NewLlamaSettings
from plumbob.configs.settings.rewards import REWARDS_TODAY
from plumbob.configs.settings.workers import TransformersEngine, VllmEngine
from plumbob.core.errors import UserError
from plumbob.driver.stages.prepare import prepare

PPO = ["policy.model=sft", "reward.model=rm", "data.prompts=prompts.jsonl"]


def errors(config: str, *overrides: str) -> list[str]:
    with pytest.raises(UserError) as caught:
        load_run(config, overrides)
    return str(caught.value).splitlines()


def online(*overrides: str) -> OnlineRun:
    run = load_run("ppo", [*PPO, *overrides])
    assert isinstance(run, OnlineRun)
    return run


# ---------------------------------------------------------------------------------------------------- what is accepted


def test_overrides_replace_settings_with_their_yaml_value() -> None:
    run = online(
        *(
            "online.num_steps=7",
            "online.policy_loss.dual_clip=3",
            "online.shaping.clip=null",
            "online.learning_rate=1e-4",
        ),
        *("learner.gradient_checkpointing=true", "online.monitors.kl.action=off"),
    )
    assert (run.online.num_steps, run.online.policy_loss.dual_clip, run.online.shaping.clip) == (7, 3.0, None)
    assert (run.online.learning_rate, run.learner.gradient_checkpointing) == (1e-4, True)
    assert run.online.monitors.kl.action == "off"  # Which YAML 1.1 takes for false.


def test_the_name_is_the_preset_or_the_file_unless_given(tmp_path: Path) -> None:
    file = tmp_path / "my-run.yaml"
    file.write_text("kind: pretrain\ndata: {text: a.txt}\npolicy: {model: base}\n")
    assert online().name == "ppo"
    assert load_run(str(file)).name == "my-run"
    assert load_run(str(file), ["name=2026-01-01"]).name == "2026-01-01"


def test_the_name_is_one_that_no_earlier_run_has_also_below_a_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    run = online("storage.path=~/runs")
    assert (run.name, run.storage.path) == ("ppo", str(tmp_path / "runs"))
    (tmp_path / "runs/ppo").mkdir(parents=True)
    (tmp_path / "runs/ppo-2").mkdir()
    assert online("storage.path=~/runs").name == "ppo-3"


def test_a_group_without_kind_has_the_default_kind(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("kind: sft\ndata: {demonstrations: a}\npolicy: {model: base, tuning: {rank: 3}}\nlearner:\n")
    run = load_run(str(file))
    assert run.kind == "sft"
    assert run.policy.tuning.kind == "lora"
    assert run.policy.tuning.rank == 3


def test_another_kind_starts_its_group_anew() -> None:
    # The preset gives kl.kind=adaptive with target 4.0, and a vLLM engine with kv_cache_gib: neither fits the new kind.
    assert online("online.kl.coefficient=0.2", "online.kl.kind=fixed").online.kl == FixedKl(coefficient=0.2)
    assert online("online.estimator.kind=rloo", "online.samples_per_prompt=4").online.estimator == Rloo()
    assert online("rollout.engine.kind=transformers").rollout.engine == TransformersEngine()
    assert online("online.kl.coefficient=0.2").online.kl == AdaptiveKl(coefficient=0.2, target=4.0)
    assert online("rollout.engine.max_num_seqs=3").rollout.engine == VllmEngine(kv_cache_gib=1.0, max_num_seqs=3)


def test_a_path_replaces_a_model_to_be_made() -> None:
    run = load_run("pretrain", ["data.text=a.txt", "policy.model=/models/base"])
    assert isinstance(run, PretrainRun)
    assert run.policy.model == "/models/base"
    made = load_run("pretrain", ["data.text=a.txt", "policy.model.num_layers=3"])
    assert isinstance(made, PretrainRun)
    assert isinstance(made.policy.model, NewLlamaSettings)
    assert made.policy.model.num_layers == 3


def test_eval_needs_no_preset() -> None:
    run = load_eval(["reward.model=rm", "data.pairs=pairs.jsonl"])
    assert isinstance(run, EvalRun)
    assert (run.name, run.reward.model, run.data.pairs) == ("eval", "rm", "pairs.jsonl")


# ------------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("online.num_stpes=3", "command line: online.num_stpes: unknown key; did you mean online.num_steps?"),
        ("num_steps=3", "command line: num_steps: unknown key; did you mean online.num_steps?"),
        ("online.action=warn", "command line: online.action: unknown key; known below online: "),
        ("rollout.model=rm", "command line: rollout.model: unknown key; known below rollout: "),
        ("temperature=1", "command line: temperature: unknown key; did you mean rollout.temperature?"),
        ("judge_model=rm", "command line: judge_model: unknown key; known here: name, seed, "),
        ("batch_size=3", "unknown key; did you mean reward.batch_size or gold_reward.batch_size?"),
        ("online.max_restart=3", "command line: online.max_restart: unknown key; known below online: "),
        (
            "data.foo.bar=3",
            "command line: data.foo: unknown key; known below data: columns, bad_rows, ",
        ),
        ("policy.tuning.rnak=3", "command line: policy.tuning.rnak: unknown key; did you mean policy.tuning.rank?"),
        ("rollout.engine.kv_cache=1", "unknown key; did you mean rollout.engine.kv_cache_gib?"),
        ("online.num_steps=many", "online.num_steps: expected a whole number, found the text 'many'"),
        ("online.num_steps=2.5", "online.num_steps: expected a whole number, found 2.5"),
        ("online.num_steps=true", "online.num_steps: expected a whole number, found true"),
        ("online.num_steps=0", "online.num_steps: expected a number greater than 0, found 0"),
        ("online.num_steps=null", "online.num_steps: expected a whole number, found null"),
        ("online.learning_rate=.inf", "online.learning_rate: expected a finite number, found inf"),
        (
            "learner.gradient_checkpointing=maybe",
            "gradient_checkpointing: expected true or false, found the text 'maybe'",
        ),
        ("learner.zero_stage=7", "learner.zero_stage: expected one of 0, 1, 2 or 3, found 7"),
        ("learner=3", "learner: expected a group of settings, found 3"),
        ("policy.model=5", "policy.model: expected text, found 5"),
        ("policy.tuning.targets=5", "policy.tuning.targets: expected 'all-linear' or a list, found 5"),
        (
            "rollout.engine.kind=vlm",
            "rollout.engine.kind: expected one of 'vllm', 'transformers', found the text 'vlm'",
        ),
        ("name=../elsewhere", "name: expected a folder's name without slashes, found the text '../elsewhere'"),
    ],
)
def test_one_setting_error_is_one_line_with_key_expectation_and_finding(override: str, message: str) -> None:
    (line,) = errors("ppo", *PPO, override)
    assert message in line


@pytest.mark.parametrize(
    "override",
    [
        "online.reward_fn=x",
        "custom_reward_function.path=x.py",
        "rewards.model=x",
        "reward_function=x",
        "reward.function=x",
        "reward=x",
        "online.estimator.reward_func=x",
        "rollout.reward_url=x",
        "data.reward_column=x",
    ],
)
def test_whatever_names_a_reward_is_told_what_one_must_be(override: str) -> None:
    (line,) = errors("ppo", *PPO, override)
    assert line.startswith(f"command line: {override.partition('=')[0].removesuffix('.path').removesuffix('.model')}: ")
    assert line.endswith(f"; {REWARDS_TODAY}")


@pytest.mark.parametrize("override", ["reward_traning.num_epochs=3", "reward.batch_sise=3", "online.max_staleness_=3"])
def test_what_is_misspelt_elsewhere_is_not(override: str) -> None:
    assert "a reward is a trained" not in "".join(errors("toy", override))


def test_a_length_of_another_trainer_suggests_nothing_of_another_section() -> None:
    """`cluster.max_restarts`, which is spelt much alike, has another meaning."""
    (line,) = errors("sft", "policy.model=base", "data.demonstrations=rows.jsonl", "sft.max_steps=5")
    assert line.startswith("command line: sft.max_steps: unknown key; known below sft: ") and "restarts" not in line


def test_a_key_of_another_kind_is_told_apart_from_a_misspelt_one() -> None:
    (line,) = errors("ppo", *PPO, "online.kl.target=3", "online.kl.kind=fixed")
    assert line.endswith("online.kl.target: not a key of online.kl.kind=fixed; it belongs to online.kl.kind=adaptive")


def test_all_setting_errors_are_reported_with_the_line_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("kind: dpo\ndata:\n  pair: a.jsonl\ndpo:\n  loss:\n    beta: much\n  batchsize: 4\n")
    assert sorted(errors(str(file), "seed=-1")) == sorted(
        [
            f"{file}, line 3: data.pair: unknown key; did you mean data.pairs?",
            f"{file}: policy.model: missing key; "
            "give it as policy.model=... on the command line or as policy.model in the file",
            f"{file}, line 6: dpo.loss.beta: expected a number, found the text 'much'",
            f"{file}, line 7: dpo.batchsize: unknown key; did you mean dpo.batch_size?",
            "command line: seed: expected a number that is at least 0, found -1",
        ]
    )


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["learner.num_workers=3"], "online.minibatch_size=32 cannot be shared equally by learner.num_workers=3"),
        (["online.prompts_per_step=40"], "= 40 samples cannot be cut into minibatches of online.minibatch_size=32"),
        (
            ["online.max_staleness=2", "online.importance.kind=none"],
            "online.max_staleness=2 trains on tokens of older policies",
        ),
        (["online.kl.place=loss"], "online.kl.estimate=k1: its gradient is zero in expectation"),
        (["online.kl.estimate=k2"], "online.kl.place=reward with online.kl.estimate=k2: as a reward it "),
        (["online.estimator.kind=rloo"], "online.estimator.kind=rloo compares the responses to one prompt"),
        (["online.dynamic_sampling.max_rounds=2"], "looks for prompts whose responses differ in reward"),
        (["online.policy_loss.kind=gspo"], "online.policy_loss.kind=gspo with online.loss_mean=token"),
        (
            ["rollout.max_tokens=64", "online.shaping.overlong_penalty={cache_tokens: 65}"],
            "online.shaping.overlong_penalty.cache_tokens=65 is more than rollout.max_tokens=64",
        ),
        (["policy.tuning.dropout=0.1"], "set policy.tuning.dropout=0"),
    ],
)
def test_settings_that_do_not_fit_together(overrides: list[str], message: str) -> None:
    (line,) = errors("ppo", *PPO, *overrides)
    assert message in line


def test_a_monitor_that_is_to_stop_a_run_needs_something_to_watch() -> None:
    stop = "online.monitors.over_optimisation.action=stop"
    (line,) = errors("hh-minilm-cpu", "data.pairs=pairs.jsonl", stop)
    assert "there is no gold reward: give an online run a gold_reward.model" in line
    assert load_run("toy", [stop])  # Its rule is one.
    with pytest.raises(UserError, match="there is no gold reward"):
        prepare(online(stop))


def test_eval_of_nothing_is_refused() -> None:
    with pytest.raises(UserError, match=r"^nothing to measure: give data\.pairs=FILE"):
        load_eval(["reward.model=rm"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: sft\nsft: [1\nx: 2\n", ", line 3, column 2: this is not valid YAML"),
        ("kind: sft\nseed: 1\nseed: 2\n", ", line 3, column 1: this is not valid YAML: the key seed twice"),
        ("- kind: sft\n", "expected settings such as `kind: sft`, found the list"),
        ("", "expected settings such as `kind: sft`, found null"),
        ("seed: 1\n", "kind is missing; expected one of pretrain, "),
        ("kind: stf\n", "kind is the text 'stf'; expected one of .*; did you mean sft?"),
    ],
)
def test_a_file_that_is_no_configuration(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        load_run(str(file))
    assert str(caught.value).startswith(str(file))


def test_unknown_presets_and_files_name_what_there_is() -> None:
    assert errors("pop")[0].startswith(
        "pop: unknown preset; did you mean ppo? presets: calculator, cispo, dapo, distill, dpo, "
    )
    assert errors("nowhere/ppo.yaml")[0].startswith(
        "nowhere/ppo.yaml: there is no such file; presets: calculator, cispo, dapo, distill, dpo, "
    )


@pytest.mark.parametrize("override", ["num_steps", "=3", "online..num_steps=3", "online.num_steps=[1", "seed.x=3"])
def test_overrides_that_are_none(override: str) -> None:
    (line,) = errors("pretrain", "data.text=a", "seed=1", override)
    assert line.startswith((override, "seed.x: seed is 1, which has no settings below it"))


# --------------------------------------------------------------------------------------------------- the resolved copy


def test_the_resolved_copy_gives_back_the_same_run(tmp_path: Path) -> None:
    run = online('policy.tuning.targets=["q_proj", "v_proj"]', "online.policy_loss.dual_clip=null")
    write_resolved(run, tmp_path / "run")
    assert read_resolved(tmp_path / "run") == run
    content = json.loads((tmp_path / "run" / "resolved.json").read_text())
    assert content["config"]["online"]["estimator"]["lam"] == 0.95
    assert {"torch", "ray", "peft"} <= content["packages"].keys()
    assert content["machine"]["num_cpus"] >= 1
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["resolved.json"]


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"this is no run: it has no resolved\.json"):
        read_resolved(tmp_path)
    (tmp_path / "resolved.json").write_text('{"config": ')
    with pytest.raises(UserError, match="expected the settings of a run as JSON"):
        read_resolved(tmp_path)
