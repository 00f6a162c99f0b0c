"""What `plumbob doctor` looks at."""

from pathlib import Path

from plumbob.console.commands.doctor import examine, package_check


def test_doctor_tells_versions_apart() -> None:
    assert package_check("pydantic", ">=2.14").ok
    old = package_check("pydantic", ">=99")
    assert (old.ok, old.advice) == (False, 'run `pip install "pydantic>=99"`')
    missing = package_check("no-such-package-of-ours", ">=1")
    assert (missing.ok, missing.found) == (False, "not installed")


def test_doctor_looks_at_everything_and_every_problem_has_its_mend(tmp_path: Path) -> None:
    checks = examine(tmp_path)
    names = {"python", "torch", "ray", "deepspeed", "peft", "vllm", "device", "memory", "shared memory", "disk"}
    assert names <= {check.name for check in checks}
    assert all(check.ok or check.advice for check in checks)
