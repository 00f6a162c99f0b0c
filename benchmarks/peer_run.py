"""The peer as a process of its own: one of the scripts in `peers/`, which times its own steps."""

import json
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.plumbob_run import SideError, run_process
from benchmarks.workload import Workload

ROOT = Path(__file__).parents[1]
SCRIPTS = {
    "rloo": "online",
    "grpo": "online",
    "dpo": "preference",
    "sft": "supervised",
    "reward": "reward_modelling",
}
"""Method -> its script. There is none for PPO: TRL has no PPO trainer any more."""


@dataclass(frozen=True)
class PeerRun:
    """What one variant of the peer measured of itself.

    Attributes:
        steps: seconds from the end of a step to that of the next, so without the first.
        whole_s: all steps together, with what was computed before them.
        response_tokens: mean length of what it sampled; None where it samples nothing.
    """

    steps: list[float]
    whole_s: float
    response_tokens: float | None

    def seconds(self, work: Workload) -> float:
        """Of a step."""
        return median(self.steps) if work.is_online else self.whole_s / work.num_steps


def run_peer(work: Workload, folder: Path, left_out: Iterable[str] = ()) -> dict[str, PeerRun]:
    """Variant -> its run; "defaults" is one of them. SideError with the last line of what the script said.

    Args:
        left_out: variants that are not run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    given, results = folder / "workload.json", folder / "seconds.json"
    work.write(given)
    results.unlink(missing_ok=True)
    script = f"benchmarks.peers.{SCRIPTS[work.method]}"
    arguments = [str(given), str(results), *left_out]
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    command = ["env", f"PYTHONPATH={path}", "HF_HUB_OFFLINE=1", sys.executable, "-m", script, *arguments]
    run_process(command, folder)
    if not results.exists():
        raise SideError(f"{script} left no seconds")
    found = json.loads(results.read_text(encoding="utf-8"))
    return {name: PeerRun(each["steps"], each["whole"], each.get("response_tokens")) for name, each in found.items()}
