"""What is looked at of packages and the machine."""

from pathlib import Path

import pytest

from plumbob.console.diagnosis import arithmetic, machine
from plumbob.console.diagnosis.arithmetic import autocast_advice, cpu_flags, flags_check, matrix_products_check
from plumbob.console.diagnosis.installed_packages import TESTED, package_check, untested
from plumbob.console.diagnosis.machine import ports_check, shared_memory_check
from plumbob.console.diagnosis.machine_check import MachineCheck, busy, line
from tests.support.source_tree import ROOT


def test_versions_are_told_apart() -> None:
    assert package_check("pydantic", ">=2.14").ok
    old = package_check("pydantic", ">=99")
    assert (old.ok, old.advice) == (False, 'run `pip install "pydantic>=99"`')
    missing = package_check("no-such-package-of-ours", ">=1")
    assert (missing.ok, missing.found) == (False, "not installed")


def test_the_table_of_what_was_tested_is_what_is_locked() -> None:
    lines = (ROOT / "requirements" / "cpu.lock").read_text().splitlines()
    locked = dict(text.split()[0].split("==") for text in lines if "==" in text)
    assert {name: locked[name].partition("+")[0] for name in TESTED} == TESTED
    assert untested("torch", f"{TESTED['torch']}+cpu") == "" and untested("pydantic", "0.1") == ""
    assert untested("torch", "2.14.0") == (
        f'tested with {TESTED["torch"]}: where something fails, run `pip install "torch=={TESTED["torch"]}"`'
    )


def test_what_a_processor_has(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(
        "processor\t: 0\nflags\t\t: fpu avx2 avx512f amx_tile amx_bf16\n\nprocessor\t: 1\nflags\t\t: fpu\n"
    )
    assert cpu_flags(cpuinfo.read_text()) >= {"avx2", "amx_bf16"}
    assert flags_check(cpuinfo) == MachineCheck("cpu", True, "AVX2, AVX-512, AMX BF16; not AVX-512 BF16")
    cpuinfo.write_text("flags\t\t: fpu sse2\n")
    old = flags_check(cpuinfo)
    assert not old.ok and old.found.startswith("none of these; not AVX2") and "kind=transformers" in old.advice
    assert flags_check(tmp_path / "none").ok


def test_products_are_measured_and_autocast_advised_where_it_gains(monkeypatch: pytest.MonkeyPatch) -> None:
    assert autocast_advice(2.5) == "learner.autocast=true makes a learner's matrix products up to 2.5 times as fast"
    assert "gains nothing" in autocast_advice(1.1)
    monkeypatch.setattr(arithmetic, "SIZE", 128)
    monkeypatch.setattr(arithmetic, "MEASURED_S", 0.01)
    found = matrix_products_check()
    assert found.ok and "GFLOP/s in float32" in found.found and found.advice


def test_what_is_short_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ports_check().ok
    monkeypatch.setattr(machine, "MIN_SHARED_MEMORY_GIB", 1e9)
    short = shared_memory_check()
    assert not short.ok and "--shm-size" in short.advice
    assert line(short).startswith("problem  shared memory: /dev/shm has ") and line(short).endswith(short.advice)
    assert line(MachineCheck("disk", True, "fine")) == "ok       disk: fine"


def test_a_time_that_was_measured_beside_others_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr("os.getloadavg", lambda: (9.4, 9, 9))
    assert busy() == ", while 9 processes wanted 2 CPUs: run it again once the machine is idle"
    monkeypatch.setattr("os.getloadavg", lambda: (2.9, 9, 9))
    assert busy() == ""
