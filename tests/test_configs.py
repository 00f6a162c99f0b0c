"""Every shipped preset is read, as it is or with the paths that only its user can give."""

from pathlib import Path

import pytest

from configs.errors import UserError
from configs.load import load_run, preset_names

MUST_BE_GIVEN = {
    "pretrain": ["data.text=text.jsonl"],
    "pretrain-encoder": ["data.text=text.jsonl"],
    "sft": ["policy.model=base", "data.demonstrations=demonstrations.jsonl"],
    "reward": ["reward.model=bert", "data.pairs=pairs.jsonl"],
    "ppo": ["policy.model=sft", "reward.model=reward_model", "data.prompts=prompts.jsonl"],
    "dpo": ["policy.model=sft", "data.pairs=pairs.jsonl"],
}
PIPELINES = {"toy": [], "hh-minilm-cpu": ["data.pairs=pairs.jsonl"]}


@pytest.mark.parametrize("preset", preset_names())
def test_preset_is_read(preset: str, tmp_path: Path) -> None:
    run = load_run(preset, [*(MUST_BE_GIVEN | PIPELINES)[preset], f"storage.path={tmp_path}"])
    assert run.name == preset
    assert run.kind == (preset if preset in MUST_BE_GIVEN else "pipeline")


@pytest.mark.parametrize("preset", MUST_BE_GIVEN)
def test_preset_names_each_path_that_is_missing(preset: str) -> None:
    with pytest.raises(UserError) as caught:
        load_run(preset)
    expected = [
        f"{preset}.yaml: {key}: missing key; give it as {key}=... on the command line or as {key} in the file"
        for key in (given.partition("=")[0] for given in MUST_BE_GIVEN[preset])
    ]
    assert sorted(str(caught.value).splitlines()) == sorted(expected)
