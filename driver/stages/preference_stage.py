"""The stages that align a policy with human feedback, without sampling: DPO and its family on pairs, and KTO."""

import numpy as np

from plumbob.configs.runs import DpoRun, KtoRun
from plumbob.driver.input_sizes.learner_rows import LearnerRows
from plumbob.driver.input_sizes.token_lengths import tokens_of_files
from plumbob.driver.stages.stage import InputSizes, PreparedStage, training_stage
from plumbob.trainers.offline.dpo import DpoInput, prepare_dpo, run_dpo
from plumbob.trainers.offline.kto import KtoInput, longest_mismatch, prepare_kto, run_kto
from plumbob.trainers.offline.loop import epoch_batches


def prepare(run: DpoRun) -> PreparedStage:
    """Read and check the pairs. Raises UserError; starts and writes nothing."""
    data = prepare_dpo(run)
    return training_stage(
        data.notes,
        lambda context, log: run_dpo(run, data, context.session.start_learners(run), context.folder, log),
        data.rows,
        lambda: _sizes_of_pairs(run, data),
    )


def _sizes_of_pairs(run: DpoRun, data: DpoInput) -> InputSizes:
    num_heldout = len(data.heldout)
    inputs = tokens_of_files(run.data, data.train, data.mixture, data.dropped, num_heldout, lambda pair: pair)
    lengths = np.array([max(len(side.ids) for side in pair) for pair in data.train], dtype=np.int64)
    longest = max(len(side.ids) for pair in (*data.train, *data.heldout) for side in pair)
    batches = epoch_batches(run.dpo, len(data.train), run.seed, data.mixture)
    return InputSizes(inputs, {run.stage: LearnerRows(longest, lengths, batches)})


def prepare_labelled(run: KtoRun) -> PreparedStage:
    """Read and check the labelled responses. Raises UserError; starts and writes nothing."""
    data = prepare_kto(run)
    return training_stage(
        data.notes,
        lambda context, log: run_kto(run, data, context.session.start_learners(run), context.folder, log),
        data.rows,
        lambda: _sizes_of_labelled(run, data),
    )


def _sizes_of_labelled(run: KtoRun, data: KtoInput) -> InputSizes:
    """The prompts with others' responses, by which the KL is estimated, are computed without gradients."""
    num_heldout = len(data.heldout)
    inputs = tokens_of_files(run.data, data.train, data.mixture, data.dropped, num_heldout, lambda one: one[:1])
    lengths = np.array([len(one.ids) for one, _ in data.train], dtype=np.int64)
    longest = max(longest_mismatch(side) for side in (data.train, data.heldout) if side)
    batches = epoch_batches(run.kto, len(data.train), run.seed, data.mixture)
    return InputSizes(inputs, {run.stage: LearnerRows(longest, lengths, batches)})
