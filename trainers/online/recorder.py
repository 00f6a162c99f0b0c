"""What a step leaves behind (OnlineRecorder): metrics, the rollout journal, sample accounting, monitors' alarms."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Self

from plumbob.configs.settings.training import OnlineSettings
from plumbob.core.disk_errors import naming_file
from plumbob.core.errors import RunStopped
from plumbob.rollout.journal import JOURNAL_FOLDER
from plumbob.rollout.journal_files import step_file
from plumbob.trainers.distillation.teachers import TEACHER_KL
from plumbob.trainers.metrics.json_lines import JsonLines
from plumbob.trainers.metrics.metrics_log import MetricsLog
from plumbob.trainers.metrics.sinks.jsonl import read_metrics
from plumbob.trainers.metrics.step_record import Listener, ResponseSample, StepRecord
from plumbob.trainers.online.collection.collector import StepResponses
from plumbob.trainers.online.measure_step import all_scores, failures_by_part, kinds_of_failures, measure_step
from plumbob.trainers.online.monitors import Monitors
from plumbob.trainers.online.objective import MAX_TRUSTED_GAP
from plumbob.trainers.online.ranks.token_metrics import TokenMetrics
from plumbob.trainers.online.step_metrics import ALARM, ExperienceStats, RoundMetrics, StepMetrics

LEDGER_FILE = "sample_ledger.jsonl"
"""A line for each policy version: what became of the responses that were issued under it."""


class OnlineRecorder:
    """Writes down an online run, and watches it. Used as a context, which closes its file.

    Args:
        stage: what it is called in the metrics and messages.
        folder: the stage's; the journal goes to `rollouts/` below it.
    """

    def __init__(self, stage: str, online: OnlineSettings, folder: Path, log: MetricsLog, listener: Listener) -> None:
        self._online, self._folder, self._log, self._listener = online, folder, log, listener
        self._stage = stage
        self._phases = log.phases()
        self._stop: RunStopped | None = None
        self._monitors = Monitors(online)
        for step in steps_on_disk(folder):  # A resumed run's earlier steps.
            self._monitors.observe(step)
        self._ledger_lines = JsonLines(folder / LEDGER_FILE)
        self._ledger_lines.keep(lambda row: row["step"] <= self._monitors.num_steps)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ledger_lines.close()

    @property
    def is_stopped(self) -> bool:
        """Whether a monitor ends the run with the step that was last written down."""
        return self._monitors.has_stopped

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Count the block's seconds under this name."""
        return self._phases.phase(name)

    def record_update(
        self,
        responses: StepResponses,
        of_tokens: TokenMetrics,
        stats: ExperienceStats,
        step: int,
        update: Mapping[str, float],
        breach: float | None,
        write_journal: Callable[[Path], None],
    ) -> None:
        """Write down one update, of 1-based `step`: its rows of the journal and its line of metrics.

        `breach` is the gap that ended the trust in the sampler's log-probs; None at any other step. `write_journal`
        has those who have the rows write them into the folder given.

        The line comes before the step's checkpoint, so that no death leaves a checkpoint whose step has no line;
        resuming drops the lines past its checkpoint. The seconds are those since the line before, so committing and
        publishing a version are counted in the step that samples from it.
        """
        journal = self._folder / JOURNAL_FOLDER
        with naming_file(step_file(journal, step)):
            write_journal(journal)
        seconds = self._phases.take()
        rounds = self._rounds(responses)
        measured = measure_step(responses, of_tokens, stats, update, sum(seconds.values()), rounds)
        self._monitors.observe(measured)
        metrics = measured.on_disk() | {f"{ALARM}{alarm.name}": 1.0 for alarm in self._monitors.alarms}
        sample = sample_of(responses)
        try:
            num_samples, joules = len(responses.rollouts), self._phases.take_joules()
            record = StepRecord(
                self._stage, step, self._online.num_steps, metrics, seconds, sample, num_samples, joules
            )
            self._log.append(record)
        except RunStopped as stop:  # By who heard of the step, which is to be kept first.
            self._stop = stop
        for alarm in self._monitors.new_alarms:
            self._notify(f"step {step}: {alarm.message}")
        if breach is not None:
            self._notify(
                f"step {step}: log-probs of sampler and learner are {breach:.2g} nats apart, more than "
                f"{MAX_TRUSTED_GAP:g}: from now on each step computes the policy's own (online.old_logprobs)"
            )
        for note in step_notes(responses, stats, self._online):
            self._notify(f"step {step}: {note}")

    def record_final_counts(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write down final rows of the sample accounting, before the checkpoint of 1-based `step` leaves them out."""
        if rows:
            self._ledger_lines.append(*({"step": step, **row} for row in rows))

    def check_stop(self) -> None:
        """Called once a step is kept. Raises RunStopped when who heard of the step did."""
        if self._stop is not None:
            raise self._stop

    def _rounds(self, responses: StepResponses) -> RoundMetrics | None:
        """What dynamic sampling did, where it is on."""
        if self._online.dynamic_sampling is None:
            return None
        num_dropped = len(responses.dropped) / self._online.samples_per_prompt
        return RoundMetrics(responses.num_rounds, num_dropped, responses.num_flat)

    def _notify(self, message: str) -> None:
        self._listener.notify(self._stage, message)


def sample_of(responses: StepResponses) -> ResponseSample | None:
    """The first response of a step, which another prompt has at each; None where there is none."""
    if not responses.rollouts:
        return None
    rollout, score = responses.rollouts[0], responses.scores[0]
    return ResponseSample.cut(rollout.request.prompt, rollout.beginning, score.total)


def step_notes(responses: StepResponses, stats: ExperienceStats, online: OnlineSettings) -> Iterator[str]:
    """What a person should know of a step's responses: those that nothing was learnt from, or not what was meant."""
    scores = all_scores(responses)
    for part, reasons in failures_by_part(scores).items():
        yield (
            f"the reward's part {part} could not score {len(reasons)} of {len(scores)} responses "
            f"({kinds_of_failures(reasons)}), the first of them for {reasons[0]}"
        )
    failures = [rollout.episode.failure for rollout in responses.all_rollouts if rollout.episode is not None]
    reasons = [reason for reason in failures if reason is not None]
    if reasons:
        yield (
            f"the environment failed in {len(reasons)} of {len(failures)} episodes ({kinds_of_failures(reasons)}), in "
            f"the first of them for {reasons[0]}"
        )
    if stats.num_empty:
        yield f"{stats.num_empty} responses are empty and carry no signal"
    if online.mask_truncated and stats.missing_eos_share == 1:
        yield (
            "no response ended, and none was learnt from (online.mask_truncated): "
            "give them more tokens, with a higher rollout.max_tokens, or learn from what is cut"
        )
    if responses.num_flat:
        yield (
            f"after {responses.num_rounds} rounds, {responses.num_flat} of {online.prompts_per_step} prompts still "
            "have responses that the scorer rewards alike, and carry no signal but the KL's and that of "
            "online.shaping's penalties"
        )


def online_summary(steps: Sequence[StepMetrics]) -> dict[str, float]:
    """What the summary says of a whole run, whatever interrupted it; KL in nats a whole response.

    Rewards are means over a step's responses, before shaping; KL from the teachers is in nats a token.
    """
    known = {
        "first_train_reward": steps[0].experience.score_mean,
        "train_reward": steps[-1].experience.score_mean,
        "train_kl": steps[-1].experience.kl_mean,
        "max_train_kl": max(step.experience.kl_mean for step in steps),
        "max_sampler_gap": max(step.experience.sampler_gap_max for step in steps),
        f"first_{TEACHER_KL}": steps[0].objective.get(TEACHER_KL),
        TEACHER_KL: steps[-1].objective.get(TEACHER_KL),
    }
    return {name: value for name, value in known.items() if value is not None}


def steps_on_disk(folder: Path) -> list[StepMetrics]:
    """Of the stage whose results are in `folder`."""
    return [StepMetrics.from_disk(record.metrics) for record in read_metrics(folder)]
