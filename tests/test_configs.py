"""Every shipped preset is read, as it is or with the paths that only its user can give."""

from pathlib import Path

import pytest

from plumbob.configs.load_run import load_run, preset_names
from plumbob.core.errors import UserError

ONLINE = ["policy.model=sft", "reward.model=reward_model", "data.prompts=prompts.jsonl"]
ONLINE_PRESETS = (
    *("ppo", "grpo", "dr-grpo", "dapo", "gspo", "cispo", "rloo", "reinforce-plus-plus", "raft", "online-dpo"),
)
MUST_BE_GIVEN = {
    "pretrain": ["data.text=text.jsonl"],
    "pretrain-encoder": ["data.text=text.jsonl"],
    "sft": ["policy.model=base", "data.demonstrations=demonstrations.jsonl"],
    "qlora": ["policy.model=base", "data.demonstrations=demonstrations.jsonl"],
    "reward": ["reward.model=bert", "data.pairs=pairs.jsonl"],
    **dict.fromkeys(ONLINE_PRESETS, ONLINE),
    "calculator": ["policy.model=sft", "data.prompts=prompts.jsonl"],
    "smollm2-instructions": ["data.prompts=prompts.jsonl"],
    "verifiable": ["policy.model=sft", "data.prompts=prompts.jsonl"],
    "distill": ["policy.model=sft", "teachers=[{model: larger}]", "data.prompts=prompts.jsonl"],
    "dpo": ["policy.model=sft", "data.pairs=pairs.jsonl"],
    "kto": ["policy.model=sft", "data.labelled=labelled.jsonl"],
}
OR_A_MIXTURE = "or data.mixture='{FILE: WEIGHT, FILE: WEIGHT}'"
ONE_OF_SEVERAL = {
    **{(preset, "reward.model"): "reward.model is missing, and there are no reward.parts" for preset in ONLINE_PRESETS},
    ("distill", "teachers"): "learns from a teacher: give teachers='[{model: FOLDER}]'",
    ("reward", "data.pairs"): "one of data.pairs=FILE",
    **{
        (preset, "data.demonstrations"): f"give data.demonstrations=FILE, {OR_A_MIXTURE}" for preset in ("sft", "qlora")
    },
    ("dpo", "data.pairs"): f"give data.pairs=FILE, {OR_A_MIXTURE}",
    ("kto", "data.labelled"): f"give data.labelled=FILE, {OR_A_MIXTURE}",
    **{
        (preset, "data.prompts"): f"give data.prompts=FILE, {OR_A_MIXTURE}"
        for preset, given in MUST_BE_GIVEN.items()
        if "data.prompts=prompts.jsonl" in given
    },
}
"""The preset and the path for which there may be another instead, and what is said of that."""
ON_PAIRS = ["data.pairs=pairs.jsonl"]
PIPELINES = {"toy": [], "hh-minilm-cpu": ON_PAIRS, "smollm2-cpu": ON_PAIRS}


@pytest.mark.parametrize("preset", preset_names())
def test_preset_is_read(preset: str, tmp_path: Path) -> None:
    run = load_run(preset, [*(MUST_BE_GIVEN | PIPELINES)[preset], f"storage.path={tmp_path}"])
    assert run.name == preset
    expected = {"qlora": "sft"}.get(preset, preset) if preset in MUST_BE_GIVEN else "pipeline"
    assert run.kind == ("online" if "data.prompts=prompts.jsonl" in MUST_BE_GIVEN.get(preset, []) else expected)


@pytest.mark.parametrize("preset", MUST_BE_GIVEN)
def test_preset_names_each_path_that_is_missing(preset: str) -> None:
    with pytest.raises(UserError) as caught:
        load_run(preset)
    expected = [
        f"{preset}.yaml: {key}: missing key; give it as {key}=... on the command line or as {key} in the file"
        for key in (given.partition("=")[0] for given in MUST_BE_GIVEN[preset])
        if (preset, key) not in ONE_OF_SEVERAL
    ]
    found = str(caught.value).splitlines()
    others = [text for (one, _), text in ONE_OF_SEVERAL.items() if one == preset]
    assert [line for line in found if any(text in line for text in others)] == sorted(set(found) - set(expected))
    assert len(found) == len(expected) + len(others) and set(expected) <= set(found)
