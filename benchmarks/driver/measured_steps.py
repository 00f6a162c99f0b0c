"""Steps of the online loop over stub workers, and what each cost the driver's process."""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.driver.stub_fleet import open_fleet
from benchmarks.driver.traffic import Traffic
from plumbob.cluster.connection import started_or_joined
from plumbob.configs.runs import OnlineRun
from plumbob.configs.settings.data import PromptDataSettings
from plumbob.configs.settings.models import AlignedPolicySettings
from plumbob.configs.settings.rewards import ScorerSettings
from plumbob.configs.settings.training import OnlineSettings
from plumbob.configs.settings.workers import ClusterSettings, RolloutSettings
from plumbob.data.prompts import EncodedPrompt
from plumbob.rollout.journal import JOURNAL_FOLDER
from plumbob.rollout.journal_files import files_of, step_file
from plumbob.trainers.learner.checkpoint import Checkpoints
from plumbob.trainers.metrics.metrics_log import MetricsLog
from plumbob.trainers.metrics.stage_result import StageSummary
from plumbob.trainers.metrics.step_record import StepRecord, WorkerCounts
from plumbob.trainers.online.collection.collector import Collector
from plumbob.trainers.online.online_input import OnlineInput
from plumbob.trainers.online.online_loop import OnlineState, commit, learn, publish
from plumbob.trainers.online.recorder import OnlineRecorder

NUM_TOKENS = 2048
"""Of a response."""
PROMPT_TOKENS = 128
SAMPLES_PER_PROMPT = 8
SCORE_CHUNK = 128
"""What one scorer takes at once, with the default `batch_size` of a reward model."""
NUM_TIMED = 2
"""Steps whose cost is the median, after one that warms up; one more is counted."""

MIB = 1 << 20


@dataclass(frozen=True)
class DriverCost:
    """Of one step.

    Attributes:
        num_responses: each of NUM_TOKENS tokens.
        num_workers: rollout workers; there are as many scorers and learner ranks.
        cpu_s: CPU seconds of the driver's process, all its threads.
        wall_s: seconds of the step, with stub workers that answer at once and share the machine.
        driver_mb: millions of bytes that the driver sent, put and got.
        learner_mb: millions of bytes that all learner ranks read.
        memory_mib: the driver's peak, above what it took before the first step.
        journal_mb: millions of bytes of the step's journal.
    """

    num_responses: int
    num_workers: int
    cpu_s: float
    wall_s: float
    driver_mb: float
    learner_mb: float
    memory_mib: float
    journal_mb: float


class Unheard:
    """A listener that nobody reads."""

    def notify(self, stage: str, message: str) -> None: ...

    def stage_began(self, stage: str) -> None: ...

    def stepped(self, record: StepRecord) -> None: ...

    def workers_changed(self, workers: WorkerCounts) -> None: ...

    def stage_ended(self, stage: str, summary: StageSummary) -> None: ...


def measure(num_responses: int, num_workers: int, folder: Path) -> DriverCost:
    """The cost of a step, on a private Ray cluster, with files in `folder`, which is emptied."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    run, traffic = _run(num_responses), Traffic()
    with started_or_joined(ClusterSettings()), MetricsLog(folder, Unheard()) as log:
        workers = open_fleet(num_workers, NUM_TOKENS, run.rollout.chunk_size, SCORE_CHUNK, traffic)
        state = OnlineState(run, OnlineInput(_prompts(run), 0, ()))
        checkpoints = Checkpoints(folder / "checkpoints", 1)
        costs: list[tuple[float, float]] = []
        before = resident_mib("VmRSS")
        with OnlineRecorder("ppo", run.online, folder, log, Unheard()) as recorder:
            publish(workers, state, recorder)
            collector = Collector(run, state.cursor, workers.samplers, workers.scorer, state.ledger, recorder.phase)

            def step() -> None:
                responses = collector.collect(state.step)
                learn(run, 0, responses, state, workers.learners, recorder)
                commit(responses, state, workers, checkpoints, recorder)
                publish(workers, state, recorder)

            step()
            forget_peak()
            for _ in range(NUM_TIMED):
                cpu, wall = time.process_time(), time.monotonic()
                step()
                costs.append((time.process_time() - cpu, time.monotonic() - wall))
            peak = resident_mib("VmHWM") - before
            with traffic.counting():
                step()
    size = sum(path.stat().st_size for path in files_of(step_file(folder / JOURNAL_FOLDER, NUM_TIMED + 1)))
    shutil.rmtree(folder)
    return DriverCost(
        num_responses,
        num_workers,
        cpu_s=median(cpu for cpu, _ in costs),
        wall_s=median(wall for _, wall in costs),
        driver_mb=traffic.through_driver / 1e6,
        learner_mb=traffic.to_learners / 1e6,
        memory_mib=peak,
        journal_mb=size / 1e6,
    )


def _run(num_responses: int) -> OnlineRun:
    """PPO with a critic, one optimizer step a step, as the defaults have the rest."""
    return OnlineRun(
        data=PromptDataSettings(prompts="unused"),
        policy=AlignedPolicySettings(model="unused"),
        reward=ScorerSettings(model="unused"),
        rollout=RolloutSettings(max_tokens=NUM_TOKENS),
        online=OnlineSettings(
            num_steps=100,
            prompts_per_step=num_responses // SAMPLES_PER_PROMPT,
            samples_per_prompt=SAMPLES_PER_PROMPT,
            minibatch_size=num_responses,
        ),
        seed=5,
    )


def _prompts(run: OnlineRun) -> tuple[EncodedPrompt, ...]:
    """As many as a step takes, of ordinary text."""
    ids = np.random.default_rng(0).integers(0, 32_000, (run.online.prompts_per_step, PROMPT_TOKENS)).astype(np.int32)
    return tuple(EncodedPrompt(f"p{index}", f"{index} " * PROMPT_TOKENS, own) for index, own in enumerate(ids))


def resident_mib(field: str) -> float:
    """Of this process: `VmRSS`, what it has of memory, or `VmHWM`, the most since `forget_peak`."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024 / MIB
    raise ValueError(f"/proc/self/status has no {field}")


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")
