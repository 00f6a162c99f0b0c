"""KTO: the policy learns from single responses that are each labelled good or bad."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from plumbob.configs.runs import KtoRun
from plumbob.configs.settings.training import KtoSettings
from plumbob.data.batch import Batch
from plumbob.data.encoded_files import by_setting, encode_files
from plumbob.data.epoch_order import Mixture, mixed_order
from plumbob.data.length_checks import LENGTH_KEYS, check_sequences
from plumbob.data.reading.readers import read_labelled
from plumbob.data.rendered_rows import RenderedRow, sequence_rows, sequence_texts
from plumbob.data.texts.chat_text import chat_renderer
from plumbob.data.tokenization import TokenBatch, TokenSequence, TooLong, collate, encode_labelled
from plumbob.models.adapter import ModelRole
from plumbob.models.tuning.methods import open_tunable
from plumbob.trainers.algorithms.kto_loss import kto_rows
from plumbob.trainers.forgetting.next_token import num_tokens
from plumbob.trainers.forgetting.packed_text import notes_of, rows_of
from plumbob.trainers.forgetting.retention import RetainedText, prepare_retention
from plumbob.trainers.learner.learner_parts import LearnerParts, tuned_policy
from plumbob.trainers.learner.learner_protocol import Learners, LossSum, LossTerm
from plumbob.trainers.metrics.heldout_pairs import MAX_PAIRS, RewardedPair, write_pairs
from plumbob.trainers.metrics.metrics_log import MetricsLog
from plumbob.trainers.metrics.stage_result import StageResult
from plumbob.trainers.offline.dpo import response_logprobs
from plumbob.trainers.offline.input_digests import inputs_of
from plumbob.trainers.offline.loop import (
    Heldout,
    OfflineStage,
    check_heldout,
    result_step,
    run_epochs,
    small_batch_notes,
)
from plumbob.trainers.offline.reference_logprobs import Compute, KeptLogprobs

ROLES: tuple[ModelRole, ...] = ("policy", "reference")

BALANCE = (1.0, 4 / 3)
"""What the paper (arXiv 2402.01306) advises for good responses x their weight over bad responses x theirs."""

Labelled = tuple[TokenSequence, bool]


@dataclass(frozen=True)
class KtoInput:
    """Encoded responses with their labels (True is good), sentences for the user, and rows as the model sees them.

    Attributes:
        tokenizer: that made them; None is enough where nothing is held out.
        dropped: of each file, those that are too long.
        mixture: how the files are weighted that `train` is of; None of one file.
    """

    train: tuple[Labelled, ...]
    heldout: tuple[Labelled, ...]
    pad_id: int
    notes: tuple[str, ...]
    retained: RetainedText | None = None
    rows: tuple[RenderedRow, ...] = ()
    tokenizer: Any = None
    dropped: tuple[tuple[TooLong, ...], ...] = ()
    mixture: Mixture | None = None


@dataclass(frozen=True)
class KtoBatch(Batch):
    """Labelled responses.

    Attributes:
        responses: [B, T].
        desirable: bool [B].
        ref_logprobs: the reference's log-probability of each whole response, float32 [B].
        kl: z0, the estimate of KL(pi || pi_ref) of the whole step: the same for every row, so that it depends neither
            on micro-batches nor on how many learners there are.
    """

    responses: TokenBatch
    desirable: NDArray[np.bool_]
    ref_logprobs: NDArray[np.float32]
    kl: float


def kto_loss_terms(settings: KtoSettings) -> tuple[LossTerm[KtoBatch], ...]:
    def loss_sum(forward: Any, batch: KtoBatch) -> LossSum:
        logprobs = response_logprobs(forward, batch.responses)
        reference, desirable = torch.from_numpy(batch.ref_logprobs), torch.from_numpy(batch.desirable)
        rows = kto_rows(logprobs, reference.to(logprobs), desirable.to(logprobs.device), batch.kl, settings)
        watched = {
            "loss": rows.loss.detach(),
            "accuracy": (rows.margins.sign() + 1) / 2,
            "margin": rows.margins,
            "reward": rows.rewards,
            "kl": torch.full_like(rows.rewards, batch.kl),
        }
        return LossSum(rows.loss.sum(), {name: values.sum() for name, values in watched.items()})

    return (LossTerm("policy", loss_sum, lambda batch: float(batch.num_rows)),)


def learner_parts(run: KtoRun) -> LearnerParts:
    module, artifact = tuned_policy(run.policy, ROLES, run.seed, run.data)
    return LearnerParts(module, kto_loss_terms(run.kto), artifact, run.kto)


def mismatched(prompt_of: TokenSequence, response_of: TokenSequence) -> TokenSequence:
    """The prompt of one sequence before the response of another, which is learnt."""
    prompt, response = prompt_of.ids[~prompt_of.loss_mask], response_of.ids[response_of.loss_mask]
    ids = np.concatenate([prompt, response])
    return TokenSequence(ids, np.arange(len(ids)) >= len(prompt))


def estimated_kl(records: Sequence[Labelled], others: Sequence[Labelled], pad_id: int, learners: Learners) -> float:
    """z0 = max(0, mean of log(pi / pi_ref) of the others' responses, in their order, to the records' prompts).

    The estimate of arXiv 2402.01306, section 4.1: biased, but it needs no sampling from pi.
    """
    pairs = [mismatched(record, other) for (record, _), (other, _) in zip(records, others, strict=True)]
    batch = collate(pairs, pad_id)
    policy, reference = (learners.compute(batch, role, response_logprobs) for role in ("policy", "reference"))
    return max(0.0, float(np.mean(policy.astype(np.float64) - reference)))


def prepare_kto(run: KtoRun) -> KtoInput:
    """Read, check, split and encode. Raises UserError; starts and writes nothing."""
    opened, data = open_tunable(run.policy, ROLES, run.learner), run.data
    tokenizer = opened.tokenizer
    render = chat_renderer(tokenizer)
    files = encode_files(
        data,
        run.seed,
        lambda path: read_labelled(path, data, render),
        lambda record: record.prompt,
        data.heldout_labelled,
        lambda records, required: encode_labelled(tokenizer, records, data, required),
    )
    longest = max(longest_mismatch(side) for side in (files.train, files.heldout) if side)
    check_sequences(longest, opened.num_positions, LENGTH_KEYS)
    check_heldout("kto", run.kto, len(files.heldout))
    small = small_batch_notes("kto", run.kto, len(files.train), run.learner)
    retained = prepare_retention(run.retention, opened)
    used = (
        files.train if files.mixture is None else [files.train[row] for row in mixed_order(files.mixture, 0, run.seed)]
    )
    notes = files.notes + small + balance_notes(used, run.kto) + notes_of(retained)
    rows = tuple(
        row
        for setting, records in by_setting(data, files.train, files.mixture)
        for row in sequence_rows(
            setting, tokenizer, [(one,) for one, _ in records], (f"response, {'good' if records[0][1] else 'bad'}",)
        )
    )
    rows += rows_of(retained)
    pad_id = tokenizer.pad_token_id
    return KtoInput(files.train, files.heldout, pad_id, notes, retained, rows, tokenizer, files.dropped, files.mixture)


def longest_mismatch(records: Sequence[Labelled]) -> int:
    """Tokens of the longest prompt with the longest response, which may meet in the estimate of the KL."""
    responses = [int(sequence.loss_mask.sum()) for sequence, _ in records]
    prompts = [len(sequence.ids) - response for (sequence, _), response in zip(records, responses, strict=True)]
    return max(prompts) + max(responses)


def balance_notes(records: Sequence[Labelled], settings: KtoSettings) -> tuple[str, ...]:
    """A sentence where good and bad responses weigh otherwise than the paper advises."""
    num_good = sum(desirable for _, desirable in records)
    num_bad = len(records) - num_good
    good, bad = settings.desirable_weight * num_good, settings.undesirable_weight * num_bad
    if BALANCE[0] * bad <= good <= BALANCE[1] * bad:
        return ()
    return (
        f"{num_good} responses are labelled good and {num_bad} bad: weighed by kto.desirable_weight and "
        f"kto.undesirable_weight that is {good:g} to {bad:g}; a ratio of 1 to 1.33 is advised.",
    )


def run_kto(run: KtoRun, data: KtoInput, learners: Learners, folder: Path, log: MetricsLog) -> StageResult:
    """Train and write `policy/`."""

    def responses_of(records: Sequence[Labelled], index: NDArray[np.int64]) -> TokenBatch:
        return collate([records[i][0] for i in index], data.pad_id)

    def reference_of(records: Sequence[Labelled], are_met_again: bool) -> Compute:
        def computed(index: NDArray[np.int64]) -> NDArray[np.float32]:
            return learners.compute(responses_of(records, index), "reference", response_logprobs)

        return KeptLogprobs(len(records), computed).of if are_met_again else computed

    def batch_of(
        records: Sequence[Labelled], reference: Compute, index: NDArray[np.int64], others: NDArray[np.int64]
    ) -> KtoBatch:
        rows = [records[i] for i in index]
        # Whose response is put to which prompt changes with every epoch: of these nothing is kept.
        kl = estimated_kl(rows, [records[i] for i in others], data.pad_id, learners)
        desirable = np.array([desirable for _, desirable in rows])
        return KtoBatch(responses_of(records, index), desirable, reference(index), kl)

    reference = reference_of(data.train, run.kto.num_epochs > 1 or data.mixture is not None)
    heldout_reference = reference_of(data.heldout, True)  # Once on the way, and once for the file of its responses.

    def train_batch(index: NDArray[np.int64], step: int) -> KtoBatch:
        return batch_of(data.train, reference, index, np.roll(index, -1))

    def heldout_batch(index: NDArray[np.int64]) -> KtoBatch:
        return batch_of(data.heldout, heldout_reference, index, (index + 1) % len(data.heldout))

    stage = OfflineStage(
        name="kto",
        settings=run.kto,
        seed=run.seed,
        num_records=len(data.train),
        batch_of=train_batch,
        tokens_of=lambda batch: num_tokens(batch.responses),
        heldout=Heldout(len(data.heldout), heldout_batch, lambda batch: float(batch.num_rows)),
        inputs=inputs_of(run.data, "labelled", data.train, data.heldout, data.retained, mixture=data.mixture),
        mixture=data.mixture,
        retained=data.retained,
    )
    result = run_epochs(stage, learners, folder, log)
    learners.export(folder / "policy")
    if data.heldout:
        kl = result.metrics["heldout_kl"]
        pairs: list[RewardedPair] = []
        for index in stage.heldout.portions(MAX_PAIRS):
            logprobs = learners.compute(responses_of(data.heldout, index), "policy", response_logprobs)
            rewards = run.kto.beta * (logprobs.astype(np.float64) - heldout_reference(index) - kl)
            pairs += rewarded_responses(data, index, rewards)
        write_pairs(folder, result_step(stage, result), pairs)
    return result.with_metrics({"num_records": len(data.train)})


def rewarded_responses(data: KtoInput, index: NDArray[np.int64], rewards: NDArray[np.float64]) -> list[RewardedPair]:
    """Held-out responses at `index` with their rewards beta (u - z0), [n]: good ones as chosen, bad as rejected."""
    pairs = []
    for position, reward in zip(index.tolist(), rewards.tolist(), strict=True):
        sequence, is_good = data.heldout[position]
        prompt, response = sequence_texts(data.tokenizer, sequence)
        if is_good:
            pairs.append(RewardedPair(position, prompt, response, None, reward, None, reward))
        else:
            pairs.append(RewardedPair(position, prompt, None, response, None, reward, -reward))
    return pairs
