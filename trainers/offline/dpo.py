"""Learning from preference pairs without a reward model or sampling: DPO and its family."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plumbob.configs.runs import DpoRun
from plumbob.configs.settings.offline_objectives import REFERENCE_FREE, PreferenceLoss, reads_prompt
from plumbob.data.batch import Batch
from plumbob.data.dialogues import encode_dialogue_pairs
from plumbob.data.encoded_files import by_setting, encode_files
from plumbob.data.epoch_order import Mixture
from plumbob.data.length_checks import LENGTH_KEYS, check_sequences
from plumbob.data.reading.readers import read_dialogue_pairs
from plumbob.data.rendered_rows import RenderedRow, sequence_rows, sequence_texts
from plumbob.data.texts.chat_text import chat_renderer
from plumbob.data.tokenization import PairBatch, TokenBatch, TokenSequence, TooLong, collate
from plumbob.models.adapter import ModelRole
from plumbob.models.logprobs import sequence_logprobs
from plumbob.models.tuning.methods import open_tunable
from plumbob.trainers.algorithms.preference_losses import (
    check_users_loss,
    load_users_loss,
    preference_loss,
    preference_rows,
)
from plumbob.trainers.forgetting.next_token import not_first, num_tokens
from plumbob.trainers.forgetting.packed_text import notes_of, rows_of
from plumbob.trainers.forgetting.retention import RetainedText, prepare_retention
from plumbob.trainers.learner.learner_parts import LearnerParts, tuned_policy
from plumbob.trainers.learner.learner_protocol import Learners, LossSum, LossTerm
from plumbob.trainers.metrics.heldout_pairs import MAX_PAIRS, RewardedPair, write_pairs
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
from plumbob.trainers.offline.reference_logprobs import KeptLogprobs

EncodedPair = tuple[TokenSequence, TokenSequence]


@dataclass(frozen=True)
class DpoInput:
    """Encoded pairs (chosen, rejected), sentences about rows that were left out, and rows as the model sees them.

    Attributes:
        mixture: how the files are weighted that `train` is of; None of one file.
        dropped: of each of them, those that are too long.
        tokenizer: that made them; None is enough where nothing is held out.
    """

    train: tuple[EncodedPair, ...]
    heldout: tuple[EncodedPair, ...]
    pad_id: int
    notes: tuple[str, ...]
    retained: RetainedText | None = None
    rows: tuple[RenderedRow, ...] = ()
    mixture: Mixture | None = None
    tokenizer: Any = None
    dropped: tuple[tuple[TooLong, ...], ...] = ()


@dataclass(frozen=True)
class DpoBatch(Batch):
    """The pairs of one optimizer step, or some of them.

    Attributes:
        pairs: [B].
        ref_chosen: the reference's log-probability of each whole response, float32 [B]; 0 for a loss that reads none.
        ref_rejected: the same.
        sequence_tokens: of a prompt with its chosen response, those that something stands before, averaged over the
            rows of the whole step: the same for every row, so that it depends neither on micro-batches nor on how many
            learners there are.
    """

    pairs: PairBatch
    ref_chosen: NDArray[np.float32]
    ref_rejected: NDArray[np.float32]
    sequence_tokens: float

    @property
    def ref_logprobs(self) -> NDArray[np.float32]:
        """The reference's of chosen and rejected, [B, 2]."""
        return np.stack([self.ref_chosen, self.ref_rejected], axis=1)

    @property
    def response_lengths(self) -> NDArray[np.int64]:
        """Tokens of chosen and rejected, EOS included, [B, 2]."""
        return np.stack([side.loss_mask.sum(axis=1) for side in (self.pairs.chosen, self.pairs.rejected)], axis=1)


class PairLogprobs(NamedTuple):
    """Attributes: of each pair.

    responses: log pi of chosen and rejected, given the prompt, [B, 2].
    prompts: log pi of the prompt before the chosen response, given its first token, [B]; 0 where it was not asked
        about.
    """

    responses: Tensor
    prompts: Tensor


def response_logprobs(forward: Any, batch: TokenBatch) -> Tensor:
    """log pi(response | prompt) [B]: summed over the response's tokens, EOS included."""
    response_mask = torch.from_numpy(batch.loss_mask)
    logprobs = forward(torch.from_numpy(batch.input_ids), torch.from_numpy(batch.attention_mask), response_mask, 1.0)
    return sequence_logprobs(logprobs, response_mask.to(logprobs.device))


def pair_logprobs(forward: Any, pairs: PairBatch) -> Tensor:
    """log pi of chosen and rejected, [B, 2], in one forward."""
    return compute_pair_logprobs(forward, pairs, with_prompts=False).responses


def compute_pair_logprobs(forward: Any, pairs: PairBatch, with_prompts: bool) -> PairLogprobs:
    """Responses, and the chosen side's prompts if they are asked about, in one forward."""
    both, num_rows = stack(pairs), pairs.num_rows
    attention_mask, response_mask = torch.from_numpy(both.attention_mask), torch.from_numpy(both.loss_mask)
    prompt_mask = torch.zeros_like(response_mask)
    if with_prompts:
        prompt_mask[:num_rows] = (not_first(attention_mask) & ~response_mask)[:num_rows]
    logprobs = forward(torch.from_numpy(both.input_ids), attention_mask, response_mask | prompt_mask, 1.0)
    responses, prompts = (
        sequence_logprobs(logprobs, mask.to(logprobs.device)) for mask in (response_mask, prompt_mask)
    )
    return PairLogprobs(responses.reshape(2, num_rows).T, prompts[:num_rows])


def stack(pairs: PairBatch) -> TokenBatch:
    """Chosen rows, then rejected rows, as one batch padded to the wider of the two."""
    width = max(pairs.chosen.input_ids.shape[1], pairs.rejected.input_ids.shape[1])

    def joined(name: str) -> Any:
        sides = (getattr(pairs.chosen, name), getattr(pairs.rejected, name))
        return np.concatenate([np.pad(side, ((0, 0), (0, width - side.shape[1]))) for side in sides])

    return TokenBatch(joined("input_ids"), joined("attention_mask"), joined("loss_mask"))


def implicit_rewards(loss: PreferenceLoss, forward: Any, batch: DpoBatch) -> Tensor:
    """What the loss compares of chosen and rejected, [B, 2]."""
    logprobs = pair_logprobs(forward, batch.pairs)
    reference, lengths = (torch.from_numpy(x).to(logprobs) for x in (batch.ref_logprobs, batch.response_lengths))
    return preference_rows(loss, logprobs, reference, lengths, logprobs[:, 0]).rewards


def dpo_loss_terms(loss: PreferenceLoss) -> tuple[LossTerm[DpoBatch], ...]:
    load_users_loss(loss)
    with_prompts = reads_prompt(loss)

    def loss_sum(forward: Any, batch: DpoBatch) -> LossSum:
        logprobs, prompts = compute_pair_logprobs(forward, batch.pairs, with_prompts)
        reference = torch.from_numpy(batch.ref_logprobs).to(logprobs)
        response_tokens = torch.from_numpy(batch.response_lengths).to(logprobs)
        sequence_means = (logprobs[:, 0] + prompts) / batch.sequence_tokens
        result = preference_loss(loss, logprobs, reference, response_tokens, sequence_means)
        return LossSum(result.loss, result.statistics)

    return (LossTerm("policy", loss_sum, lambda batch: float(batch.num_rows)),)


def learner_parts(run: DpoRun) -> LearnerParts:
    module, artifact = tuned_policy(run.policy, roles_of(run.dpo.loss), run.seed, run.data)
    return LearnerParts(module, dpo_loss_terms(run.dpo.loss), artifact, run.dpo)


def roles_of(loss: PreferenceLoss) -> tuple[ModelRole, ...]:
    return ("policy",) if isinstance(loss, REFERENCE_FREE) else ("policy", "reference")


def with_reference(pairs: PairBatch, loss: PreferenceLoss, learners: Learners) -> DpoBatch:
    """The pairs with what the loss compares the policy with; without a forward where it needs no reference."""
    if isinstance(loss, REFERENCE_FREE):
        reference = np.zeros((pairs.num_rows, 2), dtype=np.float32)
    else:
        reference = learners.compute(pairs, "reference", pair_logprobs)
    return step_batch(pairs, reference)


def step_batch(pairs: PairBatch, ref_logprobs: NDArray[np.float32]) -> DpoBatch:
    """All the pairs of an optimizer step; `ref_logprobs` [B, 2] of chosen and rejected."""
    return DpoBatch(pairs, ref_logprobs[:, 0], ref_logprobs[:, 1], float((pairs.chosen.lengths - 1).mean()))


def prepare_dpo(run: DpoRun) -> DpoInput:
    """Read, check, split and encode. Raises UserError; starts and writes nothing."""
    check_users_loss(run.dpo.loss)
    opened, data = open_tunable(run.policy, roles_of(run.dpo.loss), run.learner), run.data
    tokenizer = opened.tokenizer
    render = chat_renderer(tokenizer)
    files = encode_files(
        data,
        run.seed,
        lambda path: read_dialogue_pairs(path, data, render),
        lambda pair: pair.prompt,
        data.heldout_pairs,
        lambda pairs, required: encode_dialogue_pairs(tokenizer, pairs, data, required),
    )
    longest = max(len(side.ids) for pair in (*files.train, *files.heldout) for side in pair)
    check_sequences(longest, opened.num_positions, LENGTH_KEYS)
    check_heldout("dpo", run.dpo, len(files.heldout))
    small = small_batch_notes("dpo", run.dpo, len(files.train), run.learner)
    retained = prepare_retention(run.retention, opened)
    notes = files.notes + small + notes_of(retained)
    rows = tuple(
        row
        for setting, records in by_setting(data, files.train, files.mixture)
        for row in sequence_rows(setting, tokenizer, records, ("chosen", "rejected"))
    )
    rows += rows_of(retained)
    mixture, dropped = files.mixture, files.dropped
    return DpoInput(
        files.train, files.heldout, tokenizer.pad_token_id, notes, retained, rows, mixture, tokenizer, dropped
    )


def run_dpo(run: DpoRun, data: DpoInput, learners: Learners, folder: Path, log: MetricsLog) -> StageResult:
    """Train and write `policy/`."""

    def batches_of(records: tuple[EncodedPair, ...], are_met_again: bool) -> Callable[[NDArray[np.int64]], DpoBatch]:
        def pairs_of(index: NDArray[np.int64]) -> PairBatch:
            chosen, rejected = ([records[i][side] for i in index] for side in (0, 1))
            return PairBatch(collate(chosen, data.pad_id), collate(rejected, data.pad_id))

        def computed(index: NDArray[np.int64]) -> DpoBatch:
            return with_reference(pairs_of(index), run.dpo.loss, learners)

        kept = KeptLogprobs(len(records), lambda index: computed(index).ref_logprobs)
        return (lambda index: step_batch(pairs_of(index), kept.of(index))) if are_met_again else computed

    train_batch = batches_of(data.train, run.dpo.num_epochs > 1 or data.mixture is not None)
    heldout_batch = batches_of(data.heldout, True)  # Once on the way, and once for the file of its pairs.
    heldout = Heldout(len(data.heldout), heldout_batch, lambda batch: float(batch.num_rows))
    stage = OfflineStage(
        name="dpo",
        settings=run.dpo,
        seed=run.seed,
        num_records=len(data.train),
        batch_of=lambda index, step: train_batch(index),
        tokens_of=lambda batch: num_tokens(batch.pairs.chosen) + num_tokens(batch.pairs.rejected),
        heldout=heldout,
        inputs=inputs_of(run.data, "pairs", data.train, data.heldout, data.retained, mixture=data.mixture),
        retained=data.retained,
        mixture=data.mixture,
    )
    result = run_epochs(stage, learners, folder, log)
    learners.export(folder / "policy")
    write_pairs(folder, result_step(stage, result), rewarded_pairs(run.dpo.loss, data, heldout, learners))
    return result.with_metrics({"num_records": len(data.train)})


def rewarded_pairs(
    loss: PreferenceLoss, data: DpoInput, heldout: Heldout[DpoBatch], learners: Learners
) -> list[RewardedPair]:
    """Held-out pairs with the rewards that the loss compares, as many as are kept."""
    pairs = []
    for index in heldout.portions(MAX_PAIRS):
        rewards = learners.compute(heldout.batch_of(index), "policy", partial(implicit_rewards, loss))
        for position, (high, low) in zip(index.tolist(), rewards.astype(np.float64).tolist(), strict=True):
            (prompt, chosen), (_, rejected) = (sequence_texts(data.tokenizer, side) for side in data.heldout[position])
            pairs.append(RewardedPair(position, prompt, chosen, rejected, high, low, high - low))
    return pairs
