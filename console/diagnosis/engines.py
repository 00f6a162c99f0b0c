"""Each engine in a process of its own, bounded in time: one that crashes or hangs is a finding, and ends nothing."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from plumbob.console.diagnosis.machine_check import MachineCheck, busy

TIMEOUT_S, DEEP_TIMEOUT_S = 90.0, 240.0
"""How long an engine may take, with the import of its packages; and those that start one whole."""

ENDING_S = 5.0
"""How long what a process printed is waited for when it has been ended."""

ENGINES = ("ray", "transformers", "deepspeed", "bitsandbytes", "vllm")
DEEP_ENGINES = ("vllm-engine",)
"""Besides them, with `--deep`. Of names in `engine_program.TESTS`."""

AT_ONCE = 2
"""Each takes one core or so."""

ADVICE = {
    "ray": 'run `pip install "ray[default]"` at the version above, or set RAY_TMPDIR to a folder that can be written',
    "transformers": "install transformers and torch anew at the versions above",
    "deepspeed": "install deepspeed and torch anew at the versions above",
    "bitsandbytes": "leave out policy.quantization and learner.optimizer=adamw_8bit, or install bitsandbytes anew",
    "vllm": "set rollout.engine.kind=transformers, or install the extra `cpu` or `gpu` anew",
    "vllm-engine": "set rollout.engine.kind=transformers; VLLM_LOGGING_LEVEL=DEBUG says more",
}
PROGRAM = (sys.executable, "-m", "plumbob.console.diagnosis.engine_program")


def engine_checks(deep: bool) -> list[MachineCheck]:
    """Of all engines, some at once."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(engine_check, (*ENGINES, *(DEEP_ENGINES if deep else ()))))


def engine_check(name: str, command: Sequence[str] = PROGRAM, timeout_s: float | None = None) -> MachineCheck:
    """One engine, by a process that is ended after `timeout_s`; None gives it as long as its kind is given."""
    limit = timeout_s or (DEEP_TIMEOUT_S if name in DEEP_ENGINES else TIMEOUT_S)
    label = f"{name} works"
    process = subprocess.Popen(
        [*command, name],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        answer, printed = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        return MachineCheck(label, False, f"no answer within {limit:g} s{busy()}", ADVICE[name], limit)
    finally:
        _end(process)
    try:
        found = json.loads(answer)
    except json.JSONDecodeError:
        status = process.returncode
        how = signal.Signals(-status).name if status < 0 else f"status {status}"
        last = next((text.strip() for text in reversed(printed.splitlines()) if text.strip()), "it printed nothing")
        return MachineCheck(label, False, f"its process ended with {how}: {last}", ADVICE[name])
    advice = "" if found["ok"] else ADVICE[name]
    return MachineCheck(label, found["ok"], f"{found['found']} ({found['seconds']:.1f} s)", advice, found["seconds"])


def _end(process: "subprocess.Popen[str]") -> None:
    """What it started in its process group ends with it."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired, ValueError):
        process.communicate(timeout=ENDING_S)
