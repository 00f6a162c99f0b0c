"""An adapter that a stage cannot carry, as each stage's own input says it, before anything starts."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from plumbob.configs.load_run import load_run
from plumbob.configs.runs import AnyRun, DpoRun, KtoRun, OnlineRun, SftRun
from plumbob.core.errors import UserError
from plumbob.driver.stages.prepare import prepare
from tests.support.carried_adapters import lora, trained_with_peft
from tests.support.small_run import settings
from tests.support.tiny_policy import write_policy
from tests.support.tiny_scorer import write_scorer

FILES: Mapping[str, tuple[str, Mapping[str, object]]] = {
    "sft": ("demonstrations", {"prompt": "q", "completion": "a"}),
    "dpo": ("pairs", {"prompt": "q", "chosen": "a", "rejected": "b"}),
    "kto": ("labelled", {"prompt": "q", "completion": "a", "label": True}),
    "ppo": ("prompts", {"prompt": "q"}),
}
"""Stage -> the setting and the rows of its data."""


def stage(tmp_path: Path, kind: str, **changes: object) -> AnyRun:
    """A run from an adapter of PEFT's whose config says what it is asked to; all else of it is in order."""
    adapter = tmp_path / "adapter"
    trained_with_peft(write_policy(tmp_path / "policy"), adapter, lora())
    config = adapter / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | changes))
    setting, row = FILES[kind]
    data = tmp_path / "rows.jsonl"
    data.write_text((json.dumps(row) + "\n") * 4)
    given: dict[str, object] = {f"data.{setting}": data, "data.heldout_fraction": 0, "policy.model": adapter}
    if kind == "ppo":
        given |= {"reward.model": write_scorer(tmp_path / "scorer"), "reward.max_tokens": 32, "rollout.max_tokens": 8}
        given |= {"rollout.engine.kind": "transformers", "reward.normalize": "false"}
    return load_run(kind, settings(given, {"storage.path": tmp_path / "runs"}))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"bias": "all"},
            "bias=all, which training cannot carry; merge it into its base first (peft's merge_and_unload) and give "
            "the result",
        ),
        ({"alora_invocation_tokens": [5, 6]}, "alora_invocation_tokens=[5, 6], which training cannot carry; no model"),
    ],
)
@pytest.mark.parametrize("kind", FILES)
def test_each_stage_refuses_what_it_cannot_carry(
    tmp_path: Path, kind: str, changes: dict[str, object], said: str
) -> None:
    run = stage(tmp_path, kind, **changes)
    assert isinstance(run, SftRun | DpoRun | KtoRun | OnlineRun)
    with pytest.raises(UserError) as refused:
        prepare(run)
    assert str(refused.value).startswith(f"policy.model={tmp_path}/adapter: the adapter was trained with {said}")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("kind", FILES)
def test_the_same_run_from_a_plain_adapter_is_prepared(tmp_path: Path, kind: str) -> None:
    run = stage(tmp_path, kind)
    assert isinstance(run, SftRun | DpoRun | KtoRun | OnlineRun)
    prepare(run)
