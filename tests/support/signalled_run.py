"""`plumbob run` as a process of its own, small and on a private Ray cluster, and what is left of its processes."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from plumbob.cluster.calls import wait_until
from tests.support.small_run import LLAMA, WORKERS, model_settings, settings

BOUND_S = 240.0


def pretrain_settings(world: Path, storage: Path, name: str) -> list[str]:
    """Some seventy steps of a tiny Llama on a world's text, saved at the last alone."""
    return settings(
        model_settings("policy.model", LLAMA),
        WORKERS,
        {"data.text": world / "text.jsonl", "pretrain.block_tokens": 64, "pretrain.batch_size": 4},
        {"pretrain.num_epochs": 3, "pretrain.save_every": 1000, "learner.num_threads": 1},
        {"storage.path": storage, "name": name, "cluster.num_cpus": 1},
    )


@dataclass
class SignalledRun:
    """A driver in a process group of its own, and every process that it had when it was last looked at."""

    driver: subprocess.Popen[str]
    folder: Path
    processes: list[psutil.Process] = field(default_factory=list)

    def wait_for(self, is_so: Callable[[], bool]) -> None:
        assert wait_until(lambda: is_so() or self.driver.poll() is not None, BOUND_S, 0.02)
        assert self.driver.poll() is None, self.driver.communicate()[0]
        self.processes = psutil.Process(self.driver.pid).children(recursive=True)

    def num_steps(self) -> int:
        lines = self.folder / "metrics.jsonl"
        return len(lines.read_text().splitlines()) if lines.exists() else 0

    def signal_group(self, number: signal.Signals) -> None:
        """As a shell, `timeout` and a terminal do."""
        os.killpg(self.driver.pid, number)

    def end(self) -> str:
        """What it printed, once it has ended."""
        return self.driver.communicate(timeout=BOUND_S)[0]

    def left(self, within_s: float) -> list[str]:
        """The processes that are alive when the time is over."""
        wait_until(lambda: not any(map(_is_alive, self.processes)), within_s)
        return [str(process) for process in self.processes if _is_alive(process)]

    def kill(self) -> None:
        for process in (self.driver, *self.processes):
            with suppress(psutil.NoSuchProcess):  # Popen sends nothing to one that has ended.
                process.kill()
        self.driver.wait()


def start(folder: Path, *arguments: str, **environment: str) -> SignalledRun:
    """`plumbob ARGUMENTS`, whose run is in the folder."""
    driver = subprocess.Popen(
        [sys.executable, "-m", "plumbob.console.cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,
        env=os.environ | environment,
    )
    return SignalledRun(driver, folder)


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
