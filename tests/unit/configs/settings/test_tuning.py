"""What of a policy is trained, as settings: kinds in every stage, and what does not go with what."""

import pytest

from plumbob.configs.load_run import load_run
from plumbob.configs.runs import DpoRun, KtoRun, OnlineRun, SftRun
from plumbob.configs.settings.tuning.adapters import LoraTuning
from plumbob.configs.settings.tuning.weights import FullTuning, SelectiveTuning
from plumbob.core.errors import UserError

GIVEN = {
    "sft": ["data.demonstrations=d"],
    "dpo": ["data.pairs=p"],
    "kto": ["data.labelled=l"],
    "ppo": ["data.prompts=p", "reward.model=r"],
}
SELECTIVE = "policy.tuning.kind=selective"


def run_of(kind: str, *overrides: str) -> SftRun | DpoRun | KtoRun | OnlineRun:
    run = load_run(kind, ["policy.model=m", *GIVEN[kind], *overrides])
    assert isinstance(run, SftRun | DpoRun | KtoRun | OnlineRun)
    return run


def refused(kind: str, *overrides: str) -> str:
    with pytest.raises(UserError) as error:
        run_of(kind, *overrides)
    (line,) = str(error.value).splitlines()
    return line


@pytest.mark.parametrize("kind", GIVEN)
def test_every_stage_takes_every_kind(kind: str) -> None:
    assert run_of(kind).policy.tuning == LoraTuning(rank=16, alpha=32.0)
    assert run_of(kind, "policy.tuning.kind=full").policy.tuning == FullTuning(critic="model")
    found = run_of(kind, SELECTIVE, "policy.tuning.targets=[layers.0]").policy.tuning
    assert found == SelectiveTuning(targets=("layers.0",), critic="model")
    assert "not a key of policy.tuning.kind=full" in refused(kind, "policy.tuning.kind=full", "policy.tuning.rank=3")
    assert "kind=selective chooses nothing to train: give `targets`" in refused(kind, SELECTIVE)


@pytest.mark.parametrize("engine", ["rollout.engine.enforce_eager=false", "rollout.tensor_parallel=2"])
def test_weights_are_published_where_they_are_taken_in(engine: str) -> None:
    run_of("ppo", engine)
    run_of("ppo", "policy.tuning.kind=full", "rollout.adapter=merged")
    message = refused("ppo", engine, SELECTIVE, "policy.tuning.norms=true")
    assert "policy.tuning.kind=selective publishes weights of the model, which vLLM takes in on one device" in message
    message = refused("ppo", "policy.tuning.kind=full", "rollout.adapter=lora")
    assert "rollout.adapter=lora: policy.tuning.kind=full publishes no adapter; leave rollout.adapter out" in message


def test_a_pipeline_hands_a_full_model_on_to_what_trains_its_weights() -> None:
    load_run("toy", ["policy.tuning.kind=full"])
    with pytest.raises(
        UserError, match=r"policy\.sft_tuning\.kind=lora leaves an adapter, and policy\.tuning\.kind=full"
    ):
        load_run("toy", ["policy.tuning.kind=full", "policy.sft_tuning.kind=lora"])
    load_run("toy", ["policy.tuning.kind=ia3"])
    for kind in ("lora", "ia3"):
        load_run("toy", [f"policy.tuning.kind={kind}", "policy.sft_tuning.kind=ia3"])
    wanted = (
        r"sft_tuning\.kind=lora leaves an adapter, which is trained further as what it is, and policy\.tuning\.kind=ia3"
    )
    with pytest.raises(UserError, match=wanted):
        load_run("toy", ["policy.tuning.kind=ia3", "policy.sft_tuning.kind=lora"])


@pytest.mark.parametrize("kind", GIVEN)
def test_weights_of_little_precision_are_not_trained_without_their_float32(kind: str) -> None:
    """A step of 1e-6 is a thousandth of what moves a bfloat16 weight of 0.02 by one unit in its last place."""
    bfloat16, unshared = "policy.dtype=bfloat16", "learner.zero_stage=0"
    message = refused(kind, "policy.tuning.kind=full", bfloat16, unshared)
    assert "learner.zero_stage=0 keeps no float32 copy of the weights that are trained" in message
    run_of(kind, "policy.tuning.kind=full", bfloat16)
    run_of(kind, "policy.tuning.kind=full", unshared)
    run_of(kind, bfloat16, unshared)


@pytest.mark.parametrize("kind", GIVEN)
def test_a_head_is_for_a_critic(kind: str) -> None:
    head = ["policy.tuning.kind=full", "policy.tuning.critic=head"]
    if kind == "ppo":
        assert run_of(kind, *head).policy.tuning == FullTuning(critic="head")
        head += ["online.estimator.kind=rloo", "online.samples_per_prompt=4"]
    message = refused(kind, *head)
    who = "online.estimator.kind=rloo" if kind == "ppo" else "a run of sft, dpo or kto"
    assert f"policy.tuning.critic=head: {who} has no critic; leave policy.tuning.critic out" in message


def test_a_pipeline_has_a_critic_in_one_stage() -> None:
    full = ["policy.tuning.kind=full", "policy.tuning.critic=head"]
    load_run("toy", full)
    with pytest.raises(UserError, match=r"policy\.tuning\.critic=head: online\.estimator\.kind=rloo has no critic"):
        load_run("toy", [*full, "online.estimator.kind=rloo", "online.samples_per_prompt=4"])
    with pytest.raises(UserError, match=r"policy\.sft_tuning\.critic=head: a run of sft, dpo or kto has no critic"):
        load_run("toy", ["policy.sft_tuning.critic=head"])
