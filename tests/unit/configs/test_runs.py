"""What a reward model may learn from, and what an ensemble needs."""

import pytest

from plumbob.configs.load_run import load_run
from plumbob.configs.runs import OnlineRun, RewardRun
from plumbob.core.errors import UserError

PPO = ("policy.model=sft", "reward.model=rm", "data.prompts=prompts.jsonl")
KIND = "reward_training.objective.kind="


def setting_error(config: str, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        load_run(config, overrides)
    return str(caught.value)


@pytest.mark.parametrize(
    ("preset", "stage"),
    [
        ("ppo", "ppo"),
        ("grpo", "grpo"),
        ("dr-grpo", "dr-grpo"),
        ("dapo", "grpo"),
        ("gspo", "grpo"),
        ("cispo", "grpo"),
        ("rloo", "rloo"),
        ("reinforce-plus-plus", "reinforce++"),
    ],
)
def test_policy_gradients_are_called_what_they_are(preset: str, stage: str) -> None:
    assert load_run(preset, PPO).stage == stage
    assert load_run("ppo", [*PPO, "online.estimator.kind=rloo", "online.samples_per_prompt=4"]).stage == "rloo"
    assert load_run("dpo", ["policy.model=m", "data.pairs=f"]).stage == "dpo"
    assert load_run("toy").stage == "pipeline"


@pytest.mark.parametrize(
    ("name", "objective"), [("pairs", "bradley-terry"), ("rankings", "plackett-luce"), ("scores", "regression")]
)
def test_each_kind_of_data_has_its_objective(name: str, objective: str) -> None:
    given = ("reward.model=bert", f"data.{name}=file.jsonl", f"data.heldout_{name}=other.jsonl")
    run = load_run("reward", [*given, f"{KIND}{objective}"])
    assert isinstance(run, RewardRun)
    assert run.data.kind == name
    for other in {"bradley-terry", "plackett-luce", "regression"} - {objective}:
        assert setting_error("reward", *given, f"{KIND}{other}") == (
            f"reward_training.objective.kind={other} does not learn from data.{name}: "
            f"set reward_training.objective.kind={objective}"
        )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((), "data.scores=FILE (a score for each response): found none of them"),
        (("data.pairs=a", "data.scores=b"), "found data.pairs and data.scores"),
        (
            ("data.pairs=a", "data.heldout_scores=b"),
            "data.heldout_scores does not go with data.pairs: give data.heldout_",
        ),
    ],
)
def test_a_reward_model_learns_from_one_file(given: tuple[str, ...], message: str) -> None:
    assert message in setting_error("reward", "reward.model=bert", *given)


def test_a_pipeline_has_pairs_without_margins() -> None:
    assert "kind=regression does not learn from data.pairs" in setting_error("toy", f"{KIND}regression")
    message = setting_error("toy", "reward_training.objective.use_margin=true")
    assert message.startswith("reward_training.objective.use_margin=true: the pairs of a pipeline carry no margin")


def test_an_ensemble_is_of_calibrated_models() -> None:
    run = load_run("ppo", [*PPO, "reward.ensemble=[a, team/b]", "reward.uncertainty_penalty=0.5"])
    assert isinstance(run, OnlineRun)
    assert (run.reward.ensemble, run.reward.uncertainty_penalty) == (("a", "team/b"), 0.5)
    assert "reward.uncertainty_penalty=0.5 is for reward models that" in setting_error(
        "ppo", *PPO, "reward.uncertainty_penalty=0.5"
    )
    assert "set reward.normalize=true" in setting_error("ppo", *PPO, "reward.ensemble=[a]", "reward.normalize=false")


def test_a_pipeline_compares_its_policies_over_several_prompts() -> None:
    assert "set evaluation.num_prompts=2 at least" in setting_error("toy", "evaluation.num_prompts=1")
