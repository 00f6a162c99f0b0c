"""What a step of PPO leaves behind: metrics, the journal, the sample accounting, and a word when something is off."""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from plumbob.configs.settings.training import PpoSettings
from plumbob.core.disk_errors import naming
from plumbob.reward.second_judge import JUDGE_PART
from plumbob.rollout.journal import DropReason, JournalRow, step_file, write_step
from plumbob.rollout.rollout_records import Rollout
from plumbob.trainers.metrics.json_lines import JsonLines
from plumbob.trainers.metrics.metrics_log import MetricsLog
from plumbob.trainers.metrics.sinks.jsonl import read_metrics
from plumbob.trainers.metrics.step_record import Listener, Phases, StepRecord
from plumbob.trainers.online.collector import Scored, StepResponses
from plumbob.trainers.online.experience import Evaluated, ExperienceStats
from plumbob.trainers.online.monitors import alarms, has_stopped, new_alarms

NO_FIGURES = np.empty(0, np.float32)


LEDGER_FILE = "sample_ledger.jsonl"
"""A line for each policy version: what became of the responses that were issued under it."""


class PpoRecorder:
    """Keeps the figures of a run of PPO. Used as a context, which closes its file.

    Args:
        folder: the stage's; the journal goes to `rollouts/` below it.
    """

    def __init__(self, ppo: PpoSettings, folder: Path, log: MetricsLog, listener: Listener) -> None:
        self._ppo, self._folder, self._log, self._listener = ppo, folder, log, listener
        self._phases = Phases()
        # A resumed run's earlier steps are on file.
        self._steps: list[Mapping[str, float]] = [record.metrics for record in read_metrics(folder)]
        self._ledger_lines = JsonLines(folder / LEDGER_FILE)
        self._ledger_lines.keep(lambda row: row["step"] <= len(self._steps))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ledger_lines.close()

    @property
    def is_stopped(self) -> bool:
        """Whether a monitor ends the run with the step that was last written down."""
        return has_stopped(self._steps, self._ppo)

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Count the block's seconds under this name."""
        return self._phases.phase(name)

    def learnt(
        self,
        responses: StepResponses,
        evaluated: Evaluated,
        stats: ExperienceStats,
        step: int,
        metrics: Mapping[str, float],
    ) -> None:
        """Write down one update, of 1-based `step`: its file of the journal and its line of metrics.

        The line comes before the step's checkpoint, so that no death leaves a checkpoint whose step has no line;
        resuming drops the lines past its checkpoint. The seconds are those since the line before, so committing and
        publishing a version are counted in the step that samples from it.
        """
        journal = self._folder / "rollouts"
        with naming(step_file(journal, step)):
            write_step(journal, step, journal_rows(responses, evaluated))
        named = {"score_mean": "reward", "score_std": "reward_std", "kl_mean": "kl"}
        known = {named.get(name, name): value for name, value in asdict(stats).items() if value is not None}
        figures = {name: float(value) for name, value in known.items()} | dict(metrics) | self._rounds(responses)
        figures |= watched_figures(responses, evaluated) | staleness_figures(responses.rollouts, step - 1)
        figures["sampler_gap_fresh"] = fresh_gap(responses.rollouts, evaluated, step - 1)
        figures["sampler_idle_s"] = responses.sampler_idle_s
        seconds = self._phases.take()
        figures["tokens_per_s"] = stats.num_tokens / sum(seconds.values())
        self._steps.append(figures)
        figures |= {f"alarm_{alarm.name}": 1.0 for alarm in alarms(self._steps, self._ppo)}
        self._log.append(StepRecord("ppo", step, self._ppo.num_steps, figures, seconds))
        for alarm in new_alarms(self._steps, self._ppo):
            self._notify(f"step {step}: {alarm.message}")
        if stats.num_empty:
            self._notify(f"step {step}: {stats.num_empty} responses are empty and carry no signal")
        if responses.num_flat:
            self._notify(
                f"step {step}: after {responses.num_rounds} rounds, {responses.num_flat} of "
                f"{self._ppo.prompts_per_step} prompts still have responses of one and the same "
                "reward, and carry no signal but the KL's"
            )

    def accounted(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write down final rows of the sample accounting, before the checkpoint of 1-based `step` leaves them out."""
        if rows:
            self._ledger_lines.append(*({"step": step, **row} for row in rows))

    def _rounds(self, responses: StepResponses) -> dict[str, float]:
        """What dynamic sampling did, where it is on."""
        if self._ppo.dynamic_sampling is None:
            return {}
        num_dropped = len(responses.dropped) / self._ppo.samples_per_prompt
        return {
            "num_rounds": responses.num_rounds,
            "num_dropped_groups": num_dropped,
            "num_flat_groups": responses.num_flat,
        }

    def _notify(self, message: str) -> None:
        self._listener.notify("ppo", message)


def watched_figures(responses: StepResponses, evaluated: Evaluated) -> dict[str, float]:
    """What only the monitors need: of the tokens and responses of one step.

    entropy: the mean of -log pi of a sampled token, in nats, which estimates the policy's entropy at its temperature.
    repeated_share: of the responses, those that stand in the step more than once, whatever their prompts.
    judge_reward: mean of the second judge's score, where there is one.
    """
    logprobs = [
        response_of(rollout, own.numpy())[rollout.action_mask]
        for rollout, own in zip(responses.rollouts, evaluated.logprobs, strict=True)
    ]
    times = Counter(rollout.token_ids.tobytes() for rollout in responses.rollouts)
    figures = {
        "entropy": -float(np.concatenate(logprobs).mean(dtype=np.float64)),
        "repeated_share": sum(count for count in times.values() if count > 1) / len(responses.rollouts),
    }
    judged = [score.parts[JUDGE_PART] for score in responses.scores if JUDGE_PART in score.parts]
    return figures | ({"judge_reward": sum(judged) / len(judged)} if judged else {})


def staleness_figures(rollouts: Sequence[Rollout], version: int) -> dict[str, float]:
    """How many versions the tokens are behind `version`, which learnt from them: their mean, and the most."""
    behind = version - np.concatenate([rollout.versions[rollout.action_mask] for rollout in rollouts])
    return {"staleness_mean": float(behind.mean(dtype=np.float64)), "staleness_max": float(behind.max(initial=0))}


def fresh_gap(rollouts: Sequence[Rollout], evaluated: Evaluated, version: int) -> float:
    """Mean |log pi_learner - log pi_sampler| in nats over the tokens that `version` itself made; 0 without any.

    Both are of one policy there, and ought to agree; older tokens differ by what was learnt since.
    """
    gaps = [
        np.abs(response_of(rollout, own.numpy()) - rollout.logprobs)[
            rollout.action_mask & (rollout.versions == version)
        ]
        for rollout, own in zip(rollouts, evaluated.logprobs, strict=True)
    ]
    found = np.concatenate(gaps)
    return float(found.mean(dtype=np.float64)) if len(found) else 0.0


def ppo_figures(records: Sequence[StepRecord]) -> dict[str, float]:
    """What the summary says of a whole run, whatever interrupted it; KL in nats a whole response."""
    return {
        "train_kl": records[-1].metrics["kl"],
        "max_train_kl": max(record.metrics["kl"] for record in records),
        "max_sampler_gap": max(record.metrics["sampler_gap_max"] for record in records),
    }


def journal_rows(responses: StepResponses, evaluated: Evaluated) -> list[JournalRow]:
    """One row a response, its per-token figures cut out of the padded batch; then those of the groups left out."""
    rows = []
    positions = responses.positions
    for place, scored in enumerate(zip(responses.rollouts, responses.scores, strict=True)):
        request = scored[0].request
        start = len(request.prompt_ids)
        response = (place, slice(start, start + len(scored[0].token_ids)))
        values = NO_FIGURES if evaluated.values is None else evaluated.values[response].numpy()
        rows.append(_journal_row(scored, positions, evaluated.ref_logprobs[response].numpy(), values, None))
    return rows + [_journal_row(scored, positions, NO_FIGURES, NO_FIGURES, "flat") for scored in responses.dropped]


def response_of(rollout: Rollout, row: NDArray[np.float32]) -> NDArray[np.float32]:
    """The response's part of a row [T] of the padded batch."""
    start = len(rollout.request.prompt_ids)
    return row[start : start + len(rollout.token_ids)]


def _journal_row(
    scored: Scored,
    positions: Mapping[str, int],
    ref_logprobs: NDArray[np.float32],
    values: NDArray[np.float32],
    dropped: DropReason | None,
) -> JournalRow:
    rollout, score = scored
    request = rollout.request
    return JournalRow(
        position=positions[request.group_id],
        prompt_id=request.prompt_id,
        group_id=request.group_id,
        sample_index=request.sample_index,
        seed=request.seed,
        prompt=request.prompt,
        response=rollout.response,
        prompt_ids=request.prompt_ids,
        token_ids=rollout.token_ids,
        logprobs=rollout.logprobs,
        ref_logprobs=ref_logprobs,
        values=values,
        rewards=dict(score.parts),
        score=score.total,
        dropped=dropped,
        versions=rollout.versions,
        action_mask=rollout.action_mask,
        finish_reason=rollout.finish_reason,
        worker=rollout.worker,
    )
