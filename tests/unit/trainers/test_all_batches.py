"""Every class of batches: which rows it takes of each field, how many there are, and how long they are."""

from dataclasses import dataclass, fields, is_dataclass, replace
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch

from plumbob.data.batch import Batch
from plumbob.data.tokenization import PairBatch, TaskBatch, TokenBatch
from plumbob.trainers.forgetting.replay import WithReplay
from plumbob.trainers.offline.dpo import DpoBatch
from plumbob.trainers.offline.kto import KtoBatch
from plumbob.trainers.offline.pretrain import MaskedBatch
from plumbob.trainers.offline.reward_modelling.reward_batch import CounterfactualBatch, RewardBatch
from plumbob.trainers.online.experience import CriticTargets, Experience, LossKl
from plumbob.trainers.online.objective import TrajectoryBatch
from plumbob.trainers.online.objectives.ranked_responses import PairSide, ResponsePairs
from plumbob.verify.training.fit import WeightedResponses
from tests.support.source_tree import modules

# Three rows of four columns, of 4, 1 and 3 tokens.
MASK = [[1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 1, 0]]
SHORT = [[1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 0, 0]]
LEARNT = [[0, 1, 1, 1], [1, 0, 0, 0], [0, 0, 1, 0]]
PER_ROW = np.array([0.5, 1.5, 2.5], np.float32)


def numbers(base: int) -> np.ndarray:
    """The tens of a value are its row, and its units its column."""
    return base + np.array([[0, 1, 2, 3], [10, 11, 12, 13], [20, 21, 22, 23]])


def mask(rows: list[list[int]]) -> np.ndarray:
    return np.array(rows, np.bool_)


def tensor(base: int) -> torch.Tensor:
    return torch.from_numpy(numbers(base)).float()


TOKENS = TokenBatch(numbers(100), mask(MASK), mask(LEARNT))
OTHERS = TokenBatch(numbers(200), mask(SHORT), mask(SHORT))
PAIRS = PairBatch(TOKENS, OTHERS)
RESPONSES = TrajectoryBatch(
    torch.from_numpy(numbers(300)),
    torch.tensor(MASK).bool(),
    torch.tensor(LEARNT).bool(),
    temperature=0.7,
    teachers=torch.tensor([0, 2, 1]),
)
# Two responses of each row: of 4 and 2 tokens, of 1 and 3, and of 3 and 1.
BOTH = np.stack([np.array(MASK), np.array(SHORT)], axis=1)
TWICE = np.stack([numbers(100), numbers(200)], axis=1)
REWARDS = RewardBatch(TWICE, BOTH, 1 - BOTH, mask(SHORT)[:, 1:3], PER_ROW)
EXPERIENCE = Experience(
    torch.from_numpy(numbers(300)),
    *(torch.tensor(rows).bool() for rows in (MASK, LEARNT)),
    *(tensor(base) for base in (400, 500, 600, 700)),
    critic=CriticTargets(tensor(800), tensor(900)),
    kl=LossKl(tensor(1000), coefficient=0.05),
    teachers=torch.tensor([1, 0, 2]),
)
CHOSEN, REJECTED = (
    PairSide(
        torch.from_numpy(numbers(base)),
        *(torch.tensor(rows).bool() for rows in (attended, LEARNT)),
        tensor(base + 100),
        tensor(base + 200),
    )
    for base, attended in ((300, MASK), (600, SHORT))
)
MADE: list[tuple[Batch, list[int]]] = [
    (TOKENS, [4, 1, 3]),
    (PAIRS, [4, 3, 3]),
    (DpoBatch(PAIRS, PER_ROW, PER_ROW + 3, sequence_tokens=2.5), [4, 3, 3]),
    (KtoBatch(TOKENS, np.array([True, False, False]), PER_ROW, kl=0.25), [4, 1, 3]),
    (MaskedBatch(TOKENS, numbers(300)), [4, 1, 3]),
    (TaskBatch(TOKENS, np.array([1, 0, 2])), [4, 1, 3]),
    (WithReplay(OTHERS, TOKENS), [2, 3, 1]),
    (
        RewardBatch(np.stack([numbers(100), numbers(200)], axis=1), BOTH, 1 - BOTH, mask(SHORT)[:, 1:3], PER_ROW),
        [4, 3, 3],
    ),
    (CounterfactualBatch(REWARDS, REWARDS), [4, 3, 3]),
    (RESPONSES, [4, 1, 3]),
    (EXPERIENCE, [4, 1, 3]),
    (CHOSEN, [4, 1, 3]),
    (ResponsePairs(CHOSEN, REJECTED), [4, 3, 3]),
    (WeightedResponses(RESPONSES, torch.from_numpy(PER_ROW)), [4, 1, 3]),
]
PARTS = {CriticTargets, LossKl}
"""Of an `Experience`: they are never trained on by themselves, and have no length."""


def leaves(batch: Any) -> list[Any]:
    """What the batch holds, and what the batches in it hold."""
    values = [getattr(batch, field.name) for field in fields(batch)]
    return [leaf for value in values for leaf in (leaves(value) if is_dataclass(value) else [value])]


def subclasses(of: type) -> set[type]:
    return {found for child in of.__subclasses__() for found in {child, *subclasses(child)}}


def test_every_class_of_batches_is_made_here() -> None:
    for module in modules():
        if module.startswith(("data.", "models.", "reward.", "trainers.", "verify.")):
            import_module(f"plumbob.{module}")
    ours = {found for found in subclasses(Batch) if found.__module__.startswith("plumbob.")}
    assert ours == {type(batch) for batch, _ in MADE} | PARTS


@pytest.mark.parametrize(("batch", "lengths"), MADE, ids=lambda value: type(value).__name__)
def test_rows_are_taken_of_every_field(batch: Batch, lengths: list[int]) -> None:
    assert (batch.num_rows, batch.lengths.tolist(), batch.lengths.dtype) == (3, lengths, np.int64)
    found = batch.rows(np.array([2, 0]))
    assert type(found) is type(batch)
    assert (found.num_rows, found.lengths.tolist()) == (2, [lengths[2], lengths[0]])
    for before, after in zip(leaves(batch), leaves(found), strict=True):
        if isinstance(before, float | bool):
            assert after == before
        else:
            first, _, third = before.tolist()
            assert first != third and after.tolist() == [third, first] and after.dtype == before.dtype


def test_a_field_that_is_added_is_taken_too() -> None:
    @dataclass(frozen=True)
    class Weighted(TokenBatch):
        weights: np.ndarray
        note: float | None = None

    found = Weighted(TOKENS.input_ids, TOKENS.attention_mask, TOKENS.loss_mask, PER_ROW).rows(np.array([1]))
    assert (found.weights.tolist(), found.note, found.input_ids.tolist()) == ([1.5], None, [[110, 111, 112, 113]])


@pytest.mark.parametrize(
    ("batch", "width"),
    [(EXPERIENCE, 1), (REWARDS, 3), (TOKENS, 4)],
    ids=["experience", "rewards", "tokens keep their width"],
)
def test_columns_that_are_padding_in_all_rows_are_left_out(batch: Any, width: int) -> None:
    found = batch.rows(np.array([1]))
    wide = [
        leaf for leaf in leaves(found) if not isinstance(leaf, float | bool) and leaf.ndim == batch.attention_mask.ndim
    ]
    assert len(wide) >= 3 and {leaf.shape[-1] for leaf in wide} == {width}


@pytest.mark.parametrize(("batch", "lengths"), MADE, ids=lambda value: type(value).__name__)
def test_later_epochs_learn_from_the_same_rows(batch: Batch, lengths: list[int]) -> None:
    found = batch.in_later_epochs()
    assert type(found) is type(batch) and found.lengths.tolist() == lengths
    assert all(after is before for before, after in zip(leaves(batch), leaves(found), strict=True))


def test_they_ask_for_no_entropies_beside_replayed_text_neither() -> None:
    asked = WithReplay(replace(EXPERIENCE, asks_entropies=True), TOKENS).in_later_epochs().batch
    assert asked.asks_entropies is False and asked.advantages is EXPERIENCE.advantages


def test_a_batch_without_its_critic() -> None:
    found = EXPERIENCE.__class__(**vars(EXPERIENCE) | {"critic": None, "kl": None}).rows(np.array([2]))
    assert (found.critic, found.kl, found.advantages.tolist()) == (None, None, [[520.0, 521.0, 522.0]])
