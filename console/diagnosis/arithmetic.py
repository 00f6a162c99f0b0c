"""What this machine's CPUs multiply, in float32 and in bfloat16: what `learner.autocast` would gain here."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from plumbob.console.diagnosis.machine_check import MachineCheck, busy

SIZE = 1024
"""Rows and columns of the matrices: a product takes 2 SIZE^3 operations."""

MEASURED_S = 0.4
"""Of each kind of number, after one product that is not counted."""

GAIN = 1.2
"""By what bfloat16 must be faster for it to be advised: a step is more than its matrix products."""

KINDS = {"avx2": "AVX2", "avx512f": "AVX-512", "avx512_bf16": "AVX-512 BF16", "amx_bf16": "AMX BF16"}
"""Flag of Linux -> what Intel and AMD call it."""


def flags_check(cpuinfo: Path = Path("/proc/cpuinfo")) -> MachineCheck:
    """What the CPUs have, as Linux says it. vLLM's build for CPUs needs AVX2."""
    if not cpuinfo.is_file():
        return MachineCheck("cpu", True, "this system does not say what its CPUs have")
    flags = cpu_flags(cpuinfo.read_text())
    if not flags:  # Of another architecture, such as ARM.
        return MachineCheck("cpu", True, "no x86 processor")
    has, not_there = [[name for flag, name in KINDS.items() if (flag in flags) is there] for there in (True, False)]
    found = f"{', '.join(has) or 'none of these'}" + (f"; not {', '.join(not_there)}" if not_there else "")
    if "avx2" in flags:
        return MachineCheck("cpu", True, found)
    return MachineCheck("cpu", False, found, "vLLM's build for CPUs needs AVX2: set rollout.engine.kind=transformers")


def cpu_flags(cpuinfo: str) -> frozenset[str]:
    """Of the first processor."""
    for text in cpuinfo.splitlines():
        name, _, value = text.partition(":")
        if name.strip() == "flags":
            return frozenset(value.split())
    return frozenset()


def matrix_products_check() -> MachineCheck:
    """Measured with as many threads as torch takes here."""
    import torch

    began = time.monotonic()
    rates = {}
    for dtype in (torch.float32, torch.bfloat16):
        left = torch.randn(SIZE, SIZE).to(dtype)
        rates[dtype] = operations_per_s(partial(torch.matmul, left, left))
    single, half = rates[torch.float32], rates[torch.bfloat16]
    found = (
        f"{single / 1e9:.0f} GFLOP/s in float32, {half / 1e9:.0f} in bfloat16 ({half / single:.2g} times), "
        f"{torch.get_num_threads()} threads{busy()}"
    )
    advice = autocast_advice(half / single)
    return MachineCheck("matrix products", True, found, advice, time.monotonic() - began)


def operations_per_s(product: Callable[[], Any]) -> float:
    """Of the fastest product: what disturbs one only makes it slower."""
    product()
    fastest, end = float("inf"), time.monotonic() + MEASURED_S
    while time.monotonic() < end:
        began = time.perf_counter()
        product()
        fastest = min(fastest, time.perf_counter() - began)
    return 2 * SIZE**3 / fastest


def autocast_advice(ratio: float) -> str:
    """`ratio`: how many times as many products in bfloat16."""
    if ratio >= GAIN:
        return f"learner.autocast=true makes a learner's matrix products up to {ratio:.2g} times as fast"
    return "learner.autocast=true gains nothing here but memory"
