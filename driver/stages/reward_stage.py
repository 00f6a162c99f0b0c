"""The stage of reward modelling: the encoder is trained, and then calibrated under the responses of a policy."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from plumbob.cluster.session import Session
from plumbob.configs.runs import RewardRun
from plumbob.configs.settings.models import NewBertSettings
from plumbob.configs.settings.training import RewardTrainingSettings
from plumbob.data.texts.control_tokens import unmarked
from plumbob.driver.input_sizes.learner_rows import LearnerRows
from plumbob.driver.input_sizes.token_lengths import tokens_of_cut
from plumbob.driver.stages.model_sampling import ModelSampling
from plumbob.driver.stages.new_models import create_encoder
from plumbob.driver.stages.stage import InputSizes, PreparedStage, StageContext, training_stage
from plumbob.models.from_scratch import likely_tokenizer
from plumbob.models.masked_lm import open_encoder
from plumbob.reward.bias.group_differences import by_contrast
from plumbob.reward.reward_models.calibration import Calibration
from plumbob.reward.reward_models.dialogue_form import DialogueForm, FormInUse, save_form
from plumbob.rollout.requests import sample_requests
from plumbob.trainers.learner.learner_protocol import Learners
from plumbob.trainers.metrics.metrics_log import MetricsLog
from plumbob.trainers.metrics.stage_result import StageResult
from plumbob.trainers.offline.loop import epoch_batches
from plumbob.trainers.offline.reward_modelling.counterfactual_records import Mitigation
from plumbob.trainers.offline.reward_modelling.reward_batch import FeedbackRecord, encode_responses
from plumbob.trainers.offline.reward_modelling.reward_calibration import (
    SAMPLES_PER_PROMPT,
    CalibrationPolicy,
    calibrate_on_records,
    calibrate_on_rollouts,
    open_calibration_policy,
    prepare_calibration,
)
from plumbob.trainers.offline.reward_modelling.reward_model import RewardInput, prepare_reward, run_reward

UNCUT = 2**30
"""More tokens than any text has."""

CALIBRATION_STEP = -2
"""Stands where the step does in the seeds of responses that a reward model is calibrated on."""


def prepare(run: RewardRun, written_as: DialogueForm | None = None) -> PreparedStage:
    """Read and check the input. Raises UserError; starts and writes nothing.

    Chat messages in the data are written with the template of the policy to calibrate on, or else plainly.

    Args:
        written_as: the form in which prompts that are texts by now were written; None where nothing is known of it.
    """
    policy = open_calibration_policy(run)
    in_use = FormInUse(None if policy is None else policy.tokenizer)
    data = prepare_reward(run, in_use)
    form = written_as or in_use.form([record.prompt for record in data.train])
    calibration = None if policy is None else prepare_calibration(run, policy, data.train)
    notes = data.notes if calibration is None else data.notes + calibration.notes

    def train(context: StageContext, log: MetricsLog) -> StageResult:
        reward = create_encoder(run.reward, _texts(data), context.folder / "new", run.seed)
        named = run.model_copy(update={"reward": reward})
        tokenizer = open_encoder(reward.existing_encoder).tokenizer
        learners = context.session.start_learners(named)
        trained = run_reward(named, data, tokenizer, learners, context.folder, log)
        result = context.folder / "reward_model"
        save_form(form, result)
        stored = _calibrate(run, data, calibration, tokenizer, context.session, learners, result)
        bias = _heldout_bias(run, data, tokenizer, learners, stored)
        return trained.with_metrics({"calibration": asdict(stored)} | bias)

    return training_stage(notes, train, data.rows, lambda: _sizes(run, data))


def _sizes(run: RewardRun, data: RewardInput) -> InputSizes:
    """By the encoder's tokenizer, or one such as will be made from the records."""
    setting, num_heldout = f"data.{run.data.kind}", len(data.heldout)
    encoder = run.reward.encoder
    if isinstance(encoder, NewBertSettings):
        tokenizer = likely_tokenizer(encoder, _texts(data))
    else:
        tokenizer = open_encoder(encoder).tokenizer
    found = whole_lengths(tokenizer, data.train)
    of_file = tokens_of_cut(setting, found, "reward.max_tokens", run.reward.max_tokens, num_heldout)
    return InputSizes((of_file,), {run.stage: reward_rows(found, run.reward.max_tokens, run.reward_training, run.seed)})


def _texts(data: RewardInput) -> list[str]:
    """Of which a new encoder's tokenizer is made."""
    return [unmarked(record.prompt + record.responses[0]) for record in data.train]


def whole_lengths(tokenizer: Any, records: Sequence[FeedbackRecord]) -> list[list[int]]:
    """Tokens of each record's responses, each with its prompt, as if nothing were cut."""
    encoded = encode_responses(tokenizer, records, UNCUT)
    return [[len(one.input_ids) for one in own] for own in encoded]


def reward_rows(
    found: Sequence[Sequence[int]], max_tokens: int, training: RewardTrainingSettings, seed: int
) -> LearnerRows:
    """`found`: as `whole_lengths` gives it. A row is a record, as long as the longest of its responses."""
    lengths = np.minimum([max(own) for own in found], max_tokens)
    return LearnerRows(int(lengths.max()), lengths, epoch_batches(training, len(found), seed))


def _heldout_bias(
    run: RewardRun, data: RewardInput, tokenizer: Any, learners: Learners, stored: Calibration
) -> dict[str, Any]:
    """Where a mitigation was asked for, what is left of a bias, in units of the calibration."""
    settings = run.reward_training.mitigation
    if settings is None:
        return {}
    mitigation, max_tokens = Mitigation.of(settings), run.reward.max_tokens
    found = mitigation.heldout_bias(data.heldout, tokenizer, max_tokens, learners, stored.std)
    return {"heldout_bias": by_contrast(found)}


def _calibrate(
    run: RewardRun,
    data: RewardInput,
    calibration: CalibrationPolicy | None,
    tokenizer: Any,
    session: Session,
    learners: Learners,
    result: Path,
) -> Calibration:
    """Stored beside the model in `result`."""
    if calibration is None:
        under = f"the responses in the {run.data.kind} file"
        return calibrate_on_records(data.train, under, tokenizer, run.reward.max_tokens, learners, result)
    requests = sample_requests(calibration.prompts, SAMPLES_PER_PROMPT, CALIBRATION_STEP, run.seed)
    rollouts = ModelSampling(session, run.rollout).serve(calibration.opened).sample(requests)
    under = f"{len(rollouts)} responses of {run.calibration.policy}"
    return calibrate_on_rollouts(rollouts, under, tokenizer, run.reward.max_tokens, learners, result)
