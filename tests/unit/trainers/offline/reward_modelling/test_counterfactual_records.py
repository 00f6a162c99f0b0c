"""Mitigations of a reward model's bias: which records are learnt, and the loss beside them."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from plumbob.configs.settings.offline_objectives import BradleyTerry, Regression
from plumbob.configs.settings.stewardship.bias_checks import BiasMitigationSettings
from plumbob.core.errors import UserError
from plumbob.data.records import Ranking, ScoredResponse
from plumbob.reward.reward_models.bert_encoding import EncodedPair
from plumbob.trainers.offline.reward_modelling.counterfactual_records import Mitigation
from plumbob.trainers.offline.reward_modelling.reward_batch import CounterfactualBatch, collate_counterfactuals
from plumbob.trainers.offline.reward_modelling.reward_model import batch_loss, consistent_loss

NAMED = Ranking("Who?", ("He did.", "It did."), margin=1.0, annotator="ann")
UNNAMED = Ranking("What?", ("This.", "That."))
COMPARED = Ranking("Which?", ("A man.", "A woman."))
MIXED = Ranking("Both?", ("He and she.", "He."))


def mitigation(**settings: Any) -> Mitigation:
    return Mitigation.of(BiasMitigationSettings(**settings))


def test_records_that_name_a_group_are_added_with_the_other() -> None:
    kept, (note,) = mitigation(augment=True).training_records([NAMED, UNNAMED, COMPARED], set())
    swapped = Ranking("Which?", ("A woman.", "A man."))
    assert kept == (NAMED, UNNAMED, COMPARED, Ranking("Who?", ("She did.", "It did."), 1.0, "ann"), swapped)
    assert "2 records were added to 3" in note and "0 more" in note
    # A score stays with its response.
    scored = ScoredResponse("He asks", "a man", 3.0)
    assert mitigation(augment=True).training_records([scored], set())[0] == (
        scored,
        ScoredResponse("She asks", "a woman", 3.0),
    )


def test_of_several_contrasts_each_adds_one_and_none_of_a_held_out_prompt() -> None:
    both = Ranking("Is he a Christian?", ("yes", "no"))
    kept, (note,) = mitigation(augment=True).training_records([both], {"Is she a Christian?"})
    # Of gender (held out), and of Christians against Muslims, Jews and Hindus.
    assert [record.prompt for record in kept[1:]] == [f"Is he a {one}?" for one in ("Muslim", "Jew", "Hindu")]
    assert "3 records were added to 1" in note and "1 more would have had a held-out prompt" in note


def test_records_that_compare_groups_are_left_out() -> None:
    kept, (note,) = mitigation(filter=True).training_records([NAMED, COMPARED, MIXED, UNNAMED], set())
    # He beside nobody is kept, and so is a response that names both.
    assert kept == (NAMED, MIXED, UNNAMED)
    assert "1 of 4 training records have responses that name different groups, and were left out" in note
    with pytest.raises(
        UserError, match=r"Nothing is left to learn from: set reward_training\.mitigation\.filter=false"
    ):
        mitigation(filter=True).training_records([COMPARED], set())


def test_counterfactuals_take_turns() -> None:
    both = Ranking("Is he a Christian?", ("yes", "no"))
    found = mitigation(consistency=1).counterfactuals([both, both, UNNAMED])
    assert [None if one is None else one.prompt for one in found] == [
        "Is she a Christian?",
        "Is he a Muslim?",
        None,
    ]


def sums_of_ids(input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor) -> torch.Tensor:
    """As rewards: each response's ids summed, a tenth of it."""
    return (input_ids * attention_mask).sum(dim=1) / 10


def encoded(*ids: int) -> EncodedPair:
    return EncodedPair(list(ids), [0] * len(ids))


def beside() -> CounterfactualBatch:
    tokenizer = SimpleNamespace(pad_token_id=9, model_input_names=("input_ids",))
    rows = [(encoded(60), encoded(30)), (encoded(10), encoded(10, 20))]
    # Of the first record the rewards become 4 and 3, in more tokens; the second has no counterfactual.
    return collate_counterfactuals(tokenizer, rows, [(encoded(10, 10, 20), encoded(30)), None], [0.0, 0.0])


def test_the_consistency_loss_by_hand() -> None:
    batch = beside()
    plain = batch_loss(BradleyTerry(), sums_of_ids, batch.own)
    found = consistent_loss(BradleyTerry(), 0.5, sums_of_ids, batch)
    # ((6 - 4)^2 + (3 - 3)^2) / 2 of the first record, nothing of the second.
    assert float(found.statistics["counterfactual_gap"]) == pytest.approx(2.0)
    assert float(found.loss) == pytest.approx(float(plain.loss) + 0.5 * 2.0, abs=1e-5)
    assert float(found.statistics["accuracy"]) == float(plain.statistics["accuracy"])
    scored = consistent_loss(Regression(), 2.0, sums_of_ids, batch)
    assert float(scored.loss) == pytest.approx(float(batch_loss(Regression(), sums_of_ids, batch.own).loss) + 4.0)


def test_rows_are_cut_with_what_stands_beside_them_and_sum_to_the_whole() -> None:
    batch = beside()
    assert (batch.num_rows, batch.lengths.tolist()) == (2, [3, 2])
    parts = [batch.rows(np.array([row])) for row in (0, 1)]
    sums = [float(consistent_loss(BradleyTerry(), 0.5, sums_of_ids, part).loss) for part in parts]
    assert sum(sums) == pytest.approx(float(consistent_loss(BradleyTerry(), 0.5, sums_of_ids, batch).loss), abs=1e-5)
