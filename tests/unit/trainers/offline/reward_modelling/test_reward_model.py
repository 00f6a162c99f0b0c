"""What a reward model is given, and what its loss may not depend on."""

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from transformers import BertConfig, BertForSequenceClassification, LlamaConfig

from plumbob.configs.settings.models import RewardEncoderSettings
from plumbob.configs.settings.offline_objectives import BradleyTerry, PlackettLuce, Regression, RewardObjective
from plumbob.configs.settings.training import RewardTrainingSettings
from plumbob.configs.settings.workers import LearnerSettings
from plumbob.core.errors import UserError
from plumbob.data.records import Ranking, ScoredResponse
from plumbob.reward.reward_models.bert_encoding import EncodedPair
from plumbob.trainers.learner.engine import Engine, ParameterGroup
from plumbob.trainers.learner.export import NoArtifact
from plumbob.trainers.learner.learner import Learner
from plumbob.trainers.learner.learner_protocol import UpdatePlan, merge_results
from plumbob.trainers.offline.reward_modelling.reward_batch import (
    RewardBatch,
    RewardModule,
    collate_responses,
    response_rewards,
)
from plumbob.trainers.offline.reward_modelling.reward_model import (
    batch_loss,
    check_encoder,
    feedback_metrics,
    reward_loss_terms,
)
from tests.support.learner_ranks import Ranks, numpy_state, this_rank
from tests.support.padding_sides import judged_padded_on_the_left
from tests.support.tiny_scorer import bert_tokenizer

OBJECTIVES: tuple[RewardObjective, ...] = (BradleyTerry(flip_rate=0.1, use_margin=True), PlackettLuce(), Regression())
NUM_ROWS = 6


def sums_of_ids(input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor) -> torch.Tensor:
    """As rewards: each response's ids summed, a tenth of it."""
    return (input_ids * attention_mask).sum(dim=1) / 10


def encoded(*ids: int) -> EncodedPair:
    return EncodedPair(list(ids), [0] * len(ids))


@pytest.mark.parametrize(("names", "types"), [((), [0, 0, 0]), (("token_type_ids",), [0, 1, 0])])
def test_responses_of_a_ranking_side_by_side(names: tuple[str, ...], types: list[int]) -> None:
    tokenizer = SimpleNamespace(pad_token_id=9, model_input_names=("input_ids", *names))
    rows = [(EncodedPair([1, 2, 3], [0, 1, 0]), encoded(4)), (encoded(5), encoded(6, 7), encoded(8))]
    found = collate_responses(tokenizer, rows, [0.5, 0.0])
    assert found.input_ids.tolist() == [[[1, 2, 3], [4, 9, 9], [9, 9, 9]], [[5, 9, 9], [6, 7, 9], [8, 9, 9]]]
    assert found.attention_mask.sum(axis=2).tolist() == [[3, 1, 0], [1, 2, 1]]
    assert found.token_type_ids[0].tolist() == [types, [0, 0, 0], [0, 0, 0]]
    assert found.response_mask.tolist() == [[True, True, False], [True, True, True]]
    assert (found.targets.tolist(), found.lengths.tolist(), found.num_rows) == ([0.5, 0.0], [3, 2], 2)
    # Rows are cut to their longest response, and keep their places for responses.
    assert found.rows(np.array([1])).input_ids.tolist() == [[[5, 9], [6, 7], [8, 9]]]


def batch(kind: str) -> RewardBatch:
    """Rows of pairs, of 2 to 4 ranked responses, or of one response, with targets of their own."""
    rng = np.random.default_rng(0)
    num_responses = {"bradley-terry": [2] * NUM_ROWS, "plackett-luce": [2, 3, 4, 2, 3, 3], "regression": [1] * NUM_ROWS}
    rows = [[encoded(*rng.integers(1, 9, rng.integers(1, 6))) for _ in range(num)] for num in num_responses[kind]]
    tokenizer = SimpleNamespace(pad_token_id=0, model_input_names=("input_ids",))
    return collate_responses(tokenizer, rows, rng.uniform(0, 2, NUM_ROWS).tolist())


def test_only_responses_go_through_the_model() -> None:
    seen = []

    def forward(ids: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        seen.append(len(ids))
        return sums_of_ids(ids, *others)

    ranked = batch("plackett-luce")
    rewards = response_rewards(forward, ranked)
    assert seen == [17]
    assert rewards.numpy() == pytest.approx((ranked.input_ids * ranked.attention_mask).sum(axis=2) / 10)


def test_statistics_of_pairs_by_hand() -> None:
    tokenizer = SimpleNamespace(pad_token_id=0, model_input_names=("input_ids",))
    pairs = collate_responses(tokenizer, [(encoded(60), encoded(30)), (encoded(10), encoded(30))], [0.0, 0.0])
    # Rewards 6 against 3 and 1 against 3: ln(1 + e^-3) + ln(1 + e^2) = 0.048587 + 2.126928.
    found = batch_loss(BradleyTerry(), sums_of_ids, pairs)
    assert float(found.loss) == pytest.approx(2.175515, abs=1e-5)
    assert {name: float(value) for name, value in found.statistics.items()} == pytest.approx(
        {"loss": 2.175515, "accuracy": 1.0, "margin": 1.0}, abs=1e-5
    )
    # With margins 3 and 1 taken off: ln 2 + ln(1 + e^3).
    with_margins = replace(pairs, targets=np.array([3, 1], np.float32))
    assert float(batch_loss(BradleyTerry(), sums_of_ids, with_margins).loss) == pytest.approx(
        math.log(2) + math.log(1 + math.exp(3)), abs=1e-5
    )
    # As scores of the first responses: 6 against 3, 1 against 1.
    scored = batch_loss(Regression(), sums_of_ids, with_margins)
    assert (float(scored.loss), float(scored.statistics["absolute_error"])) == pytest.approx((4.5, 3.0))


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(OBJECTIVES), st.permutations(range(NUM_ROWS)), st.sets(st.integers(1, NUM_ROWS - 1)))
def test_the_loss_does_not_depend_on_the_order_of_rows_nor_on_how_they_are_cut(
    objective: RewardObjective, order: list[int], cuts: set[int]
) -> None:
    whole = batch(objective.kind)
    weights = torch.linspace(-1, 1, 9, requires_grad=True)

    def forward(ids: torch.Tensor, attention_mask: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
        return (weights[ids] * attention_mask).sum(dim=1)

    def sums(parts: list[np.ndarray]) -> tuple[float, list[float], dict[str, float]]:
        found = [batch_loss(objective, forward, whole.rows(part)) for part in parts]
        (slope,) = torch.autograd.grad(sum((part.loss for part in found), torch.zeros(())), weights)
        statistics = {name: sum(float(part.statistics[name]) for part in found) for name in found[0].statistics}
        return sum(float(part.loss.detach()) for part in found), slope.tolist(), statistics

    loss, slope, statistics = sums([np.arange(NUM_ROWS)])
    other_loss, other_slope, other_statistics = sums(np.split(np.array(order), sorted(cuts)))
    assert other_loss == pytest.approx(loss, rel=1e-5)
    assert other_slope == pytest.approx(slope, abs=1e-5)
    assert other_statistics == pytest.approx(statistics, rel=1e-5, abs=1e-6)


# ------------------------------------------------------------------------------------------------------ real learners


def reward_learner(zero_stage: int, micro_batch_size: int, objective: RewardObjective) -> Learner:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = BertConfig(
        vocab_size=9, max_position_embeddings=8, num_labels=1, initializer_range=0.4, **sizes, **dropout
    )
    module = RewardModule(BertForSequenceClassification(config), takes_types=True)
    group = ParameterGroup("model", dict(module.named_parameters()), 1e-3)
    training = RewardTrainingSettings(learning_rate=1e-3, max_grad_norm=1e6)
    learner_settings = LearnerSettings(micro_batch_size=micro_batch_size, zero_stage=zero_stage)  # type: ignore[arg-type]
    engine = Engine(module, [group], training, learner_settings, zero_stage, this_rank())
    return Learner(module, reward_loss_terms(objective), engine, NoArtifact(), this_rank(), learner_settings)


def updated(
    zero_stage: int, micro_batch_size: int, objective: RewardObjective, on_left: bool
) -> tuple[Any, dict[str, np.ndarray]]:
    learner = reward_learner(zero_stage, micro_batch_size, objective)
    judged = judged_padded_on_the_left(batch(objective.kind)) if on_left else batch(objective.kind)
    result = learner.update(judged, UpdatePlan(NUM_ROWS, 1, 1.0, 0))
    return result, numpy_state(learner)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda objective: objective.kind)
def test_ranks_micro_batches_and_the_side_of_padding_do_not_change_an_update(
    one_rank: Ranks, two_ranks: Ranks, objective: RewardObjective
) -> None:
    ((result, state),) = one_rank.run(updated, 0, NUM_ROWS, objective, False)
    cut = two_ranks.run(updated, 2, 2, objective, True)
    expected, found = merge_results([result]), merge_results([part for part, _ in cut])
    assert found == pytest.approx(expected, rel=1e-4)
    moments = {name: tensor for name, tensor in state.items() if not name.startswith("param.")}
    assert max(float(np.abs(tensor).max()) for tensor in moments.values() if tensor.size > 1) > 1e-3
    for name, tensor in moments.items():
        assert np.abs(cut[0][1][name] - tensor).max() <= 2e-5 * max(float(np.abs(tensor).max()), 1e-3), name


# ---------------------------------------------------------------------------------------------------------- the metrics


def test_metrics_of_held_out_feedback() -> None:
    rows = [np.array([math.log(3), 0.0], np.float32)] * 3 + [np.array([0.0, math.log(3)], np.float32)]
    pairs = [Ranking("q", (f"{place}", "-"), annotator=name) for place, name in enumerate("aabb")]
    metrics = feedback_metrics(BradleyTerry(), pairs, rows)
    # sigmoid(ln 3) = 3/4 is said of the better response, and 3 of 4 are right.
    assert metrics["heldout_calibration_error"] == pytest.approx(0.0, abs=1e-6)
    assert [metrics["annotators"][name]["accuracy"] for name in "ab"] == [1.0, 0.5]
    scored = [ScoredResponse("q", "a", score) for score in (1.0, 2.0, 3.0)]
    rewards = [np.array([value], np.float32) for value in (1, 2, 2)]
    assert feedback_metrics(Regression(), scored, rewards) == {"heldout_explained_variance": pytest.approx(2 / 3)}


def test_a_decoder_is_no_encoder_to_begin_from(tmp_path: Path) -> None:
    LlamaConfig().save_pretrained(tmp_path)
    bert_tokenizer().save_pretrained(tmp_path)
    save_file({}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"reward\.model=.*: llama is a decoder, .*: give a BERT"):
        check_encoder(RewardEncoderSettings(model=str(tmp_path)))
