"""KTO's batches: its pass by hand, its estimate of the KL, and what a gradient may not depend on."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plumbob.configs.runs import KtoRun
from plumbob.configs.settings.data import LabelledDataSettings
from plumbob.configs.settings.models import AlignedPolicySettings
from plumbob.configs.settings.training import KtoSettings
from plumbob.core.errors import UserError
from plumbob.data.tokenization import TokenBatch, TokenSequence, collate
from plumbob.trainers.learner.learner_protocol import UpdatePlan, join_rows, merge_results
from plumbob.trainers.offline.kto import KtoBatch, balance_notes, estimated_kl, kto_loss_terms, mismatched, prepare_kto
from tests.support.learner_ranks import LearnerCase, Ranks, numpy_state, tiny_learner
from tests.support.padding_sides import padded_on_the_left
from tests.support.tiny_policy import write_policy

SETTINGS = KtoSettings(beta=0.5, desirable_weight=2.0, undesirable_weight=3.0)


def sequence(prompt: list[int], response: list[int]) -> TokenSequence:
    ids = np.array(prompt + response, np.int32)
    return TokenSequence(ids, np.arange(len(ids)) >= len(prompt))


def tenths(input_ids: Any, attention_mask: Any, mask: Any, temperature: float) -> torch.Tensor:
    """As log-probs: minus a tenth of each token's id, where asked."""
    assert temperature == 1.0
    return torch.where(mask, -input_ids / 10, 0.0)


@pytest.mark.parametrize("side", [lambda responses: responses, padded_on_the_left], ids=["right", "left"])
def test_the_pass_of_ragged_responses_by_hand(side: Callable[[TokenBatch], TokenBatch]) -> None:
    # Log-probs -1.5 and -0.2 of responses of 3 tokens and 1, references -2.5 and -0.2: u = 1 and 0, z0 = 1.
    # beta (u - z0) = 0 (a tie: half right) and -0.5, which agrees with "bad".
    responses = side(collate([sequence([5], [6, 7, 2]), sequence([8, 9], [2])], pad_id=0))
    batch = KtoBatch(responses, np.array([True, False]), np.array([-2.5, -0.2], np.float32), 1.0)
    (only,) = kto_loss_terms(SETTINGS)
    found = only.loss_sum(tenths, batch)
    # 2 x 0.5 + 3 sigmoid(-0.5) = 1 + 3 x 0.377541.
    statistics = {"loss": 2.132622, "accuracy": 1.5, "margin": 0.5, "reward": 0.5, "kl": 2.0}
    assert {name: float(value) for name, value in found.statistics.items()} == pytest.approx(statistics, abs=2e-6)
    assert float(found.loss) == pytest.approx(2.132622, abs=2e-6)
    assert only.count(batch) == 2.0


# ------------------------------------------------------------------------------------------------------------- the KL

RECORDS = [(sequence([1, 2], [3, 4, 5]), True), (sequence([6], [7]), False), (sequence([8, 9, 8], [2, 2]), True)]


def test_a_prompt_gets_another_response_to_be_learnt() -> None:
    found = mismatched(RECORDS[2][0], RECORDS[0][0])
    assert found.ids.tolist() == [8, 9, 8, 3, 4, 5]
    assert found.loss_mask.tolist() == [False] * 3 + [True] * 3


class ByTenths:
    """Learners whose policy gives `tenths`, and whose reference gives `per_token` to every token of a response."""

    def __init__(self, per_token: float) -> None:
        self.per_token = per_token
        self.seen: list[list[list[int]]] = []

    def compute(self, batch: Any, role: str, function: Any) -> np.ndarray:
        self.seen.append([row[attended].tolist() for row, attended in zip(*unpacked(batch), strict=True)])
        flat = lambda ids, attended, mask, temperature: torch.where(mask, self.per_token, 0.0)  # noqa: E731
        found: np.ndarray = function(tenths if role == "policy" else flat, batch).numpy()
        return found


def unpacked(batch: Any) -> tuple[np.ndarray, np.ndarray]:
    return batch.input_ids, batch.attention_mask


def test_the_kl_is_of_mismatched_responses_and_not_below_0() -> None:
    others = [RECORDS[1], RECORDS[2], RECORDS[0]]
    learners: Any = ByTenths(-0.6)
    # Responses 7; 2, 2; 3, 4, 5: -0.7, -0.4, -1.2 against -0.6, -1.2, -1.8: u = -0.1, 0.8, 0.6, of mean 1.3 / 3.
    assert estimated_kl(RECORDS, others, 0, learners) == pytest.approx(1.3 / 3, abs=1e-6)
    assert learners.seen == [[[1, 2, 7], [6, 2, 2], [8, 9, 8, 3, 4, 5]]] * 2
    # Against 0 a token u is -0.7, -0.4 and -1.2: below 0, where no KL is.
    below: Any = ByTenths(0.0)
    assert estimated_kl(RECORDS, others, 0, below) == 0.0


# ----------------------------------------------------------------------------------- what a gradient must not depend on


def ragged(lengths: list[tuple[int, int, bool]]) -> KtoBatch:
    """(prompt tokens, response tokens, label) of each row; ids from 1 to 39 and references drawn from a fixed seed."""
    random = np.random.default_rng(5)
    rows = [sequence(random.integers(1, 40, p).tolist(), random.integers(1, 40, a).tolist()) for p, a, _ in lengths]
    reference = random.normal(-20, 3, len(rows)).astype(np.float32)
    return KtoBatch(collate(rows, 0), np.array([label for _, _, label in lengths]), reference, 0.7)


def gradient_of(batches: list[KtoBatch]) -> tuple[float, torch.Tensor]:
    table = (-3 * torch.rand(40, generator=torch.Generator().manual_seed(1), dtype=torch.float64)).requires_grad_()

    def forward(ids: Any, attended: Any, asked: Any, temperature: float) -> torch.Tensor:
        return torch.where(asked, table[ids] * (1 + 0.1 * torch.arange(ids.shape[1])), 0.0)

    (only,) = kto_loss_terms(SETTINGS)
    total = torch.stack([only.loss_sum(forward, batch).loss for batch in batches]).sum()
    total.backward()
    assert table.grad is not None
    return total.item(), table.grad


ROWS = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 6), st.booleans()), min_size=2, max_size=7)


@settings(max_examples=30, deadline=None)
@given(ROWS, st.data())
def test_order_and_cut_of_the_rows_change_nothing(lengths: list[tuple[int, int, bool]], data: st.DataObject) -> None:
    batch = ragged(lengths)
    order = np.array(data.draw(st.permutations(range(len(lengths)))))
    cut = data.draw(st.integers(1, len(lengths) - 1))
    value, gradient = gradient_of([batch])
    found, other = gradient_of([batch.rows(order[:cut]), batch.rows(order[cut:])])
    assert found == pytest.approx(value, rel=1e-9)
    torch.testing.assert_close(other, gradient, rtol=1e-9, atol=1e-9)


EIGHT = [
    (2, 6, True),
    (3, 1, False),
    (4, 3, True),
    (2, 2, True),
    (4, 5, False),
    (3, 5, False),
    (2, 1, True),
    (2, 4, True),
]


class FromRanks:
    """All ranks as the learners that answer `compute`, with the roles changed about: so the estimate is above 0."""

    def __init__(self, ranks: Ranks, case: LearnerCase) -> None:
        self.ranks, self.case = ranks, case

    def compute(self, batch: Any, role: str, function: Any) -> np.ndarray:
        other = {"policy": "reference", "reference": "policy"}[role]
        return join_rows(self.ranks.run(computed, self.case, batch, other, function), batch.num_rows)


def computed(case: LearnerCase, batch: Any, role: Any, function: Any) -> np.ndarray:
    return tiny_learner(case, loss_terms=kto_loss_terms(SETTINGS)).compute(batch, role, function)


def updated(case: LearnerCase, batch: KtoBatch) -> tuple[Any, dict[str, np.ndarray]]:
    learner = tiny_learner(case, loss_terms=kto_loss_terms(SETTINGS))
    result = learner.update(batch, UpdatePlan(minibatch_size=8, num_epochs=1, learning_rate_scale=1.0, seed=0))
    return result, numpy_state(learner)


def test_ranks_micro_batches_and_the_side_of_padding_change_neither_the_kl_nor_the_update(
    one_rank: Ranks, two_ranks: Ranks, llama: Path
) -> None:
    batch = ragged(EIGHT)
    rows = [TokenSequence(ids[real], mask[real]) for ids, real, mask in zip(*whole(batch), strict=True)]
    records = list(zip(rows, batch.desirable.tolist(), strict=True))
    found = []
    on_left = replace(batch, responses=padded_on_the_left(batch.responses))
    split = LearnerCase(llama, zero_stage=2, micro_batch_size=1)
    for ranks, case, own in ((one_rank, LearnerCase(llama), batch), (two_ranks, split, on_left)):
        learners: Any = FromRanks(ranks, case)
        kl = estimated_kl(records, records[1:] + records[:1], 0, learners)
        results = ranks.run(updated, case, own)
        found.append((kl, merge_results([result for result, _ in results]), results[0][1]))
    assert found[0][0] > 0.01, "an estimate that is cut at 0 proves nothing"
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-5)
    assert found[0][1]["policy_grad_norm"] > 1e-3
    assert found[1][1] == pytest.approx(found[0][1], rel=1e-4, abs=1e-6)
    for name, tensor in found[0][2].items():
        # As for PPO: 2e-5 of the largest moment, and of a parameter 2% of a step of 1e-3.
        bound = 2e-5 if name.startswith("param.") else 2e-5 * float(np.abs(tensor).max())
        assert np.abs(found[1][2][name] - tensor).max() <= bound, name


def whole(batch: KtoBatch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return batch.responses.input_ids, batch.responses.attention_mask, batch.responses.loss_mask


# ------------------------------------------------------------------------------------------------------------ its input


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> str:
    """256 positions."""
    return write_policy(tmp_path_factory.mktemp("policy"))


def run_of(tmp_path: Path, policy: str, rows: list[dict[str, Any]], **limits: int) -> KtoRun:
    path = tmp_path / "labelled.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = LabelledDataSettings(labelled=str(path), heldout_fraction=0, **limits)
    return KtoRun(data=data, policy=AlignedPolicySettings(model=policy))


def row(prompt: str, completion: str, label: bool) -> dict[str, Any]:
    return {"prompt": prompt, "completion": completion, "label": label}


def test_labels_stay_with_their_responses_when_others_are_too_long(tmp_path: Path, policy: str) -> None:
    rows = [row("a", "b", True), row("a", "c" + " d" * 30, True), row("a", "red", False)]
    found = prepare_kto(run_of(tmp_path, policy, rows, max_prompt_tokens=20, max_response_tokens=10))
    assert [label for _, label in found.train] == [True, False] and found.heldout == ()
    # One good, one bad: nothing to say but that a response was dropped.
    long, small = found.notes
    assert small.startswith("2 training records are fewer than kto.batch_size=")
    assert long.startswith("1 of 3 labelled responses dropped")


def test_a_prompt_must_have_room_for_every_response(tmp_path: Path, policy: str) -> None:
    # A letter is a token, and a space before it another at most: 200 tokens and more in the prompt of one row, and in
    # the response of the other, each of which fits the 256 positions alone.
    rows = [row("b" * 200, "b", True), row("b", "b" * 200, False)]
    with pytest.raises(UserError, match=r"longest training sequence has \d+ tokens and the model has 256 positions"):
        prepare_kto(run_of(tmp_path, policy, rows))


@pytest.mark.parametrize(
    ("num_good", "num_bad", "weights", "is_said"),
    [(4, 4, (1, 1), False), (4, 3, (1, 1), False), (5, 3, (1, 1), True), (3, 4, (1, 1), True), (3, 4, (1.4, 1), False)],
)
def test_labels_out_of_balance_are_reported(
    num_good: int, num_bad: int, weights: tuple[float, float], is_said: bool
) -> None:
    records = [(RECORDS[0][0], True)] * num_good + [(RECORDS[0][0], False)] * num_bad
    notes = balance_notes(records, KtoSettings(desirable_weight=weights[0], undesirable_weight=weights[1]))
    assert len(notes) == is_said
    assert all(f"{num_good} responses are labelled good and {num_bad} bad" in note for note in notes)
