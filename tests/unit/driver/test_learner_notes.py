"""Settings of learners that have no effect on CPUs are told."""

import pytest

from plumbob.configs.load_run import load_run
from plumbob.configs.runs import EvalRun
from plumbob.configs.settings.workers import LearnerRankSettings
from plumbob.driver.learner_notes import learner_notes

SFT = ("policy.model=p", "data.demonstrations=d")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ((), ()),
        (("learner.optimizer=adamw_8bit",), ()),
        (
            ("learner.optimizer=paged_adamw_8bit",),
            ("learner.optimizer=paged_adamw_8bit: on CPUs nothing is paged, and it is adamw_8bit",),
        ),
        (("learner.optimizer=paged_adamw_8bit", "learner.num_gpus=1"), ()),
        (
            ("learner.offload_optimizer=cpu", "learner.offload_params=cpu"),
            (
                "learner.offload_optimizer and learner.offload_params: ranks on CPUs have all they hold in main "
                "memory, and nothing is moved",
            ),
        ),
    ],
)
def test_what_does_nothing_on_cpus_is_told(given: tuple[str, ...], told: tuple[str, ...]) -> None:
    assert learner_notes(load_run("sft", [*SFT, *given])) == told


def test_an_evaluation_trains_nothing() -> None:
    assert learner_notes(EvalRun.model_construct(learner=LearnerRankSettings())) == ()
