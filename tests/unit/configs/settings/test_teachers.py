"""Distillation as settings: its teachers, the reward that may be left out, and what does not go with it."""

import pytest

from plumbob.configs.load_run import load_run
from plumbob.configs.runs import OnlineRun
from plumbob.configs.settings.algorithms import Distillation, algorithm_of, critic_of
from plumbob.configs.settings.models import ModelRef, TeacherSettings
from plumbob.core.errors import UserError

GIVEN = ("policy.model=small", "data.prompts=prompts.jsonl")
ONE = "teachers=[{model: large, dtype: bfloat16}]"
TWO = "teachers=[{model: large, name: maths}, {model: adapter, name: prose}]"


def distilled(*overrides: str) -> OnlineRun:
    run = load_run("distill", [*GIVEN, *overrides])
    assert isinstance(run, OnlineRun)
    return run


def setting_error(preset: str, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        load_run(preset, [*GIVEN, *overrides])
    (line,) = str(caught.value).splitlines()
    return line


def test_a_teacher_and_no_reward() -> None:
    run = distilled(ONE)
    assert (run.stage, run.reward, run.online.estimator) == ("distillation", None, Distillation(form="full", gamma=0.0))
    assert run.teachers == (TeacherSettings(model="large", dtype="bfloat16"),)
    assert run.teacher_refs == (ModelRef("large", "teachers.0.model", dtype="bfloat16"),)
    assert algorithm_of(run.online.estimator) == "distillation" and critic_of(run.online.estimator) is None


def test_several_teachers_and_a_reward_that_is_measured() -> None:
    run = distilled(
        TWO, "teachers_by=subject", "reward.model=rm", "online.estimator.form=sampled", "online.estimator.gamma=1"
    )
    assert [str(ref) for ref in run.teacher_refs] == ["teachers.0.model=large", "teachers.1.model=adapter"]
    assert run.reward is not None and run.teachers_by == "subject"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ((), "online.estimator.kind=distillation learns from a teacher: give teachers='[{model: FOLDER}]'"),
        ((TWO,), "where there are several; there is 2, and teachers_by is not set: set it for several"),
        ((ONE, "teachers_by=subject"), "there is one, and teachers_by is subject: set it for several"),
        (
            ("teachers=[{model: a}, {model: b}]", "teachers_by=subject"),
            "teachers: two are called 'teacher': give each a `name` of its own",
        ),
        ((ONE, "online.kl.coefficient=0.05"), "online.kl.coefficient=0.05 would hold the policy to what it began as"),
        (
            (ONE, "online.kl.kind=adaptive", "online.kl.coefficient=0.05"),
            "set online.kl.kind=fixed and online.kl.coefficient=0",
        ),
        (
            (ONE, "online.dynamic_sampling={max_rounds: 2}", "online.samples_per_prompt=2"),
            "online.dynamic_sampling looks at",
        ),
        ((ONE, "online.policy_loss.kind=gspo", "online.loss_mean=response"), "gspo has one ratio for a whole response"),
        ((ONE, "online.estimator.gamma=0.5"), "online.estimator.gamma=0.5 with online.estimator.form=full"),
        ((ONE, "online.combine_parts=standardised"), "there are 0 reward.parts"),
        (("teachers=[{name: a}]",), "teachers.0.model: missing key"),
        ((ONE, "reward.num_cpus=1"), "reward.model is missing, and there are no reward.parts"),
    ],
)
def test_what_cannot_be_is_one_sentence(overrides: tuple[str, ...], message: str) -> None:
    assert message in setting_error("distill", *overrides)


def test_teachers_are_for_distillation_alone() -> None:
    line = setting_error("rloo", "reward.model=rm", ONE)
    assert line.startswith(
        "teachers grade for online.estimator.kind=distillation alone, and online.estimator.kind=rloo learns"
    )
    assert "reward.model is missing" in setting_error("rloo")
    with pytest.raises(UserError, match="which a pipeline does not hand on to its stages"):
        load_run("toy", ["online.estimator.kind=distillation"])
