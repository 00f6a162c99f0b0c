"""The seconds of a stage that learns from a file: forward and backward, the reference's forward, held-out records."""

from dataclasses import dataclass

from plumbob.configs.settings.training import EpochSettings
from plumbob.driver.input_sizes.learner_rows import LearnerRows
from plumbob.driver.planning.durations.run_time import StageTime
from plumbob.driver.planning.durations.work_costs import LearnerCosts


@dataclass(frozen=True)
class OfflineWork:
    """What one stage does with its rows.

    Attributes:
        sequences: of a row: 2 of a pair.
        predicted_share: of its tokens, for which logits are computed.
        num_references: forwards of a frozen model over the rows, before they are learnt.
        num_heldout: records that are measured each time that the settings ask for, and at the end.
    """

    settings: EpochSettings
    sequences: int = 1
    predicted_share: float = 1.0
    num_references: int = 0
    num_heldout: int = 0


def offline_time(stage: str, rows: LearnerRows, work: OfflineWork, costs: LearnerCosts, start_s: float) -> StageTime:
    """`rows`: with their lengths."""
    assert rows.lengths is not None and rows.batches is not None, "rows of a file have lengths"
    length, num_steps = float(rows.lengths.mean()), rows.batches.num_batches
    per_row = work.sequences * length

    def tokens(num_rows: float) -> tuple[float, float, float]:
        return num_rows * per_row, length, num_rows * per_row * work.predicted_share

    learnt, heldout = tokens(num_steps * rows.batches.batch_size), tokens(work.num_heldout)
    every, settings = work.settings.evaluate_every, work.settings
    num_measured = settings.evaluate_first + (1 if every is None else -(-num_steps // every))
    forward = costs.forward_s(*heldout) * (1 + work.num_references)
    parts = {
        "start": start_s,
        "data": work.num_references * costs.forward_s(*learnt),
        "learn": costs.learn_s(*learnt) + costs.steps_s(num_steps),
        "evaluate": num_measured * forward,
    }
    return StageTime(stage, parts)
