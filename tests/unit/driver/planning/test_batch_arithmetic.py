"""The numbers of a run, spelt out: each of them derived here by hand."""

import numpy as np
import pytest

from plumbob.configs.load_run import load_run
from plumbob.configs.runs import AnyRun
from plumbob.data.epoch_order import EpochBatches
from plumbob.driver.input_sizes.learner_rows import LearnerRows
from plumbob.driver.input_sizes.token_lengths import InputTokens
from plumbob.driver.planning.batch_arithmetic import OfflineArithmetic, OnlineArithmetic, arithmetic_of, as_dict
from plumbob.driver.stages.stage import InputSizes


def sft_run(*overrides: str) -> AnyRun:
    return load_run("sft", ["policy.model=m", "data.demonstrations=d", *overrides])


def test_records_become_steps_and_micro_batches() -> None:
    lengths = np.full(50, 128, dtype=np.int64)
    sizes = InputSizes((), {"sft": LearnerRows(128, lengths, EpochBatches(50, 16, 3, seed=0))})
    run = sft_run("sft.batch_size=16", "sft.num_epochs=3", "learner.num_workers=2", "learner.micro_batch_size=3")
    (found,) = arithmetic_of(run, sizes)
    assert isinstance(found, OfflineArithmetic)
    # 150 places of 16 are 9.4 steps, the last one filled from another epoch; a rank's 8 rows are 3 + 3 + 2.
    assert (found.num_steps, found.micro_batches, found.widest) == (10, (3, 3), (3, 128))
    assert found.lines() == [
        "sft: 50 records x 3 epochs / sft.batch_size=16 = 10 optimizer steps",
        "  a step: 16 records = 2 ranks x 8, in 3 micro-batches of as many tokens as learner.micro_batch_size=3 of the "
        "longest have; the widest has 3 x 128 tokens",
    ]
    assert as_dict(found)["num_steps"] == 10


@pytest.mark.parametrize(
    ("kind", "data", "first"),
    [
        ("dpo", "data.pairs=d", "dpo: 6 pairs x 1 epoch / dpo.batch_size=2 = 3 optimizer steps"),
        ("kto", "data.labelled=d", "kto: 6 responses x 1 epoch / kto.batch_size=2 = 3 optimizer steps"),
        ("pretrain", "data.text=d", "pretrain: 6 blocks x 1 epoch / pretrain.batch_size=2 = 3 optimizer steps"),
    ],
)
def test_the_section_and_the_rows_are_those_of_the_kind_of_run(kind: str, data: str, first: str) -> None:
    run = load_run(kind, ["policy.model=m", data, f"{kind}.batch_size=2", f"{kind}.num_epochs=1"])
    sizes = InputSizes((), {kind: LearnerRows(8, np.full(6, 8), EpochBatches(6, 2, 1, seed=0))})
    (found,) = arithmetic_of(run, sizes)
    assert found.lines()[0] == first


def test_fewer_records_than_a_batch_are_one_step_an_epoch() -> None:
    sizes = InputSizes((), {"sft": LearnerRows(8, np.full(6, 8), EpochBatches(6, 6, 2, seed=0))})
    (found,) = arithmetic_of(sft_run("sft.batch_size=32", "sft.num_epochs=2"), sizes)
    assert isinstance(found, OfflineArithmetic) and (found.rows_of_step, found.num_steps) == (6, 2)


def test_prompts_become_rounds_of_responses() -> None:
    given = ["policy.model=m", "reward.model=r", "data.prompts=p", "online.num_steps=12", "online.prompts_per_step=8"]
    given += [
        "online.samples_per_prompt=4",
        "online.num_epochs=2",
        "online.minibatch_size=16",
        "learner.micro_batch_size=6",
    ]
    given += ["rollout.chunk_size=24", "rollout.num_workers=2"]
    run = load_run("rloo", given)
    (found,) = arithmetic_of(run, InputSizes((InputTokens("data.prompts", 80),)))
    assert isinstance(found, OnlineArithmetic)
    # 8 x 4 = 32 responses, twice, in minibatches of 16: 4 steps; 12 rounds ask 96 prompts, 1.2 times 80.
    assert found.lines()[0].startswith("rloo: a round: 8 prompts x 4 samples = 32 responses, in 2 chunks of up to ")
    assert (
        "32 x 2 epochs / online.minibatch_size=16 = 4 optimizer steps of 16 responses = 1 rank x 16: 3 micro-batches "
        "of learner.micro_batch_size=6" in found.lines()[1]
    )
    tokens = run.rollout.max_tokens  # type: ignore[union-attr]
    assert found.lines()[2] == (
        f"  in all: 12 rounds = 96 prompts (1.2 x those 80), 384 responses of up to {tokens} tokens, 48 optimizer steps"
    )


def test_a_pipeline_spells_out_each_stage() -> None:
    inputs = tuple(
        InputTokens(f"data.{name}", num, num_heldout=heldout)
        for name, num, heldout in (("text", 9, 0), ("demonstrations", 100, 0), ("pairs", 130, 9), ("prompts", 70, 5))
    )
    numbers = {"pretrain": 33, "pretrain-encoder": 70, "sft": 100, "reward": 130, "dpo": 130}
    learnt = {stage: LearnerRows(8, np.full(num, 8), EpochBatches(num, 32, 1, 0)) for stage, num in numbers.items()}
    found = {one.stage: one for one in arithmetic_of(load_run("toy"), InputSizes(inputs, learnt))}
    assert list(found) == ["pretrain", "pretrain-encoder", "sft", "reward", "ppo", "dpo", "eval"]
    # Five epochs of 33 blocks in batches of 32, and six of 70 in batches of 64.
    # Two epochs of 100 in batches of 32; of 130 pairs in batches of 32 (twice) and of 64.
    steps = {name: getattr(found[name], "num_steps", None) for name in numbers}
    assert steps == {"pretrain": 6, "pretrain-encoder": 7, "sft": 7, "reward": 9, "dpo": 3}
    assert found["eval"].lines() == ["eval: 5 prompts x 3 samples = 15 responses of each policy, of up to 48 tokens"]
