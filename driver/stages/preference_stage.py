"""The stages that align a policy with human feedback, without sampling: DPO and its family on pairs, and KTO."""

from plumbob.configs.runs import DpoRun, KtoRun
from plumbob.driver.stages.stage import PreparedStage, training_stage
from plumbob.trainers.offline.dpo import prepare_dpo, run_dpo
from plumbob.trainers.offline.kto import longest_mismatch, prepare_kto, run_kto


def prepare(run: DpoRun) -> PreparedStage:
    """Read and check the pairs. Raises UserError; starts and writes nothing."""
    data = prepare_dpo(run)
    return training_stage(
        data.notes,
        lambda context, log: run_dpo(run, data, context.session.start_learners(run), context.folder, log),
        data.rows,
        max(len(sequence.ids) for pair in (*data.train, *data.heldout) for sequence in pair),
    )


def prepare_labelled(run: KtoRun) -> PreparedStage:
    """Read and check the labelled responses. Raises UserError; starts and writes nothing."""
    data = prepare_kto(run)
    return training_stage(
        data.notes,
        lambda context, log: run_kto(run, data, context.session.start_learners(run), context.folder, log),
        data.rows,
        max(longest_mismatch(side) for side in (data.train, data.heldout) if side),
    )
