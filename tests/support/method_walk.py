"""One method of tuning through one stage, really trained in a rank's process: what moved, and what was written."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM

from plumbob.configs.runs import DpoRun, KtoRun, OnlineRun, SftRun
from plumbob.configs.settings.models import AlignedPolicySettings
from plumbob.data.batch import Batch
from plumbob.data.tokenization import PairBatch, TokenBatch
from plumbob.models.adapter import ModelRole
from plumbob.models.policy import PolicyModel
from plumbob.models.tuning.methods import method_of, open_tunable
from plumbob.models.tuning.roles import trainable_groups
from plumbob.models.tuning.starts.start_buffers import start_buffers
from plumbob.trainers.build import build_learner
from plumbob.trainers.learner.learner import Learner
from plumbob.trainers.learner.learner_protocol import UpdatePlan
from plumbob.trainers.offline.dpo import response_logprobs, with_reference
from plumbob.trainers.offline.kto import KtoBatch
from tests.support.learner_ranks import numpy_state, ragged_experience, this_rank
from tests.support.role_logprobs import plain, response

ROLES: tuple[ModelRole, ...] = ("policy", "reference", "value")
STAGES: Mapping[str, tuple[Any, dict[str, Any]]] = {
    "sft": (SftRun, {"data": {"demonstrations": "unread"}, "sft": {}}),
    "dpo": (DpoRun, {"data": {"pairs": "unread"}, "dpo": {}}),
    "kto": (KtoRun, {"data": {"labelled": "unread"}, "kto": {}}),
    "ppo": (
        OnlineRun,
        {"data": {"prompts": "unread"}, "reward": {"model": "unread"}, "online": {"samples_per_prompt": 2}},
    ),
}
NUM_STEPS = 6
SAVED_AFTER = 3


@dataclass(frozen=True)
class Walk:
    """What became of it.

    Attributes:
        losses: of each pass before and after training.
        start_gap: largest difference of the policy's log-probs to its reference's before the first step.
        base_gap: the same of the reference, after training, to plain transformers' of the base; where a new adapter is
            not the base, to plain PEFT's of the policy as it began.
        reference_moved: whether training changed a bit of what the reference says.
        unmoved: parameters that were to be trained, and did not change.
        moved_too: parameters and buffers that were not, and did.
        export_gap: of plain PEFT on the plain base with what was exported, to the trained policy.
        policy_move: how far training took the policy's log-probs.
        is_resumed_exactly: whether a learner that continued from a checkpoint ends with the same bytes.
        next_start_gap: of a policy that begins from what was exported, to its reference.
        next_export_gap: of that policy to the one that was trained.
    """

    losses: tuple[tuple[float, float], ...]
    start_gap: float
    base_gap: float
    reference_moved: bool
    unmoved: list[str]
    moved_too: list[str]
    export_gap: float
    policy_move: float
    is_resumed_exactly: bool
    next_start_gap: float
    next_export_gap: float


def walk(stage: str, tuning: dict[str, Any], learning_rate: float, base: str, folder: Path) -> Walk:
    run = _run_of(stage, tuning, learning_rate, base)
    learner = build_learner(run, this_rank())
    model = learner.model
    assert isinstance(model, PolicyModel)
    has_reference = "reference" in model.adapters
    began = response(model, "policy")
    reference = response(model, "reference") if has_reference else began
    everything = _everything(model)
    (folder / "start").mkdir()
    learner.export(folder / "start")
    batch = _batch_of(stage, learner, run)
    before = _losses(learner, batch)
    _train(learner, batch, 0, SAVED_AFTER)
    (folder / "checkpoint").mkdir()
    learner.save(folder / "checkpoint")
    _train(learner, batch, SAVED_AFTER, NUM_STEPS)
    trained, losses = response(model, "policy"), tuple(zip(before, _losses(learner, batch), strict=True))
    learnt = {name for group in trainable_groups(model).values() for name in group}
    moved = {name for name, tensor in _everything(model).items() if not torch.equal(tensor, everything[name])}
    (folder / "policy").mkdir()
    learner.export(folder / "policy")
    plain_base = AutoModelForCausalLM.from_pretrained(base)
    base_gap = 0.0
    if has_reference:
        is_base = model.adapters["reference"] is None
        start = plain_base if is_base else PeftModel.from_pretrained(plain_base, str(folder / "start"))
        base_gap = _gap(response(model, "reference"), plain(start))
    reference_moved = has_reference and not torch.equal(response(model, "reference"), reference)
    exported = plain(PeftModel.from_pretrained(plain_base, str(folder / "policy")))
    resumed = build_learner(run, this_rank())
    resumed.load(folder / "checkpoint")
    _train(resumed, batch, SAVED_AFTER, NUM_STEPS)
    next_policy = _next_policy(folder / "policy", tuning)
    return Walk(
        losses=losses,
        start_gap=_gap(began, reference),
        base_gap=base_gap,
        reference_moved=reference_moved,
        unmoved=sorted(learnt - moved),
        moved_too=sorted(moved - learnt),
        export_gap=_gap(exported, trained),
        policy_move=_gap(trained, began),
        is_resumed_exactly=_same(numpy_state(learner), numpy_state(resumed))
        and torch.equal(response(resumed.model, "policy"), trained),  # type: ignore[arg-type]
        next_start_gap=_gap(response(next_policy, "policy"), response(next_policy, "reference")),
        next_export_gap=_gap(response(next_policy, "reference"), trained),
    )


def resumes_where_it_began(tuning: dict[str, Any], base: str, folder: Path) -> bool:
    """Whether a learner that begins elsewhere, as another machine's decomposition might, resumes as the first."""
    run = _run_of("sft", tuning, 1e-3, base)
    first, second = (build_learner(run, this_rank()) for _ in range(2))
    _train(first, _batch_of("sft", first, run), 0, 1)
    first.save(folder)
    other = start_buffers(second.model)
    for start in other.values():
        start.neg_()
    second.load(folder)
    expected = start_buffers(first.model)
    is_same = other.keys() == expected.keys() and all(torch.equal(other[name], one) for name, one in expected.items())
    responses = (response(one.model, "policy") for one in (first, second))  # type: ignore[arg-type]
    return bool(expected) and is_same and torch.equal(*responses)


def first_moments(
    stage: str, tuning: dict[str, Any], base: str, zero_stage: int, checkpointing: bool = False
) -> dict[str, Any]:
    """Adam's after one step, which are 0.1 x the gradient, and sensitivities of AdaLoRA's numbers, |w gradient|; on
    every rank of the group that this process is in."""
    rank = this_rank()
    learner_settings = {"zero_stage": zero_stage, "num_workers": rank.world_size, "micro_batch_size": 2}
    run = _run_of(stage, tuning, 1e-3, base, **learner_settings, gradient_checkpointing=checkpointing)
    learner = build_learner(run, rank)
    _train(learner, _batch_of(stage, learner, run), 0, 1)
    return {
        name: value for name, value in numpy_state(learner).items() if name.startswith(("exp_avg.", "sensitivity."))
    }


def _run_of(stage: str, tuning: dict[str, Any], learning_rate: float, base: str, **learner: Any) -> Any:
    schema, given = STAGES[stage]
    group = "online" if stage == "ppo" else stage
    settings = {**given, group: {**given[group], "learning_rate": learning_rate, "weight_decay": 0.0}}
    return schema.model_validate({**settings, "policy": {"model": base, "tuning": tuning}, "learner": learner})


def _everything(model: PolicyModel) -> dict[str, Tensor]:
    named = [*model.named_parameters(), *model.named_buffers()]
    return {name: tensor.detach().clone() for name, tensor in named}


def _batch_of(stage: str, learner: Learner, run: Any) -> Batch:
    experience = ragged_experience(run.online) if stage == "ppo" else ragged_experience()
    ids, attention, actions = (
        getattr(experience, name).numpy() for name in ("input_ids", "attention_mask", "action_mask")
    )
    tokens = TokenBatch(ids, attention, actions)
    if stage == "sft":
        return tokens
    if stage == "dpo":
        rejected = TokenBatch(np.where(attention, (ids * 7 + 3) % 40, 0), attention, actions)
        return with_reference(PairBatch(tokens, rejected), run.dpo.loss, learner)  # type: ignore[arg-type]
    if stage == "kto":
        reference = learner.compute(tokens, "reference", response_logprobs)
        return KtoBatch(tokens, np.arange(len(ids)) % 2 == 0, reference, 0.0)
    old = learner.compute(tokens, "policy", _token_logprobs)
    return replace(experience, old_logprobs=torch.from_numpy(old))


def _token_logprobs(forward: Any, batch: TokenBatch) -> Tensor:
    masks = (torch.from_numpy(batch.attention_mask), torch.from_numpy(batch.loss_mask))
    found: Tensor = forward(torch.from_numpy(batch.input_ids), *masks, 1.0)
    return found


def _train(learner: Learner, batch: Batch, first: int, last: int) -> None:
    for step in range(first, last):
        learner.update(batch, UpdatePlan(batch.num_rows, 1, 1.0, step, NUM_STEPS))


def _losses(learner: Learner, batch: Batch) -> list[float]:
    learner.model.eval()
    found = []
    for one in learner.loss_terms:
        with torch.no_grad(), learner._in_role(one.role):
            found.append(float(one.loss_sum(learner.forward, batch).loss / one.count(batch)))
    return found


def _next_policy(adapter: Path, tuning: dict[str, Any]) -> PolicyModel:
    kind = "lora" if tuning["kind"] == "adalora" else tuning["kind"]  # What it leaves.
    policy = AlignedPolicySettings.model_validate({"model": str(adapter), "tuning": {"kind": kind}})
    return method_of(policy.tuning).policy(open_tunable(policy, ROLES), ROLES, 0)


def _gap(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max())


def _same(left: Mapping[str, Any], right: Mapping[str, Any]) -> bool:
    return left.keys() == right.keys() and all(np.array_equal(left[name], right[name]) for name in left)
