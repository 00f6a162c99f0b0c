"""The stage of supervised fine-tuning."""

import numpy as np

from plumbob.configs.runs import SftRun
from plumbob.driver.input_sizes.learner_rows import LearnerRows
from plumbob.driver.input_sizes.token_lengths import tokens_of_files
from plumbob.driver.stages.stage import InputSizes, PreparedStage, training_stage
from plumbob.trainers.offline.loop import epoch_batches
from plumbob.trainers.offline.sft import SftInput, prepare_sft, run_sft


def prepare(run: SftRun) -> PreparedStage:
    """Read and check the input. Raises UserError; starts and writes nothing."""
    data = prepare_sft(run)
    return training_stage(
        data.notes,
        lambda context, log: run_sft(run, data, context.session.start_learners(run), context.folder, log),
        data.rows,
        lambda: _sizes(run, data),
    )


def _sizes(run: SftRun, data: SftInput) -> InputSizes:
    num_heldout = len(data.heldout)
    inputs = tokens_of_files(run.data, data.train, data.mixture, data.dropped, num_heldout, lambda one: (one,))
    lengths = np.array([len(one.ids) for one in data.train], dtype=np.int64)
    longest = max(len(one.ids) for one in (*data.train, *data.heldout))
    batches = epoch_batches(run.sft, len(data.train), run.seed, data.mixture)
    return InputSizes(inputs, {run.stage: LearnerRows(longest, lengths, batches)})
