"""Settings of learners that have no effect on CPUs are told."""

from pathlib import Path

import pytest

from plumbob.configs.load_run import load_run
from plumbob.configs.runs import EvalRun
from plumbob.configs.settings.workers import LearnerRankSettings
from plumbob.driver.learner_notes import learner_notes
from plumbob.models.resolution import read_adapter_config
from tests.support.libraries import write_adapter
from tests.support.tiny_policy import write_policy

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


def test_settings_of_a_new_adapter_beside_a_given_one_are_told(tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", write_policy(tmp_path / "base"))
    own = read_adapter_config(adapter)
    files = [f"policy.model={adapter}", "data.demonstrations=d"]
    same = [f"policy.tuning.rank={own['r']}", f"policy.tuning.alpha={own['lora_alpha']}"]
    assert learner_notes(load_run("sft", [*files, *same])) == ()
    (note,) = learner_notes(load_run("sft", [*files, *same, "policy.tuning.rank=3", "policy.tuning.use_dora=true"]))
    assert note == (
        f"policy.model={adapter}: is an adapter, which is trained further as what it is; of a new one would be, and "
        f"have no effect: policy.tuning's rank=3, use_dora=True"
    )
    # Of a full model all of them count.
    assert learner_notes(load_run("sft", [f"policy.model={tmp_path / 'base'}", *files[1:], *same])) == ()


def test_an_evaluation_trains_nothing() -> None:
    assert learner_notes(EvalRun.model_construct(learner=LearnerRankSettings())) == ()
