"""What a step of PPO leaves behind: a line of metrics, a file of the journal, and a word when something is off."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path

from configs.stages import Ppo
from reward.scorer import Score
from rollout.journal import JournalRow, write_step
from rollout.records import Rollout
from trainers.experience import Evaluated, ExperienceStats
from trainers.metrics import Listener, MetricsLog, Phases, StepRecord


class PpoRecorder:
    """Keeps the figures of a run of PPO.

    Args:
        folder: the stage's; the journal goes to `rollouts/` below it.
    """

    def __init__(self, ppo: Ppo, folder: Path, log: MetricsLog, listener: Listener) -> None:
        self._ppo, self._folder, self._log, self._listener = ppo, folder, log, listener
        self._phases = Phases()

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Count the block's seconds under this name."""
        return self._phases.phase(name)

    def learnt(
        self,
        rollouts: Sequence[Rollout],
        scores: Sequence[Score],
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
        write_step(self._folder / "rollouts", step, journal_rows(rollouts, scores, evaluated))
        named = {"score_mean": "reward", "score_std": "reward_std", "kl_mean": "kl"}
        figures = {named.get(name, name): float(value) for name, value in asdict(stats).items()} | dict(metrics)
        seconds = self._phases.take()
        figures["tokens_per_s"] = stats.num_tokens / sum(seconds.values())
        self._log.append(StepRecord("ppo", step, self._ppo.num_steps, figures, seconds))
        if stats.kl_mean > self._ppo.kl_bound:
            self._say(f"step {step}: KL {stats.kl_mean:.2f} is above ppo.kl_bound={self._ppo.kl_bound}")
        if stats.sampler_gap_mean > self._ppo.sampler_gap_bound:
            self._say(
                f"step {step}: sampler and learner disagree by {stats.sampler_gap_mean:.3g} nats a token on average, "
                f"above ppo.sampler_gap_bound={self._ppo.sampler_gap_bound}"
            )
        if stats.num_empty:
            self._say(f"step {step}: {stats.num_empty} answers are empty and carry no signal")

    def _say(self, message: str) -> None:
        self._listener.said("ppo", message)


def ppo_figures(records: Sequence[StepRecord]) -> dict[str, float]:
    """What the summary says of a whole run, whatever interrupted it; KL in nats a whole answer."""
    return {
        "train_kl": records[-1].metrics["kl"],
        "max_train_kl": max(record.metrics["kl"] for record in records),
        "max_sampler_gap": max(record.metrics["sampler_gap_max"] for record in records),
    }


def journal_rows(rollouts: Sequence[Rollout], scores: Sequence[Score], evaluated: Evaluated) -> list[JournalRow]:
    """One row an answer, its per-token figures cut out of the padded batch."""
    rows = []
    for place, (rollout, score) in enumerate(zip(rollouts, scores, strict=True)):
        request = rollout.request
        start = len(request.prompt_ids)
        answer = (place, slice(start, start + len(rollout.token_ids)))
        rows.append(
            JournalRow(
                prompt_id=request.prompt_id,
                group_id=request.group_id,
                sample_index=request.sample_index,
                seed=request.seed,
                prompt=request.prompt,
                response=rollout.response,
                prompt_ids=request.prompt_ids,
                token_ids=rollout.token_ids,
                logprobs=rollout.logprobs,
                ref_logprobs=evaluated.ref_logprobs[answer].numpy(),
                values=evaluated.values[answer].numpy(),
                rewards=dict(score.parts),
                score=score.total,
                versions=rollout.versions,
                action_mask=rollout.action_mask,
                finish_reason=rollout.finish_reason,
                worker=rollout.worker,
            )
        )
    return rows
