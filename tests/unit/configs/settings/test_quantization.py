"""Frozen weights of few bits: with which settings they go together, and what a weight takes."""

import pytest

from plumbob.configs.load_run import load_run
from plumbob.configs.runs import DpoRun, EvalRun, KtoRun, OnlineRun, PipelineRun, SftRun
from plumbob.configs.settings.tuning.quantization import Nf4Quantization
from plumbob.core.errors import UserError

NF4 = "policy.quantization.kind=nf4"
GIVEN = {
    "sft": ["policy.model=m", "data.demonstrations=d"],
    "dpo": ["policy.model=m", "data.pairs=p"],
    "kto": ["policy.model=m", "data.labelled=l"],
    "ppo": ["policy.model=m", "reward.model=r", "data.prompts=p"],
}
STORED = "rollout.quantised_base=stored"


def error(preset: str, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        load_run(preset, [*GIVEN[preset], *overrides])
    (line,) = str(caught.value).splitlines()
    return line


@pytest.mark.parametrize("preset", GIVEN)
def test_every_stage_that_trains_adapters_takes_it(preset: str) -> None:
    run = load_run(preset, [*GIVEN[preset], NF4, "policy.quantization.block_size=128"])
    assert isinstance(run, SftRun | DpoRun | KtoRun | OnlineRun)
    assert run.policy.ref.quantization == run.policy.quantization == Nf4Quantization(block_size=128)
    plain = load_run(preset, GIVEN[preset])
    assert isinstance(plain, SftRun | DpoRun | KtoRun | OnlineRun) and plain.policy.ref.quantization is None


def test_a_pipeline_takes_it_where_all_its_stages_keep_the_weights() -> None:
    run = load_run("toy", [NF4, "policy.sft_tuning.kind=lora"])
    assert isinstance(run, PipelineRun) and run.policy.quantization == Nf4Quantization()
    whole = refused_by_toy(NF4)
    assert whole.endswith("set policy.sft_tuning.kind=lora, or leave policy.quantization out")
    assert "reward.tuning.kind=full trains them" in refused_by_toy("reward.quantization.kind=nf4")
    assert "policy.quantization is not set: leave it out" in refused_by_toy(STORED)


def refused_by_toy(*overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        load_run("toy", overrides)
    return str(caught.value).splitlines()[-1]


def test_an_evaluation_and_teachers_take_it() -> None:
    given = {"policy": {"model": "m", "also": ["b"], "baseline": "c", "quantization": {"kind": "nf4"}}}
    read = {"data": {"prompts": "p"}, "reward": {"model": "r"}}
    run = EvalRun.model_validate({**given, **read})
    assert run.policy is not None and run.policy.baseline_ref is not None
    refs = [run.policy.ref, *run.policy.also_refs, run.policy.baseline_ref]
    assert [ref.quantization for ref in refs] == [Nf4Quantization()] * 3
    with pytest.raises(ValueError, match="samples from the weights that it measures KL and"):
        EvalRun.model_validate({**given, **read, "rollout": {"quantised_base": "stored"}})
    teachers = "teachers=[{model: larger, quantization: {kind: nf4}}, {model: other, name: other}]"
    kl = "online.kl={kind: fixed, coefficient: 0}"
    taught = load_run("ppo", [*GIVEN["ppo"], teachers, "teachers_by=x", "online.estimator.kind=distillation", kl])
    assert isinstance(taught, OnlineRun)
    assert [ref.quantization for ref in taught.teacher_refs] == [Nf4Quantization(), None]


def test_it_is_for_frozen_weights() -> None:
    message = error("sft", NF4, "policy.tuning.kind=full")
    assert "policy.quantization.kind=nf4 keeps the policy's weights frozen in 4 bits" in message
    assert message.endswith("set policy.tuning.kind=lora, or leave policy.quantization out")


def test_a_block_is_of_a_size_that_there_is() -> None:
    assert "policy.quantization.block_size" in error("dpo", NF4, "policy.quantization.block_size=48")


def test_a_sampler_of_other_weights_is_corrected_for() -> None:
    run = load_run("ppo", [*GIVEN["ppo"], NF4, STORED])
    assert isinstance(run, OnlineRun) and run.rollout.quantised_base == "stored"
    none = error("ppo", NF4, STORED, "online.importance.kind=none")
    assert "online.importance.kind=none corrects nothing of that: set rollout.quantised_base=dequantised" in none
    pairs = error("ppo", NF4, STORED, "online.estimator.kind=online-dpo", "online.samples_per_prompt=4")
    assert "online.estimator.kind=online-dpo corrects nothing of that" in pairs
    best = error("ppo", NF4, STORED, "online.estimator.kind=best-of-n", "online.samples_per_prompt=4")
    assert "online.estimator.kind=best-of-n corrects nothing of that" in best
    kl = "online.kl={kind: fixed, coefficient: 0}"
    teachers = ["teachers=[{model: larger}]", "online.estimator.kind=distillation", kl]
    whole = error("ppo", *teachers, NF4, STORED)
    assert "online.estimator.kind=distillation corrects nothing of that" in whole
    assert load_run("ppo", [*GIVEN["ppo"], *teachers, "online.estimator.form=sampled", NF4, STORED])
    rounded = error("ppo", NF4, "policy.quantization.compute_dtype=bfloat16", "online.importance.kind=none")
    assert rounded.endswith(
        "online.importance.kind=none corrects nothing of that: set policy.quantization.compute_dtype=float32"
    )
    assert "policy.quantization is not set: leave it out" in error("ppo", STORED)
    assert load_run("ppo", [*GIVEN["ppo"], NF4, "online.importance.kind=none"])


@pytest.mark.parametrize(
    ("settings", "bits"),
    [
        # A scale of 32 bits for 64 weights; of 8 bits, and 32 bits for 256 of these.
        (Nf4Quantization(double_quantization=False), 4 + 0.5),
        (Nf4Quantization(), 4 + 0.125 + 0.001953125),
        (Nf4Quantization(double_quantization=False, block_size=256), 4 + 0.125),
    ],
)
def test_bits_of_a_weight(settings: Nf4Quantization, bits: float) -> None:
    assert settings.bits_per_weight == bits
