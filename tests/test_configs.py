"""Every shipped preset is read, as it is or with the paths that only its user can give."""

from pathlib import Path

import pytest

from plumbob.configs.load_run import load_run, preset_names
from plumbob.core.errors import UserError

ONLINE = ["policy.model=sft", "reward.model=reward_model", "data.prompts=prompts.jsonl"]
MUST_BE_GIVEN = {
    "pretrain": ["data.text=text.jsonl"],
    "pretrain-encoder": ["data.text=text.jsonl"],
    "sft": ["policy.model=base", "data.demonstrations=demonstrations.jsonl"],
    "reward": ["reward.model=bert", "data.pairs=pairs.jsonl"],
    "ppo": ONLINE,
    "grpo": ONLINE,
    "dr-grpo": ONLINE,
    "rloo": ONLINE,
    "reinforce-plus-plus": ONLINE,
    "verifiable": ["policy.model=sft", "data.prompts=prompts.jsonl"],
    "dpo": ["policy.model=sft", "data.pairs=pairs.jsonl"],
    "kto": ["policy.model=sft", "data.labelled=labelled.jsonl"],
}
ONE_OF_SEVERAL = ("reward", "data.pairs")
"""The preset and the path for which there may be rankings or scores instead."""
ON_PAIRS = ["data.pairs=pairs.jsonl"]
PIPELINES = {"toy": [], "hh-minilm-cpu": ON_PAIRS, "smollm2-cpu": ON_PAIRS}


@pytest.mark.parametrize("preset", preset_names())
def test_preset_is_read(preset: str, tmp_path: Path) -> None:
    run = load_run(preset, [*(MUST_BE_GIVEN | PIPELINES)[preset], f"storage.path={tmp_path}"])
    assert run.name == preset
    expected = preset if preset in MUST_BE_GIVEN else "pipeline"
    assert run.kind == ("ppo" if "data.prompts=prompts.jsonl" in MUST_BE_GIVEN.get(preset, []) else expected)


@pytest.mark.parametrize("preset", MUST_BE_GIVEN)
def test_preset_names_each_path_that_is_missing(preset: str) -> None:
    with pytest.raises(UserError) as caught:
        load_run(preset)
    expected = [
        f"{preset}.yaml: {key}: missing key; give it as {key}=... on the command line or as {key} in the file"
        for key in (given.partition("=")[0] for given in MUST_BE_GIVEN[preset])
        if (preset, key) != ONE_OF_SEVERAL and not (MUST_BE_GIVEN[preset] == ONLINE and key == "reward.model")
    ]
    found = str(caught.value).splitlines()
    if MUST_BE_GIVEN[preset] == ONLINE:  # A reward model, or parts instead.
        assert "reward.model is missing, and there are no reward.parts" in found.pop()
    if preset == ONE_OF_SEVERAL[0]:
        assert "one of data.pairs=FILE" in found.pop()
    assert sorted(found) == sorted(expected)
