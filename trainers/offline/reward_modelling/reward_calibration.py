"""After its training a reward model is calibrated: its scores get mean 0 and variance 1 under a policy's responses."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from plumbob.configs.runs import RewardRun
from plumbob.data.prompts import EncodedPrompt, encode_prompts
from plumbob.data.records import make_prompt
from plumbob.models.loading import OpenedPolicy, open_policy
from plumbob.models.tuning.methods import check_served
from plumbob.reward.reward_models.bert_encoding import encode_pairs
from plumbob.reward.reward_models.calibration import Calibration, calibrate, save_calibration
from plumbob.rollout.rollout_records import Rollout
from plumbob.rollout.samplers.open_sampler import support_for
from plumbob.trainers.learner.learner_protocol import Learners
from plumbob.trainers.offline.reward_modelling.reward_batch import FeedbackRecord, collate_responses, response_rewards

SAMPLES_PER_PROMPT = 2


@dataclass(frozen=True)
class CalibrationPolicy:
    """The policy whose responses are to score mean 0, the prompts that it is asked, and notes about those left out."""

    opened: OpenedPolicy
    prompts: tuple[EncodedPrompt, ...]
    notes: tuple[str, ...]


def open_calibration_policy(run: RewardRun) -> OpenedPolicy | None:
    """The policy of `calibration.policy`; None when the data's responses will do.

    Raises:
        UserError: the policy cannot be opened, or not be sampled from.
    """
    ref = run.calibration.policy_ref
    if ref is None:
        return None
    opened = open_policy(ref)
    check_served(opened, support_for(run.rollout, opened))
    return opened


def prepare_calibration(run: RewardRun, opened: OpenedPolicy, records: Sequence[FeedbackRecord]) -> CalibrationPolicy:
    """The policy with prompts from the training records. Raises UserError when its tokenizer cannot be used."""
    distinct = list(dict.fromkeys(record.prompt for record in records))
    encoded = encode_prompts(opened.tokenizer, [make_prompt(text) for text in distinct], run.data.max_prompt_tokens)
    order = np.random.default_rng(run.seed).permutation(len(encoded.records))[: run.calibration.num_prompts]
    notes = tuple(f"calibration: {note}" for note in encoded.notes)
    return CalibrationPolicy(opened, tuple(encoded.records[row] for row in order), notes)


def calibrate_on_rollouts(
    rollouts: Sequence[Rollout], under: str, tokenizer: Any, max_tokens: int, learners: Learners, folder: Path
) -> Calibration:
    """Calibrate on sampled responses, `SAMPLES_PER_PROMPT` to each prompt in a row; stored in `folder`."""
    texts = [(rollout.request.prompt, rollout.response) for rollout in rollouts]
    return _calibrate(list(zip(texts[::2], texts[1::2], strict=True)), under, tokenizer, max_tokens, learners, folder)


def calibrate_on_records(
    records: Sequence[FeedbackRecord], under: str, tokenizer: Any, max_tokens: int, learners: Learners, folder: Path
) -> Calibration:
    """Calibrate on all responses of the records, and store the result in `folder`."""
    texts = [tuple((record.prompt, response) for response in record.responses) for record in records]
    return _calibrate(texts, under, tokenizer, max_tokens, learners, folder)


def _calibrate(
    texts: Sequence[tuple[tuple[str, str], ...]],
    under: str,
    tokenizer: Any,
    max_tokens: int,
    learners: Learners,
    folder: Path,
) -> Calibration:
    """Rows of (prompt, response) texts, a row to each prompt."""
    encoded = iter(encode_pairs(tokenizer, [text for row in texts for text in row], max_tokens))
    batch = collate_responses(tokenizer, [tuple(next(encoded) for _ in row) for row in texts])
    rewards = learners.compute(batch, None, response_rewards)[batch.response_mask]
    calibration = calibrate(rewards.tolist(), under)
    save_calibration(calibration, folder)
    return calibration
