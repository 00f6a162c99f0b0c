"""The stage of supervised fine-tuning."""

from plumbob.configs.runs import SftRun
from plumbob.driver.stages.stage import PreparedStage, training_stage
from plumbob.trainers.offline.sft import prepare_sft, run_sft


def prepare(run: SftRun) -> PreparedStage:
    """Read and check the input. Raises UserError; starts and writes nothing."""
    data = prepare_sft(run)
    return training_stage(
        data.notes,
        lambda context, log: run_sft(run, data, context.session.start_learners(run), context.folder, log),
        data.rows,
        max(len(sequence.ids) for sequence in (*data.train, *data.heldout)),
    )
