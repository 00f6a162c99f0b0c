"""What alignment starts from and ends with, compared with plain transformers, peft and vLLM on the same tokens."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from plumbob.cluster.session import Session
from plumbob.configs.load_run import load_run
from plumbob.configs.runs import DpoRun, OnlineRun
from plumbob.data.tokenization import PairBatch, TokenBatch, collate
from plumbob.models.adapter import WEIGHTS_FILE
from plumbob.trainers.offline.dpo import pair_logprobs, prepare_dpo
from plumbob.trainers.online.objective import TrajectoryBatch, forward_actions
from tests.support.plain_transformers import largest_gap, load_plain, plain_logprobs
from tests.support.plain_vllm import PlainVllm
from tests.support.small_run import LENGTHS, TEMPERATURE, WORKERS, Left, Stages, settings, tensors_of


@pytest.fixture
def session(stage: Stages) -> Session:
    return stage.session


# ------------------------------------------------------------------------------------------------------------------ PPO


def test_ppo_from_an_adapter_is_measured_from_that_adapter(
    ppo_from_adapter: Left, sft_lora: Left, pretrained: str
) -> None:
    rows = [row for _, row in ppo_from_adapter.journal]
    assert largest_gap(load_plain(sft_lora.policy), rows, "ref_logprobs", TEMPERATURE) < 1e-4
    assert largest_gap(load_plain(pretrained), rows, "ref_logprobs", TEMPERATURE) > 1e-2


def test_ppo_from_an_adapter_begins_as_it(ppo_from_adapter: Left) -> None:
    first = [row for step, row in ppo_from_adapter.journal if step == 1]
    assert ppo_from_adapter.metrics[0]["metrics"]["kl"] == pytest.approx(0, abs=1e-6)
    assert max(float(abs(row.logprobs - row.ref_logprobs).max()) for row in first) < 1e-4
    last = [row for step, row in ppo_from_adapter.journal if step == 3]
    assert max(float(abs(row.logprobs - row.ref_logprobs).max()) for row in last) > 1e-3


def test_the_result_has_the_learner_s_tensors(ppo_from_adapter: Left) -> None:
    learner = tensors_of(ppo_from_adapter.last_checkpoint)
    result = load_file(Path(ppo_from_adapter.policy) / WEIGHTS_FILE)
    # 2 layers x (q, k, v, o, gate, up, down) x (A, B).
    assert len(result) == 28
    for name, tensor in result.items():
        own = f"param.causal_lm.{name.removesuffix('.weight')}.policy.weight"
        assert torch.equal(tensor, learner[own]), name


# ------------------------------------------------------------------------------------------------------------------ DPO


def dpo_run(stage: Stages, world: Path, model: str, *groups: Mapping[str, object]) -> DpoRun:
    files = {"data.pairs": world / "pairs.jsonl", "data.heldout_pairs": world / "heldout_pairs.jsonl"}
    run = load_run("dpo", settings(stage.cluster, WORKERS, files, LENGTHS, {"policy.model": model}, *groups))
    assert isinstance(run, DpoRun)
    return run


def response_sums(model: Any, batch: TokenBatch) -> NDArray[np.float64]:
    """log pi(response | prompt) of each row [B], by plain transformers on unpadded sequences."""
    sums = []
    for ids, attended, learnt in zip(batch.input_ids, batch.attention_mask, batch.loss_mask, strict=True):
        start, end = int(learnt.argmax()), int(attended.sum())
        sums.append(plain_logprobs(model, ids[:start].tolist(), ids[start:end].tolist(), 1.0).sum(dtype=np.float64))
    return np.array(sums)


@pytest.mark.parametrize("begins_as", ["full", "adapter"])
def test_the_reference_of_dpo_is_the_sft_model(
    begins_as: str, stage: Stages, world: Path, session: Session, sft_full: str, sft_lora: Left, pretrained: str
) -> None:
    model = sft_full if begins_as == "full" else sft_lora.policy
    run = dpo_run(stage, world, model)
    data = prepare_dpo(run)
    pairs = PairBatch(*(collate([pair[side] for pair in data.heldout], data.pad_id) for side in (0, 1)))
    learners = session.start_learners(run)
    reference = learners.compute(pairs, "reference", pair_logprobs)
    # Before the first update every log-ratio is 0.
    np.testing.assert_allclose(learners.compute(pairs, "policy", pair_logprobs), reference, atol=1e-6)
    plain, base = load_plain(model), load_plain(pretrained)
    for column, side in enumerate((pairs.chosen, pairs.rejected)):
        # Sums of up to 64 log-probs near -4: float32 leaves 1e-4 of each.
        np.testing.assert_allclose(reference[:, column], response_sums(plain, side), rtol=1e-6, atol=1e-4)
        assert np.abs(reference[:, column] - response_sums(base, side)).max() > 0.1


# -------------------------------------------------------------------------------------------------------------- results


@pytest.mark.parametrize("kind", ["ppo", "dpo"])
def test_the_result_answers_alike_in_vllm_peft_and_learner(
    kind: str,
    request: pytest.FixtureRequest,
    stage: Stages,
    session: Session,
    world: Path,
    ppo_from_adapter: Left,
    sft_full: str,
) -> None:
    """PPO that began as an adapter, whose base is below the SFT model; DPO that began as a full model."""
    if kind == "ppo":
        left = ppo_from_adapter
        run = load_run("ppo", settings(stage.cluster, WORKERS, request.getfixturevalue("ppo_settings")))
    else:
        run = dpo_run(stage, world, sft_full, {"dpo.learning_rate": 3e-3, "dpo.batch_size": 16})
        left = stage.run("dpo-from-full", run)
    assert isinstance(run, OnlineRun | DpoRun)
    prompts = list({row.prompt_id: row.prompt_ids for _, row in ppo_from_adapter.journal}.values())[:8]
    engine = PlainVllm(left.policy)
    try:
        responses = engine.responses(prompts, num_tokens=12)
    finally:
        engine.close()
    learners = session.start_learners(run)
    learners.load(left.last_checkpoint)
    batch = whole_sequences(prompts, [response.ids for response in responses])
    learnt = learners.compute(batch, "policy", forward_actions)
    model, reference = load_plain(left.policy), load_plain(str(run.policy.model))
    for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        plain = plain_logprobs(model, prompt.tolist(), response.ids, 1.0)
        np.testing.assert_allclose(response.logprobs, plain, atol=1e-4)
        np.testing.assert_allclose(learnt[row][batch.action_mask[row].numpy()], plain, atol=1e-4)
        assert np.abs(plain_logprobs(reference, prompt.tolist(), response.ids, 1.0) - plain).max() > 1e-3


def whole_sequences(prompts: Sequence[NDArray[np.int32]], responses: Sequence[Sequence[int]]) -> TrajectoryBatch:
    lengths = [(len(prompt), len(prompt) + len(response)) for prompt, response in zip(prompts, responses, strict=True)]
    shape = (len(prompts), max(end for _, end in lengths))
    ids, attended, acted = (torch.zeros(shape, dtype=dtype) for dtype in (torch.long, torch.bool, torch.bool))
    for row, (start, end) in enumerate(lengths):
        ids[row, :end] = torch.tensor([*prompts[row], *responses[row]])
        attended[row, :end], acted[row, start:end] = True, True
    return TrajectoryBatch(ids, attended, acted, 1.0)
