"""Supervised fine-tuning: imitate demonstrations, with the loss on the tokens of the assistant's turns only."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plumbob.configs.runs import SftRun
from plumbob.configs.settings.tuning.soft_prompts import MultitaskPromptTuning
from plumbob.data.dialogues import check_tasks_have_rows, encode_dialogues, task_reader
from plumbob.data.encoded_files import by_setting, encode_files
from plumbob.data.epoch_order import Mixture
from plumbob.data.length_checks import LENGTH_KEYS, check_sequences
from plumbob.data.reading.readers import read_dialogues
from plumbob.data.rendered_rows import RenderedRow, sequence_rows
from plumbob.data.texts.chat_text import chat_renderer
from plumbob.data.tokenization import TaskBatch, TokenBatch, TokenSequence, TooLong, collate, collate_tasks
from plumbob.models.adapter import ModelRole
from plumbob.models.tuning.methods import open_tunable
from plumbob.trainers.forgetting.next_token import (
    NEXT_TOKEN_LOSS_TERMS,
    TASK_LOSS_TERMS,
    num_predicted_of_tasks,
    num_predicted_tokens,
    num_tokens,
)
from plumbob.trainers.forgetting.packed_text import PackedText, notes_of, rows_of
from plumbob.trainers.forgetting.replay import WithReplay, prepare_replay, replay_loss_terms, with_replay
from plumbob.trainers.forgetting.retention import RetainedText, prepare_retention
from plumbob.trainers.learner.learner_parts import LearnerParts, tuned_policy
from plumbob.trainers.learner.learner_protocol import Learners, LossTerm
from plumbob.trainers.metrics.metrics_log import MetricsLog
from plumbob.trainers.metrics.stage_result import StageResult
from plumbob.trainers.offline.input_digests import inputs_of
from plumbob.trainers.offline.loop import Heldout, OfflineStage, check_heldout, run_epochs, small_batch_notes

ROLES: tuple[ModelRole, ...] = ("policy",)


@dataclass(frozen=True)
class SftInput:
    """Encoded demonstrations, text that is measured or learnt beside them, and sentences about what was left out.

    Attributes:
        rows: one of each input as the model sees it.
        mixture: how the files are weighted that `train` is of; None of one file.
        dropped: of each of them, those that are too long.
    """

    train: tuple[TokenSequence, ...]
    heldout: tuple[TokenSequence, ...]
    pad_id: int
    retained: RetainedText | None
    replayed: PackedText | None
    notes: tuple[str, ...]
    rows: tuple[RenderedRow, ...] = ()
    mixture: Mixture | None = None
    dropped: tuple[tuple[TooLong, ...], ...] = ()


def prepare_sft(run: SftRun) -> SftInput:
    """Read, check, split and encode. Raises UserError; starts and writes nothing."""
    opened, data = open_tunable(run.policy, ROLES, run.learner), run.data
    tokenizer = opened.tokenizer
    render = chat_renderer(tokenizer)
    files = encode_files(
        data,
        run.seed,
        lambda path: read_dialogues(path, data, render, data.learnt_turns, task_reader(run.policy.tuning)),
        lambda dialogue: dialogue.turns[0].prompt,  # Dialogues that begin alike share turns.
        data.heldout_demonstrations,
        lambda dialogues, required: encode_dialogues(tokenizer, dialogues, data, required),
    )
    check_tasks_have_rows(run.policy.tuning, files.train)
    longest = max(len(sequence.ids) for sequence in (*files.train, *files.heldout))
    check_sequences(longest, opened.num_positions, LENGTH_KEYS)
    check_heldout("sft", run.sft, len(files.heldout))
    small = small_batch_notes("sft", run.sft, len(files.train), run.learner)
    retained = prepare_retention(run.retention, opened)
    replayed = prepare_replay(run.replay, opened)
    notes = files.notes + small + notes_of(retained, replayed)
    rows = tuple(
        row
        for setting, records in by_setting(data, files.train, files.mixture)
        for row in sequence_rows(setting, tokenizer, [(one,) for one in records], ("response",))
    )
    rows += rows_of(retained, replayed)
    pad_id = tokenizer.pad_token_id
    return SftInput(files.train, files.heldout, pad_id, retained, replayed, notes, rows, files.mixture, files.dropped)


def learner_parts(run: SftRun) -> LearnerParts:
    module, artifact = tuned_policy(run.policy, ROLES, run.seed, run.data)
    loss_terms: tuple[LossTerm[Any], ...] = TASK_LOSS_TERMS if _has_tasks(run) else NEXT_TOKEN_LOSS_TERMS
    return LearnerParts(module, replay_loss_terms(loss_terms, run.replay), artifact, run.sft)


def run_sft(run: SftRun, data: SftInput, learners: Learners, folder: Path, log: MetricsLog) -> StageResult:
    """Train and write `policy/`."""

    collated: Callable[[Sequence[TokenSequence], int], Any] = collate_tasks if _has_tasks(run) else collate

    def batch_of(records: Sequence[TokenSequence], index: NDArray[np.int64]) -> Any:
        return collated([records[i] for i in index], data.pad_id)

    replayed = {} if run.replay is None or data.replayed is None else {run.replay.text: data.replayed.blocks}
    stage: OfflineStage[Any] = OfflineStage(
        name="sft",
        settings=run.sft,
        seed=run.seed,
        num_records=len(data.train),
        batch_of=lambda index, step: with_replay(data.replayed, batch_of(data.train, index), step, run.seed),
        tokens_of=num_tokens_of,
        heldout=Heldout(
            len(data.heldout),
            lambda index: batch_of(data.heldout, index),
            num_predicted_of_tasks if _has_tasks(run) else num_predicted_tokens,
        ),
        inputs=inputs_of(run.data, "demonstrations", data.train, data.heldout, data.retained, replayed, data.mixture),
        retained=data.retained,
        mixture=data.mixture,
    )
    result = run_epochs(stage, learners, folder, log)
    learners.export(folder / "policy")
    return result.with_metrics({"num_records": len(data.train)})


def num_tokens_of(batch: TokenBatch | TaskBatch | WithReplay[TokenBatch]) -> int:
    """All that are learnt from, the replayed ones too."""
    match batch:
        case WithReplay():
            return num_tokens(batch.batch) + num_tokens(batch.replayed)
        case TaskBatch():
            return num_tokens(batch.tokens)
        case _:
            return num_tokens(batch)


def _has_tasks(run: SftRun) -> bool:
    return isinstance(run.policy.tuning, MultitaskPromptTuning)
