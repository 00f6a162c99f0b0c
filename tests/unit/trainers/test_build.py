"""Learners as settings ask for them: gradient checkpointing reaches all models, and one rank shards nothing."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from pydantic import BaseModel

from plumbob.configs.runs import PretrainEncoderRun, RewardRun, SftRun
from plumbob.configs.settings.models import NewBertSettings
from plumbob.models.from_scratch import build_bert
from plumbob.trainers.build import build_learner
from plumbob.trainers.learner.engine import Engine
from tests.support.learner_ranks import Ranks, numpy_state, this_rank
from tests.support.tiny_policy import write_policy

NUM_LAYERS = 3
RUNS: dict[str, tuple[type[BaseModel], str]] = {
    "reward": (RewardRun, "pairs"),
    "pretrain-encoder": (PretrainEncoderRun, "text"),
}


class Step(NamedTuple):
    """One step: how often layers ran, the loss, and the state after it, whose first moments are 0.1 x the gradient."""

    num_layer_calls: int
    loss: float
    state: dict[str, np.ndarray]


def step(kind: str, encoder: Path, gradient_checkpointing: bool) -> Step:
    """Build the learner of a run in this rank's process, and take one step on two rows, one of them padded."""
    schema, data = RUNS[kind]
    learner_settings = {"gradient_checkpointing": gradient_checkpointing, "zero_stage": 0}
    run: Any = schema.model_validate(
        {"data": {data: "unread"}, "reward": {"model": str(encoder)}, "learner": learner_settings}
    )
    learner = build_learner(run, this_rank())
    calls = []
    for name, module in learner.model.named_modules():
        if name.rpartition(".")[0].endswith("encoder.layer"):
            module.register_forward_pre_hook(lambda *_: calls.append(1))
    learner.model.train()
    ids = torch.tensor([[2, 5, 6, 7, 3], [2, 8, 3, 0, 0]])
    inputs = (ids, (ids != 0).long(), torch.zeros_like(ids)) if kind == "reward" else (ids, ids != 0)
    loss = learner.forward(*inputs).float().square().mean()
    assert isinstance(learner.engine, Engine)
    learner.engine.backward(loss, True)
    learner.engine.step(1.0)
    return Step(len(calls), float(loss), numpy_state(learner))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoder")
    sizes = {"hidden_size": 32, "num_heads": 1, "num_layers": NUM_LAYERS, "intermediate_size": 40, "vocab_size": 60}
    build_bert(NewBertSettings(max_positions=16, **sizes), ["some words to learn letters from"], folder, seed=0)
    return folder


@pytest.mark.parametrize("kind", RUNS)
def test_gradient_checkpointing_runs_the_layers_again_and_changes_nothing(
    one_rank: Ranks, encoder: Path, kind: str
) -> None:
    (plain,), (checkpointed,) = (one_rank.run(step, kind, encoder, on) for on in (False, True))
    assert plain.num_layer_calls == NUM_LAYERS
    # Once forward, and once more in the backward.
    assert checkpointed.num_layer_calls == 2 * NUM_LAYERS
    assert checkpointed.loss == pytest.approx(plain.loss, rel=1e-6)
    moments = [name for name, tensor in plain.state.items() if not name.startswith("param.") and tensor.size > 1]
    assert max(float(np.abs(plain.state[name]).max()) for name in moments) > 1e-4, "no gradient proves nothing"
    assert set(checkpointed.state) == set(plain.state)
    for name, tensor in plain.state.items():
        np.testing.assert_allclose(checkpointed.state[name], tensor, rtol=1e-4, atol=1e-7, err_msg=name)


def moved(policy: str, tuning: str, dtype: str) -> tuple[int, list[float]]:
    """The ZeRO stage of an sft run at one rank, and what a step of 1e-6 adds to weights as the optimizer has them."""
    run = SftRun.model_validate(
        {
            "data": {"demonstrations": "unread"},
            "policy": {"model": policy, "dtype": dtype, "tuning": {"kind": tuning}},
            "sft": {"learning_rate": 1e-6},
        }
    )
    learner = build_learner(run, this_rank())
    assert isinstance(learner.engine, Engine)
    before = numpy_state(learner)
    ids = torch.tensor([[1, 2, 3, 4]])
    with learner.model.role("policy"):  # type: ignore[operator]
        logprobs = learner.forward(ids, ids > 0, ids > 1, 1.0)
        learner.engine.backward(-logprobs.sum(), True)
    learner.engine.step(1.0)
    after = numpy_state(learner)
    changes = [np.abs(after[name] - tensor).max() for name, tensor in before.items() if name.startswith("param.")]
    return learner.engine._engine.zero_optimization_stage(), [float(change) for change in changes if change]


@pytest.mark.parametrize(
    ("tuning", "dtype", "stage"),
    [("lora", "float32", 0), ("full", "float32", 0), ("lora", "bfloat16", 0), ("full", "bfloat16", 2)],
)
def test_at_one_rank_only_weights_that_need_a_float32_copy_have_one(
    one_rank: Ranks, tmp_path: Path, tuning: str, dtype: str, stage: int
) -> None:
    # Weights of up to 1 in bfloat16 have steps of 4e-3: without a copy a step of 1e-6 would be lost or be 4e-3.
    found, changes = one_rank.run(moved, str(write_policy(tmp_path)), tuning, dtype)[0]
    assert found == stage
    assert changes and max(changes) == pytest.approx(1e-6, rel=0.2)
