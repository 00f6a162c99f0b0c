"""Soft prompts of several tasks, really trained in a rank's process: what moved, and what was written."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM

from plumbob.configs.runs import SftRun
from plumbob.data.tokenization import TaskBatch, TokenBatch
from plumbob.models.policy import PolicyModel
from plumbob.models.tuning.roles import trainable_groups
from plumbob.trainers.build import build_learner
from plumbob.trainers.learner.export import TASKS_FOLDER
from plumbob.trainers.learner.learner_protocol import UpdatePlan
from tests.support.learner_ranks import numpy_state, this_rank
from tests.support.role_logprobs import ACTIONS, IDS, MASK, TEMPERATURE

TASKS = ("first", "second", "third")
OF_ROWS = torch.tensor([2, 0])
"""The tasks of the two rows that are compared."""


@dataclass(frozen=True)
class TaskWalk:
    """What became of it.

    Attributes:
        losses: before and after.
        start_gap: largest difference of two tasks' log-probs of one row before the first step.
        difference: the same afterwards.
        moved: names of what training changed, and of what it was to change.
        export_gap: of plain PEFT with the tasks' numbers, on the plain base, to what was trained.
        task_gaps: of plain PEFT with each task's own folder.
        is_resumed_exactly: whether a learner that continued from a checkpoint ends with the same bytes.
    """

    losses: tuple[float, float]
    start_gap: float
    difference: float
    moved: tuple[set[str], set[str]]
    export_gap: float
    task_gaps: list[float]
    is_resumed_exactly: bool


def walk_tasks(base: str, folder: Path) -> TaskWalk:
    tuning = {"kind": "multitask-prompt-tuning", "tasks": TASKS, "num_virtual_tokens": 4, "rank": 2}
    settings = {"learning_rate": 3e-2, "weight_decay": 0.0}
    run = SftRun.model_validate(
        {"data": {"demonstrations": "unread"}, "policy": {"model": base, "tuning": tuning}, "sft": settings}
    )
    learner = build_learner(run, this_rank())
    model = learner.model
    assert isinstance(model, PolicyModel) and not model.shares_prompts
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    start_gap = _gap(_response(model, [0, 0]), _response(model, [1, 1]))
    ids = IDS.repeat(3, 1).numpy()
    tokens = TokenBatch(ids, MASK.repeat(3, 1).numpy(), ACTIONS.repeat(3, 1).numpy())
    # What each task is to learn differs.
    tokens = TokenBatch((ids + 11 * np.arange(6)[:, None]) % 280, tokens.attention_mask, tokens.loss_mask)
    batch = TaskBatch(tokens, np.array([0, 1, 2, 0, 1, 2]))
    first = learner.evaluate(batch)["loss"]
    _train(learner, batch, 0, 3)
    (folder / "checkpoint").mkdir()
    learner.save(folder / "checkpoint")
    _train(learner, batch, 3, 6)
    trained = _response(model, OF_ROWS.tolist())
    learnt = {name for group in trainable_groups(model).values() for name in group}
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    (folder / "policy").mkdir()
    learner.export(folder / "policy")
    plain_base = AutoModelForCausalLM.from_pretrained(base)
    exported = PeftModel.from_pretrained(plain_base, str(folder / "policy"))
    gaps = []
    for row, task in enumerate(OF_ROWS.tolist()):
        one = PeftModel.from_pretrained(plain_base, str(folder / "policy" / TASKS_FOLDER / TASKS[task]))
        gaps.append(_gap(_plain(one)[row], trained[row]))
    resumed = build_learner(run, this_rank())
    resumed.load(folder / "checkpoint")
    _train(resumed, batch, 3, 6)
    state, again = numpy_state(learner), numpy_state(resumed)
    return TaskWalk(
        losses=(first, learner.evaluate(batch)["loss"]),
        start_gap=start_gap,
        difference=_gap(_response(model, [0, 0]), _response(model, [1, 1])),
        moved=(moved, learnt),
        export_gap=_gap(_plain(exported, task_ids=OF_ROWS), trained),
        task_gaps=gaps,
        is_resumed_exactly=all(np.array_equal(state[name], again[name]) for name in state),
    )


def _train(learner: Any, batch: TaskBatch, first: int, last: int) -> None:
    for step in range(first, last):
        learner.update(batch, UpdatePlan(batch.num_rows, 1, 1.0, seed=step))


def _response(model: PolicyModel, tasks: list[int]) -> Tensor:
    """[2, 8]: log-probs of the actions, each row read with its task's soft prompt."""
    model.eval()
    with model.role("policy"), torch.no_grad():
        found: Tensor = model(IDS, MASK, ACTIONS, TEMPERATURE, None, torch.tensor(tasks))
    return found


@torch.no_grad()
def _plain(model: Any, **tasks: Tensor) -> Tensor:
    logits = model.eval()(input_ids=IDS, **tasks).logits[:, -IDS.shape[1] : -1]
    chosen = torch.log_softmax(logits / TEMPERATURE, dim=-1).gather(-1, IDS[:, 1:, None])[..., 0]
    return torch.where(ACTIONS, torch.nn.functional.pad(chosen, (1, 0)), 0.0)


def _gap(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max())
