"""The reward model: an encoder with one output, trained on human feedback and then calibrated."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, assert_never

import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from plumbob.configs.runs import RewardRun
from plumbob.configs.settings.models import ModelRef, NewBertSettings, RewardEncoderSettings
from plumbob.configs.settings.offline_objectives import BradleyTerry, PlackettLuce, Regression, RewardObjective
from plumbob.configs.settings.rewards import PipelineScorerSettings
from plumbob.configs.settings.tuning.encoders import EncoderLora, WholeEncoder
from plumbob.data.length_checks import check_limits
from plumbob.data.reading.readers import read_annotated_pairs, read_rankings, read_scored_responses
from plumbob.data.reading.row_sorting import ReadRecords
from plumbob.data.records import Ranking, ScoredResponse
from plumbob.data.rendered_rows import RenderedRow, text_rows, token_part
from plumbob.data.splitting import hold_out
from plumbob.data.texts.chat_text import Render
from plumbob.models.from_scratch import check_sizes
from plumbob.models.masked_lm import open_encoder
from plumbob.reward.agreement import (
    FeedbackMetrics,
    agreement_metrics,
)
from plumbob.reward.reward_models.bert_model import (
    RewardModel,
    check_length,
    check_pairs_are_read,
    new_reward_model,
    switch_dropout_off,
)
from plumbob.reward.reward_models.tuned_reward_model import TunedRewardModel, check_tuned
from plumbob.trainers.algorithms.reward_losses import (
    bradley_terry_loss,
    consistency_loss,
    ordered_pairs,
    plackett_luce_loss,
    regression_loss,
)
from plumbob.trainers.learner.export import Artifact, FullModel
from plumbob.trainers.learner.learner_parts import LearnerParts
from plumbob.trainers.learner.learner_protocol import Learners, LossSum, LossTerm
from plumbob.trainers.metrics.heldout_pairs import write_pairs
from plumbob.trainers.metrics.metrics_log import MetricsLog
from plumbob.trainers.metrics.stage_result import StageResult
from plumbob.trainers.offline.input_digests import inputs_of
from plumbob.trainers.offline.loop import (
    Heldout,
    OfflineStage,
    check_heldout,
    result_step,
    run_epochs,
    small_batch_notes,
)
from plumbob.trainers.offline.reward_modelling.counterfactual_records import Mitigation
from plumbob.trainers.offline.reward_modelling.encoded_feedback import encode_feedback, num_tokens
from plumbob.trainers.offline.reward_modelling.heldout_feedback import (
    feedback_metrics,
    heldout_rewards,
    rewarded_pairs,
)
from plumbob.trainers.offline.reward_modelling.reward_batch import (
    CounterfactualBatch,
    FeedbackRecord,
    RewardBatch,
    RewardModule,
    encode_responses,
    paired_rewards,
    response_rewards,
)


@dataclass(frozen=True)
class RewardInput:
    """Human feedback as text, sentences about rows that were left out, and one row as the model sees it."""

    train: tuple[FeedbackRecord, ...]
    heldout: tuple[FeedbackRecord, ...]
    notes: tuple[str, ...]
    rows: tuple[RenderedRow, ...] = ()


# ----------------------------------------------------------------------------------------------------------- the loss


def reward_loss_terms(objective: RewardObjective, consistency: float = 0.0) -> tuple[LossTerm[Any], ...]:
    """`consistency`: as of `BiasMitigationSettings`; with it the batches are `CounterfactualBatch`."""
    if consistency:
        return (LossTerm(None, partial(consistent_loss, objective, consistency), num_rows),)
    return (LossTerm(None, partial(batch_loss, objective), num_rows),)


def learner_parts(run: RewardRun) -> LearnerParts:
    encoder = run.reward.existing_encoder
    artifact: Artifact
    match run.reward.tuning:
        case WholeEncoder():
            new = new_reward_model(encoder)
            artifact = FullModel(new.model, "classifier.", new.tokenizer)
        case EncoderLora() as tuning:
            artifact = TunedRewardModel(encoder, tuning, "classifier.")
            new = artifact.open()
        case _:
            assert_never(run.reward.tuning)
    if not run.reward_training.dropout:
        switch_dropout_off(new.model)
    module = RewardModule(new.model, "token_type_ids" in new.tokenizer.model_input_names)
    training = run.reward_training
    return LearnerParts(module, reward_loss_terms(training.objective, training.consistency), artifact, training)


def batch_loss(objective: RewardObjective, forward: Any, batch: RewardBatch) -> LossSum:
    """The objective of all rows, their responses in one forward."""
    rewards = response_rewards(forward, batch)
    mask, targets = (torch.from_numpy(array).to(rewards.device) for array in (batch.response_mask, batch.targets))
    return loss_of_rewards(objective, rewards, mask, targets)


def consistent_loss(
    objective: RewardObjective, consistency: float, forward: Any, batch: CounterfactualBatch
) -> LossSum:
    """The objective of all rows, and beside it the consistency loss by its weight: all texts in one forward."""
    rewards, others = paired_rewards(forward, batch)
    mask, has_other, targets = (
        torch.from_numpy(array).to(rewards.device)
        for array in (batch.own.response_mask, batch.others.response_mask, batch.own.targets)
    )
    found = loss_of_rewards(objective, rewards, mask, targets)
    gap = consistency_loss(rewards, others, has_other)
    loss = found.loss + consistency * gap
    return LossSum(loss, {**found.statistics, "loss": loss.detach(), "counterfactual_gap": gap.detach()})


def loss_of_rewards(objective: RewardObjective, rewards: Tensor, response_mask: Tensor, targets: Tensor) -> LossSum:
    """The objective and its statistics, from rewards [B, K] with their mask, and the targets [B] of the records."""
    match objective:
        case BradleyTerry(flip_rate=flip_rate):
            loss = bradley_terry_loss(rewards[:, 0], rewards[:, 1], targets, flip_rate)
        case PlackettLuce():
            loss = plackett_luce_loss(rewards, response_mask)
        case Regression():
            loss = regression_loss(rewards[:, 0], targets)
            error = (rewards[:, 0].detach() - targets).abs().sum()
            return LossSum(loss, {"loss": loss.detach(), "absolute_error": error})
        case _:
            assert_never(objective)
    return LossSum(loss, {"loss": loss.detach(), **ordered_pairs(rewards, response_mask)._asdict()})


def num_rows(batch: RewardBatch | CounterfactualBatch) -> float:
    return float(batch.num_rows)


# ---------------------------------------------------------------------------------------------------------- the input


def prepare_reward(run: RewardRun, render: Render) -> RewardInput:
    """Read, check and split. Raises UserError; starts and writes nothing."""
    check_encoder(run.reward)
    kind = run.data.kind
    path, heldout_path = getattr(run.data, kind), getattr(run.data, f"heldout_{kind}")
    split = hold_out(_reader(run, render), path, heldout_path, lambda record: record.prompt, run.data, run.seed)
    check_heldout("reward_training", run.reward_training, len(split.heldout))
    train, notes = split.train, split.notes
    if run.reward_training.mitigation is not None:
        mitigation = Mitigation.of(run.reward_training.mitigation)
        train, found = mitigation.training_records(train, {record.prompt for record in split.heldout})
        notes += found
    notes += small_batch_notes("reward_training", run.reward_training, len(train), run.learner)
    return RewardInput(train, split.heldout, notes, _rows(run, train))


def _rows(run: RewardRun, records: Sequence[FeedbackRecord]) -> tuple[RenderedRow, ...]:
    """Prompt and response are read together, as a pair; an encoder that is made anew has no tokens yet."""
    setting, encoder = f"data.{run.data.kind}", run.reward.encoder
    first = records[0]
    names = [f"response, score {first.score:g}"] if isinstance(first, ScoredResponse) else _ranked(len(first.responses))
    if isinstance(encoder, NewBertSettings):
        responses = [(name, response, True) for name, response in zip(names, first.responses, strict=True)]
        return text_rows(setting, len(records), ("prompt", first.prompt, False), *responses)
    tokenizer = open_encoder(encoder).tokenizer
    (encoded,) = encode_responses(tokenizer, [first], run.reward.max_tokens)
    parts = (token_part(name, tokenizer, one.input_ids, True) for name, one in zip(names, encoded, strict=True))
    return (RenderedRow(setting, len(records), tuple(parts)),)


def _ranked(num_responses: int) -> list[str]:
    return (
        ["chosen", "rejected"] if num_responses == 2 else [f"rank {number}" for number in range(1, num_responses + 1)]
    )


def _reader(run: RewardRun, render: Render) -> Callable[[str], ReadRecords[Any]]:
    data, objective = run.data, run.reward_training.objective
    match objective:
        case BradleyTerry(use_margin=use_margin):
            return lambda path: read_annotated_pairs(path, data, render, use_margin)
        case PlackettLuce():
            return lambda path: read_rankings(path, data, render)
        case Regression():
            return lambda path: read_scored_responses(path, data, render)
        case _:
            assert_never(objective)


def check_encoder(settings: RewardEncoderSettings | PipelineScorerSettings) -> None:
    """What can be told of an encoder before it is made or its weights are read.

    Raises:
        UserError: its configuration or tokenizer cannot be loaded, it is no encoder that can carry a classification
            head, or it has no positions for `reward.max_tokens`.
    """
    match settings.encoder:
        case ModelRef() as encoder:
            opened = open_encoder(encoder)
            check_pairs_are_read(opened, opened.config.model_type)
            refusal = f"{opened.config.model_type} cannot become a reward model"
            model = opened.empty(AutoModelForSequenceClassification, refusal, "give a BERT")
            check_length(RewardModel(model, opened.tokenizer), encoder, settings.max_tokens)
            if isinstance(settings, RewardEncoderSettings):
                check_tuned(model, settings)
        case NewBertSettings() as new:
            check_sizes(new)
            limit = f"{new.setting}.max_positions"
            check_limits({"reward.max_tokens": settings.max_tokens}, new.max_positions, limit)


def count_cut(tokenizer: Any, records: Sequence[FeedbackRecord], max_tokens: int) -> int:
    """How many records have a response of more than `max_tokens`: one that fills a limit of one token more."""
    encoded = encode_responses(tokenizer, records, max_tokens + 1)
    return sum(max(len(response.input_ids) for response in responses) > max_tokens for responses in encoded)


# -------------------------------------------------------------------------------------------------------- the training


def run_reward(
    run: RewardRun, data: RewardInput, tokenizer: Any, learners: Learners, folder: Path, log: MetricsLog
) -> StageResult:
    """Train and write `reward_model/`, not yet calibrated."""
    max_tokens = run.reward.max_tokens
    train, heldout = (encode_feedback(run, tokenizer, side) for side in (data.train, data.heldout))
    num_cut = count_cut(tokenizer, (*data.train, *data.heldout), max_tokens)
    stage = OfflineStage(
        name="reward",
        settings=run.reward_training,
        seed=run.seed,
        num_records=len(data.train),
        batch_of=lambda index, step: train.learnt_batch(tokenizer, index),
        tokens_of=num_tokens,
        heldout=Heldout(len(data.heldout), lambda index: heldout.learnt_batch(tokenizer, index), num_rows),
        inputs=inputs_of(run.data, run.data.kind, data.train, data.heldout),
    )
    result = run_epochs(stage, learners, folder, log)
    learners.export(folder / "reward_model")
    metrics: FeedbackMetrics = {}
    if data.heldout:
        plain = Heldout(len(data.heldout), lambda index: heldout.batch(tokenizer, index), num_rows)
        rewards = heldout_rewards(plain, learners)
        metrics |= feedback_metrics(run.reward_training.objective, data.heldout, rewards)
        write_pairs(folder, result_step(stage, result), rewarded_pairs(data.heldout, rewards))
    metrics |= agreement_metrics([record for record in (*data.train, *data.heldout) if isinstance(record, Ranking)])
    metrics |= {"num_records": len(data.train), f"num_cut_{run.data.kind}": num_cut}
    if not num_cut:
        return result.with_metrics(metrics)
    what = {"pairs": "pairs", "rankings": "rankings", "scores": "scored responses"}[run.data.kind]
    note = (
        f"{num_cut} of {len(data.train) + len(data.heldout)} {what} are longer than reward.max_tokens={max_tokens}: "
        f"their prompts lost their beginning, or responses that do not fit even alone their end."
    )
    return result.with_metrics(metrics, note)
