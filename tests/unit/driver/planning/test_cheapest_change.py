"""What is advised where a run does not fit: the cheapest change, which really makes it fit."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from plumbob.cluster import admission
from plumbob.cluster.resources import Host, ResourceAmount
from plumbob.configs.load_run import load_run
from plumbob.configs.runs import AnyRun
from plumbob.core.errors import UserError
from plumbob.driver.api import plan
from plumbob.driver.planning import plan_run
from plumbob.driver.planning.cheapest_change import changed, cheapest_change
from tests.support.tiny_policy import write_policy

SFT = ["policy.model=m", "data.demonstrations=d", "learner.micro_batch_size=8"]


def test_the_smallest_change_of_the_cheapest_kind_is_taken() -> None:
    run = load_run("sft", SFT)
    tried = []

    def fits(other: AnyRun, overrides: Sequence[str]) -> bool:
        tried.append(tuple(overrides))
        return other.learner.micro_batch_size <= 2

    found = cheapest_change(run, fits)
    assert found is not None and found.overrides == ("learner.micro_batch_size=2",)
    assert tried == [("learner.micro_batch_size=4",), ("learner.micro_batch_size=2",)]


def test_what_changes_a_result_comes_after_what_changes_none() -> None:
    run = load_run("sft", [*SFT, "policy.tuning.kind=full"])
    found = cheapest_change(run, lambda other, overrides: getattr(other.learner, "gradient_checkpointing", False))
    assert found is not None and found.overrides == ("learner.gradient_checkpointing=true",)
    # Weights of the model are not frozen: they are in 4 bits no more than they can be.
    seen: list[str] = []
    cheapest_change(run, lambda other, overrides: bool(seen.extend(overrides)))
    assert not any("nf4" in override for override in seen) and "policy.tuning.kind=lora" in seen
    assert seen.index("learner.gradient_checkpointing=true") < seen.index("policy.dtype=bfloat16")


def test_several_are_taken_together_where_one_is_not_enough_and_no_more_than_it_needs() -> None:
    def fits(other: AnyRun, overrides: Sequence[str]) -> bool:
        return other.learner.micro_batch_size == 1 and other.learner.autocast

    found = cheapest_change(load_run("sft", [*SFT, "learner.autocast=false"]), fits)
    assert found is not None and found.overrides == ("learner.micro_batch_size=1", "learner.autocast=true")
    assert len(found.costs) == 2
    assert cheapest_change(load_run("sft", SFT), lambda *_: False) is None


def host_of(gib: float, monkeypatch: pytest.MonkeyPatch) -> None:
    def here(*_: object, **__: object) -> tuple[Host, ...]:
        return (Host("127.0.0.1", "n1", ResourceAmount(4, 0, gib)),)

    monkeypatch.setattr(admission, "this_machine", here)
    monkeypatch.setattr(plan_run, "this_machine", here)


@pytest.fixture
def given(tmp_path: Path) -> list[str]:
    """A run with micro-batches of 4,096 rows of 200 tokens: it takes gigabytes."""
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a b c", "completion": "' + "e" * 200 + '"}\n' * 1)
    return [
        *(f"policy.model={write_policy(tmp_path / 'policy')}", f"data.prompts={tmp_path}/rows.jsonl"),
        *(f"storage.path={tmp_path}/runs", "rollout.max_tokens=200", "learner.micro_batch_size=4096"),
        *("online.prompts_per_step=4096", "online.minibatch_size=4096", "rollout.engine.kind=transformers"),
        *("reward.parts=[{kind: contains, texts: [a]}]", "data.heldout_fraction=0", "rollout.chunk_size=8"),
    ]


def test_what_is_advised_fits_when_it_is_planned_again(given: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    host_of(5.0, monkeypatch)
    run = load_run("rloo", given)
    planned = plan(run)
    assert planned.memory_fits is False and planned.change is not None and planned.changed_gib is not None
    (override,) = planned.change.overrides
    assert override.startswith("learner.micro_batch_size=") and planned.changed_gib <= 5.0
    assert planned.lines()[-1].startswith(f"change   it would fit with {override}: about ")
    again = plan(changed(run, planned.change.overrides))
    assert (again.memory_fits, again.change) == (True, None)
    # Twice as many rows do not fit: it is the smallest change.
    size = 2 * int(override.partition("=")[2])
    assert plan(changed(run, [f"learner.micro_batch_size={size}"])).memory_fits is False


def test_a_model_that_no_host_can_hold_is_refused_with_what_would_fit(
    given: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a learner's 66 million parameters Adam has two moments each: with LoRA they are few."""
    from transformers import LlamaConfig, LlamaForCausalLM

    size = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 3, "num_attention_heads": 8}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=300, max_position_embeddings=256, **size))
    model.save_pretrained(tmp_path / "policy")
    text = tmp_path / "text.jsonl"
    text.write_text('{"prompt": "a b c", "completion": "d"}\n' * 2)
    host_of(2.0, monkeypatch)
    small = ["learner.micro_batch_size=1", "sft.batch_size=1", "data.heldout_fraction=0", "learner.autocast=true"]
    run = load_run(
        "sft",
        [
            *(given[0], f"data.demonstrations={text}", f"storage.path={tmp_path}/runs", *small),
            *("policy.tuning.kind=full", "policy.dtype=float32"),
        ],
    )
    planned = plan(run)
    assert planned.memory_fits is False and planned.change is not None
    assert plan(changed(run, planned.change.overrides)).memory_fits is True
    host_of(0.4, monkeypatch)
    with pytest.raises(UserError, match=r"takes .* GiB for its weights and their optimizer alone"):
        plan(run)
