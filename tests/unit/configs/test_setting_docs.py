"""The list of settings: what it says of each is what the schema does."""

from typing import Any

import pytest

from plumbob.configs.load_run import load_run
from plumbob.configs.runs import RUN_KINDS
from plumbob.configs.setting_docs import DescribedSetting, described_settings


def of_key(key: str, *kinds: str) -> list[DescribedSetting]:
    return [each for each in described_settings(kinds or tuple(RUN_KINDS)) if each.key == key]


def leaves(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value, of all that are no groups."""
    found = {}
    for name, value in settings.items():
        found |= leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


def test_a_setting_has_its_type_bounds_default_and_meaning() -> None:
    assert of_key("online.num_steps") == [
        DescribedSetting(
            key="online.num_steps",
            type="whole number above 0 and at most 1,000,000,000",
            default=50,
            meaning="Rounds of sampling, scoring and learning.",
            runs=("online", "pipeline"),
        )
    ]
    (memory,) = of_key("gold_reward.memory_gib")
    assert (memory.default, memory.may_change, memory.runs) == (1.0, True, ("online",))
    assert memory.meaning.startswith("Main memory.")
    (files,) = of_key("data.text", "pretrain")
    assert (files.type, files.is_required) == ("file (also a folder or a pattern of files)", True)
    (mixture,) = of_key("data.mixture", "sft")
    weight = "number above 0 and at most 1,000,000"
    assert (mixture.type, mixture.default) == (f"file (also a folder or a pattern of files), each with: {weight}", {})
    (columns,) = of_key("data.columns", "sft")
    assert columns.type == "name, each with: text"
    (stop,) = of_key("cluster.num_cpus")
    assert (stop.type, stop.default) == ("whole number above 0 and at most 4,096 or null", None)
    assert stop.meaning == "CPUs of a local Ray; null takes all of the machine's."


def test_a_choice_lists_its_variants_and_what_each_has() -> None:
    (kind,) = of_key("online.estimator.kind")
    kinds = "gae, reinforce++, reinforce++-baseline, rloo, grpo, dr-grpo, best-of-n, online-dpo, distillation"
    assert kind.type == f"one of {kinds}"
    assert kind.default == "gae" and dict(kind.choices)["rloo"].startswith("The whole return less the mean")
    gamma, of_grades = of_key("online.estimator.gamma")
    assert gamma.only_with == ("online.estimator.kind=gae", "online.estimator.kind=reinforce++")
    assert of_grades.only_with == ("online.estimator.kind=distillation",)
    # The same key with another default under another choice.
    assert {(each.default, each.only_with[-1]) for each in of_key("dpo.loss.beta", "dpo")} == {
        (0.1, "dpo.loss.kind=sppo"),
        (0.1, "dpo.loss.kind=hinge"),
        (2.0, "dpo.loss.kind=simpo"),
    }
    (run,) = of_key("kind")
    assert set(dict(run.choices)) == set(RUN_KINDS) and run.is_required


def test_the_elements_of_a_list_are_listed() -> None:
    (kind,) = of_key("reward.parts.N.kind", "online")
    assert kind.is_required and dict(kind.choices)["exact"].startswith("1 where a response is the row's answer")
    (column,) = of_key("reward.parts.N.tolerance", "online")
    assert (column.only_with, column.default) == (("reward.parts.N.kind=numeric",), 0.0)
    (letter,) = of_key("reward.parts.N.instructions.N.letter", "online")
    assert letter.only_with == ("reward.parts.N.instructions.N.kind=without-letter",)


@pytest.mark.parametrize(
    ("preset", "given"),
    [
        ("ppo", ["policy.model=m", "reward.model=r", "data.prompts=p", "gold_reward.model=j"]),
        ("dpo", ["policy.model=m", "data.pairs=p"]),
        ("toy", []),
    ],
)
def test_every_setting_of_a_run_is_listed(preset: str, given: list[str]) -> None:
    run = load_run(preset, given)
    listed = {each.key for each in described_settings((run.kind,))}
    assert leaves(run.model_dump(mode="json")).keys() <= listed


def test_every_setting_says_what_it_means() -> None:
    silent = [each.key for each in described_settings() if not (each.meaning or each.choices) and each.type != "group"]
    # Of choices with one variant the group says it.
    assert {key.rpartition(".")[2] for key in silent} <= {"kind"}
