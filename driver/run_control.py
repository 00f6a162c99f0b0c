"""Between a run and its session: status out, people's requests in, and the budget of lost workers."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from plumbob.cluster.control_actor import ControlClient
from plumbob.cluster.failures import WorkerLost
from plumbob.cluster.fleet.autoscale import Autoscaler
from plumbob.cluster.fleet.recovery.budget import RestartBudget
from plumbob.cluster.nodes import addresses, draining_nodes
from plumbob.cluster.resources import ResourceNeed, WorkerRole
from plumbob.cluster.run_status import MESSAGE_CHARS, RunGauges, RunStatus, counts_by_state
from plumbob.cluster.session import Session
from plumbob.configs.resolved_copy import RESOLVED_FILE
from plumbob.configs.settings.workers import RolloutSettings
from plumbob.core.errors import RunStopped, first_line
from plumbob.core.process_ends.stop_signals import stop_signals
from plumbob.driver.run_folder.event_log import EventLog
from plumbob.driver.run_folder.folder import STATUS_FILE
from plumbob.driver.run_folder.status_listener import StatusListener
from plumbob.driver.run_folder.step_events import StepsToKeep
from plumbob.trainers.learner.checkpoint import Checkpoint
from plumbob.trainers.metrics.step_record import Listener, StepRecord, WorkerCounts
from plumbob.trainers.online.collection.sample_ledger import SampleLedger

OnSaved = Callable[[str, Checkpoint], None]


class RunControl:
    """A run that can be watched and changed from elsewhere; satisfies `cluster.session.RunHooks`.

    Args:
        name: of the run.
        needs: the groups of workers that it will have.
        listener: hears what the run reports, by way of the attribute of that name.
        on_saved: called with the stage and each checkpoint that stands.

    Attributes:
        listener: what the run's stages report to; keeps the status.
        events: the record of what happens to it.
        budget: how many workers may still be lost.
        ledger: what became of every response of the run's last online stage; None before it.
    """

    def __init__(
        self,
        session: Session,
        name: str,
        needs: tuple[ResourceNeed, ...],
        folder: Path,
        listener: Listener,
        on_saved: OnSaved = lambda stage, checkpoint: None,
    ) -> None:
        self._session, self._name, self._on_saved = session, name, on_saved
        self.events = EventLog(folder)
        self._steps = StepsToKeep()
        self.listener = StatusListener(listener, folder / STATUS_FILE, self.status, self._after_step, self.events)
        self.budget = RestartBudget(session.cluster.max_restarts)
        self.ledger: SampleLedger | None = None
        self._gauges = RunGauges(name)
        self._minimum_needs = tuple(need if need.role == "learner" else replace(need, count=1) for need in needs)
        self._client: ControlClient | None = None
        self._polling = threading.Lock()
        self._autoscaler: Autoscaler | None = None
        self._is_stopping = False
        self._workers: WorkerCounts = {}
        self._is_save_requested = False

    def status(self) -> RunStatus:
        rollout = self._session.rollout_pool
        return RunStatus(
            time=time.time(),
            stage=self.listener.stage,
            step=self.listener.step,
            last_message=self.listener.last_message[:MESSAGE_CHARS],
            workers=self._session.workers(),
            rollout=None if rollout is None else replace(rollout.need, count=rollout.pool.target_size),
            minimum_needs=self._minimum_needs,
            autoscale=None if self._autoscaler is None else self._autoscaler.bounds,
            workers_lost=self.budget.total,
            responses=None if self.ledger is None else self.ledger.counts(),
        )

    def notify(self, message: str) -> None:
        self.listener.notify("cluster", message)

    # ------------------------------------------------------------------------------------------- of people, and of Ray

    def poll_control(self) -> None:
        """Report the status and do what has been requested. Never waits."""
        if self._client is not None and self._polling.acquire(blocking=False):  # Otherwise another thread polls.
            try:
                self._poll(self._client)
            finally:
                self._polling.release()

    def _poll(self, client: ControlClient) -> None:
        rollout = self._session.rollout_pool
        requests = client.exchange(self.status, is_scalable=rollout is not None)
        self._is_stopping = requests.stop
        self._report_workers()
        self._is_save_requested |= requests.save
        for request in requests.made:
            self.events.record("steered", by=dict(request.by), what=request.what)
        new = self._session.drain_nodes(requests.draining | draining_nodes())
        if new:
            where = ", ".join(addresses(new))
            self.events.record("draining", hosts=addresses(new))
            self.notify(f"draining {where}: workers there finish their work, others start elsewhere")
        if rollout is not None and requests.num_rollout_workers is not None:
            rollout.pool.target_size = requests.num_rollout_workers

    def _report_workers(self) -> None:
        workers = counts_by_state(self._session.workers())
        if workers != self._workers:
            self._workers = workers
            self.listener.workers_changed(workers)

    def begin_work(self) -> None:
        """Called before work whose end is worth waiting for. Raises RunStopped when somebody wants the run to stop."""
        stop_signals.work_began()
        self.poll_control()
        if self._is_stopping:
            raise RunStopped("the run was asked to stop")
        stop_signals.check()

    def is_save_requested(self) -> bool:
        """Whether somebody wants a checkpoint, and none has been made since."""
        self.poll_control()
        return self._is_save_requested

    # ------------------------------------------------------------------------------------------------- of the workers

    def samplers_opened(self, rollout: RolloutSettings) -> None:
        if rollout.autoscale is not None and self._autoscaler is None:
            self._autoscaler = Autoscaler(rollout.autoscale)

    def worker_lost(self, lost: WorkerLost, slot: str) -> None:
        self.events.record("lost", slot=slot, why=first_line(lost)[:MESSAGE_CHARS])
        self.notify(self.budget.record_loss(lost, slot))

    def worker_joined(self, role: WorkerRole, worker: str, host: str, is_replacement: bool) -> None:
        is_of_this_run = self.budget.total > 0  # An earlier run on the session may have lost it.
        self.events.record("replaced" if is_replacement and is_of_this_run else "joined", worker=worker, on=host)

    def published(self, version: int) -> None:
        self.events.record("published", stage=self.listener.stage, version=version)

    def saved(self, checkpoint: Checkpoint) -> None:
        """Called when a checkpoint stands."""
        self._is_save_requested = False
        stage = self.listener.stage or ""
        steps = self._steps.kept(stage, checkpoint.step)
        self.events.record_steps(steps, "saved", stage=stage, step=checkpoint.step, folder=str(checkpoint.folder))
        self._on_saved(stage, checkpoint)

    def responses_reissued(self, count: int) -> None:
        if self.ledger is not None:
            self.ledger.reissued(count)

    def _after_step(self, record: StepRecord) -> None:
        self._steps.stepped(record.stage, record.step)
        self.budget.stepped(record.stage, record.step)
        self._gauges.show(record)
        rollout = self._session.rollout_pool
        if self._autoscaler is not None and rollout is not None:
            size = self._autoscaler.workers_after_step(record, rollout.pool.target_size, rollout.pool.status())
            if size != rollout.pool.target_size:
                self.events.record("steered", what=f"rollout.autoscale: {rollout.pool.target_size} become {size}")
                self.notify(f"rollout.autoscale: {rollout.pool.target_size} rollout workers become {size}")
                rollout.pool.target_size = size

    # -------------------------------------------------------------------------------------------------- its whole life

    @contextmanager
    def reachable(self, wait_s: float) -> Iterator[None]:
        """Be watched and changed under its name. Argument and errors are those of `ControlClient`."""
        self._client = ControlClient(self._name, self.notify, wait_s)
        try:
            self.poll_control()  # Whoever asks from now on finds a status.
            yield
        finally:
            client, self._client = self._client, None
            client.close()


@contextmanager
def controlled_run(
    session: Session,
    name: str,
    needs: tuple[ResourceNeed, ...],
    folder: Path,
    listener: Listener,
    on_saved: OnSaved = lambda stage, checkpoint: None,
) -> Iterator[RunControl]:
    """A run on a session, from the check that it fits to its end.

    Raises:
        UserError: it does not fit, or a run of that name is running on the cluster; for one that has begun before
            after `cluster.wait_s`.
    """
    control = RunControl(session, name, needs, folder, listener, on_saved)
    has_begun = (folder / RESOLVED_FILE).exists()  # Who resumes a run cannot choose another name.
    with session.attached(control):
        session.admit(needs)
        with control.reachable(session.cluster.wait_s if has_begun else 0.0):
            control.events.record("resumed" if has_begun else "started", name=name)
            yield control
