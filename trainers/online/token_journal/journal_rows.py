"""The journal's rows of a step: what was sampled, what the learners computed of it, and what the update measured."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plumbob.rollout.journal import DropReason, JournalRow
from plumbob.rollout.rollout_heads import whole
from plumbob.rollout.shaping_record import ShapingRecord, ShapingStep, record_shaping
from plumbob.trainers.algorithms.reward_shaping import EarnedRewards
from plumbob.trainers.learner.token_values import TokenRows
from plumbob.trainers.online.collection.collector import Scored, StepResponses
from plumbob.trainers.online.experience import Experience, LogprobsAndValues
from plumbob.trainers.online.objective import CLIPPED, ENTROPIES, RATIOS, TrainRows
from plumbob.trainers.online.part_rewards import CombinedScores

Numbers = NDArray[np.float32]

NO_NUMBERS = np.empty(0, np.float32)


@dataclass(frozen=True)
class StepUpdate:
    """What one step learnt from its responses, of which there are B.

    Attributes:
        experience: of all of them.
        scores: what the shaping of their rewards began with.
        earned: how these came about.
        learnt: the rows that the update was given, each named after one of the responses.
        measured: name -> what the update measured of these rows' tokens.
    """

    experience: Experience
    scores: CombinedScores
    earned: EarnedRewards
    learnt: TrainRows
    measured: Mapping[str, TokenRows]

    def measured_of_each(self, name: str) -> list[Numbers]:
        """The update's numbers of each response's tokens that were learnt; empty where it measured none."""
        found = [NO_NUMBERS] * self.experience.num_rows
        if name in self.measured:
            of_rows = self.measured[name].of_each(self.learnt.batch.num_rows)
            for response, numbers in zip(self.learnt.rows.tolist(), of_rows, strict=True):
                found[response] = numbers
        return found


def journal_rows(responses: StepResponses, computed: LogprobsAndValues, step: StepUpdate) -> list[JournalRow]:
    """One row a response, its per-token numbers cut out of the padded batch; then those of the groups left out."""
    of_all, of_learnt, probed = _of_all(computed, step), _of_learnt(step), _probed(computed)
    ratios, clipped, entropies = (step.measured_of_each(name) for name in (RATIOS, CLIPPED, ENTROPIES))
    is_learnt = step.experience.action_mask.numpy()
    records = shaping_records(responses, step)
    rows = []
    for row, scored in enumerate(zip(responses.rollouts, responses.scores, strict=True)):
        start = len(scored[0].request.prompt_ids)
        at = (row, slice(start, start + scored[0].num_tokens))
        mask = is_learnt[at]
        columns = {
            "ratios": _spread(ratios[row], mask),
            "clipped": _spread(clipped[row], mask).astype(np.bool_),
            "entropies": _spread(entropies[row], mask),
        }
        if row in probed:
            columns["learner_logprobs"] = probed[row][at[1]]
        columns |= {name: numbers[at] for name, numbers in (of_all | (of_learnt if mask.any() else {})).items()}
        rows.append(_journal_row(scored, responses, {"values": NO_NUMBERS} | columns, None, records[row]))
    left_out = {"ref_logprobs": NO_NUMBERS, "values": NO_NUMBERS}
    return rows + [_journal_row(scored, responses, left_out, "flat", None) for scored in responses.dropped]


def _of_all(computed: LogprobsAndValues, step: StepUpdate) -> dict[str, Numbers]:
    """Column of the journal -> [B, T]: what is known of every response's tokens."""
    known = {
        "ref_logprobs": computed.ref_logprobs,
        "values": computed.values,
        "teacher_logprobs": None if computed.graded is None else computed.graded.logprobs,
        "learner_logprobs": computed.logprobs if computed.probed is None else None,
        "entropies": computed.entropies,
        "token_rewards": step.earned.tokens,
    }
    return {name: numbers.numpy() for name, numbers in known.items() if numbers is not None}


def _of_learnt(step: StepUpdate) -> dict[str, Numbers]:
    """Column -> [B, T]: of responses that were learnt from, what the losses have; that of a whole KL no advantages."""
    experience = step.experience
    known = {
        "advantages": experience.advantages if experience.teachers is None else None,
        "returns": None if experience.critic is None else experience.critic.returns,
    }
    return {name: numbers.numpy() for name, numbers in known.items() if numbers is not None}


def _probed(computed: LogprobsAndValues) -> dict[int, Numbers]:
    """Of a step that took the sampler's log-probs: response -> the learner's own, [T] of the padded batch."""
    if computed.probed is None:
        return {}
    return dict(zip(computed.probed.index.tolist(), computed.probed.logprobs.numpy(), strict=True))


def _spread(numbers: Numbers, mask: NDArray[np.bool_]) -> Numbers:
    """Numbers of the tokens in bool [T] `mask`, at their places, 0 elsewhere; none of none."""
    if not len(numbers):
        return NO_NUMBERS
    found = np.zeros(len(mask), np.float32)
    found[mask] = numbers
    return found


def shaping_records(responses: StepResponses, step: StepUpdate) -> list[ShapingRecord | None]:
    """How the reward of each response came about; None where it has no token that could earn any."""
    earned = step.earned
    returns = earned.tokens.double().sum(dim=1).tolist()
    totals = earned.scores.double().tolist()
    shaped = () if earned.shaped is None else earned.shaped
    levels = list(zip(*(level.double().tolist() for level in shaped), strict=True))
    records: list[ShapingRecord | None] = []
    for row, (rollout, score) in enumerate(zip(responses.rollouts, responses.scores, strict=True)):
        if not rollout.num_actions:
            records.append(None)
        elif earned.shaped is None:
            records.append(ShapingRecord((ShapingStep("teacher", "teacher", returns[row]),), 0.0, returns[row]))
        elif step.scores.standardised:
            parts = {name: float(standardised[row]) for name, standardised in step.scores.standardised.items()}
            records.append(record_shaping(parts, None, totals[row], levels[row], returns[row]))
        else:
            parts = dict(score.weighted) or {"reward": totals[row]}
            records.append(record_shaping(parts, score.shut_gate, totals[row], levels[row], returns[row]))
    return records


def _journal_row(
    scored: Scored,
    responses: StepResponses,
    columns: Mapping[str, Any],
    dropped: DropReason | None,
    shaping: ShapingRecord | None,
) -> JournalRow:
    rollout, score = whole(scored[0]), scored[1]
    request = rollout.request
    return JournalRow(
        position=responses.positions[request.group_id],
        prompt_id=request.prompt_id,
        group_id=request.group_id,
        sample_index=request.sample_index,
        seed=request.seed,
        prompt=request.prompt,
        prompt_row=responses.rows.get(request.prompt_id, {}),
        response=rollout.response,
        prompt_ids=request.prompt_ids,
        token_ids=rollout.token_ids,
        logprobs=rollout.logprobs,
        rewards=dict(score.parts),
        failures=dict(score.failures),
        score=score.total,
        dropped=dropped,
        versions=rollout.versions,
        action_mask=rollout.action_mask,
        finish_reason=rollout.finish_reason,
        worker=rollout.worker,
        episode=rollout.episode,
        shaping=shaping,
        **columns,
    )
