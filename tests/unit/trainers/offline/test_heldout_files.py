"""The file of held-out pairs that DPO and KTO leave: rewards by hand of a policy that gives each token a tenth."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from plumbob.configs.settings.offline_objectives import DpoLoss, OrpoLoss, PreferenceLoss, SimpoLoss
from plumbob.data.batch import Batch
from plumbob.data.tokenization import PairBatch, TokenSequence, collate
from plumbob.trainers.offline.dpo import DpoBatch, DpoInput, rewarded_pairs, step_batch
from plumbob.trainers.offline.kto import KtoInput, rewarded_responses
from plumbob.trainers.offline.loop import HELDOUT_ROWS, Heldout


class Letters:
    """Decodes token 1 as a, and so on."""

    def decode(self, ids: list[int], **_: Any) -> str:
        return "".join(chr(ord("a") + each - 1) for each in ids)


class TenthsOfIds:
    """Learners whose policy gives every token -id / 10."""

    def compute(self, batch: Batch, role: str, function: Callable[[Any, Any], torch.Tensor]) -> NDArray[np.float32]:
        assert role == "policy"
        found: NDArray[np.float32] = function(lambda ids, _, mask, __: torch.where(mask, ids / -10, 0.0), batch).numpy()
        return found


def sequence(prompt: list[int], response: list[int]) -> TokenSequence:
    ids = np.array(prompt + response, np.int32)
    return TokenSequence(ids, np.arange(len(ids)) >= len(prompt))


# Token 9 ends a response: log pi is -0.1 - 0.2 - 0.9 = -1.2 of the chosen one and -0.5 - 0.9 = -1.4 of the rejected.
PAIR = (sequence([3, 4], [1, 2, 9]), sequence([3, 4], [5, 9]))
DATA = DpoInput((), (PAIR,), 0, (), tokenizer=Letters())


def heldout(*pairs: Any) -> Heldout[DpoBatch]:
    def batch_of(index: NDArray[np.int64]) -> DpoBatch:
        chosen, rejected = ([pairs[place][side] for place in index] for side in (0, 1))
        reference = np.tile(np.array([[-2.0, -1.0]], np.float32), (len(index), 1))
        return step_batch(PairBatch(collate(chosen, 0), collate(rejected, 0)), reference)

    return Heldout(len(pairs), batch_of, lambda batch: float(batch.num_rows))


@pytest.mark.parametrize(
    ("loss", "rewards"),
    [
        # Against a reference of -2 and -1: u = 0.8 and -0.4.
        (DpoLoss(beta=0.5), (0.4, -0.2)),
        (DpoLoss(beta=0.5, per_token=True), (0.4 / 3, -0.1)),
        # Without one, by the mean of 3 tokens and of 2: -0.4 and -0.7.
        (SimpoLoss(beta=2.0), (-0.8, -1.4)),
        (
            OrpoLoss(),
            (float(np.log(np.exp(-0.4) / (1 - np.exp(-0.4)))), float(np.log(np.exp(-0.7) / (1 - np.exp(-0.7))))),
        ),
    ],
)
def test_the_rewards_are_what_the_loss_compares(loss: PreferenceLoss, rewards: tuple[float, float]) -> None:
    learners: Any = TenthsOfIds()
    (found,) = rewarded_pairs(loss, DATA, heldout(PAIR), learners)
    assert (found.index, found.prompt, found.chosen, found.rejected) == (0, "cd", "ab", "e")
    assert (found.chosen_reward, found.rejected_reward) == pytest.approx(rewards, rel=1e-5)
    assert found.margin == pytest.approx(rewards[0] - rewards[1], rel=1e-5)


def test_records_are_asked_about_in_the_portions_in_which_they_are_measured() -> None:
    many = heldout(*[PAIR] * (HELDOUT_ROWS + 3))
    assert [len(index) for index in many.portions()] == [HELDOUT_ROWS, 3]
    assert [index.tolist() for index in many.portions(2)] == [[0, 1]]


def test_a_response_that_was_labelled_alone_has_its_place_by_its_label() -> None:
    labelled = ((PAIR[0], True), (PAIR[1], False))
    good, bad = rewarded_responses(
        KtoInput((), labelled, 0, (), tokenizer=Letters()), np.arange(2), np.array([0.25, -0.5])
    )
    assert (good.prompt, good.chosen, good.rejected, good.chosen_reward, good.margin) == ("cd", "ab", None, 0.25, 0.25)
    assert (bad.chosen, bad.rejected, bad.rejected_reward, bad.margin) == (None, "e", -0.5, 0.5)
    assert bad.chosen_reward is None and good.rejected_reward is None
