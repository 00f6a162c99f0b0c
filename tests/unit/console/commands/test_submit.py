"""`plumbob submit`: every launcher's own options, and what is imported to write a file."""

import subprocess
import sys
from pathlib import Path

import pytest

from plumbob.console.cli import main

PPO = [
    *("ppo", "policy.model=/models/policy", "reward.model=/models/reward", "data.prompts=/data/p.jsonl"),
    "storage.path=/shared/runs",
]


@pytest.mark.parametrize("options", [["slurm"], ["kuberay", "--image", "i", "--claim", "c"]])
def test_a_file_is_written_without_torch(options: list[str]) -> None:
    code = (
        "import sys\nfrom plumbob.console.cli import main\n"
        f"assert main(['submit', *{PPO!r}, '--render', *{options!r}]) == 0\n"
        "print([name for name in ('torch', 'transformers', 'vllm') if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr.splitlines()[-1] == "[]" and "was not checked" in done.stderr and "plumbob" in done.stdout


def test_what_pods_and_hosts_have_to_hold_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A pod has as much as `memory_gib` says, and its kernel ends what takes more."""
    small = ("data.toy.num_texts=200", "data.toy.num_demonstrations=20", "data.toy.num_pairs=20")
    asked = ["submit", "toy", *small, f"storage.path={tmp_path}", "learner.memory_gib=0.5"]
    assert main([*asked, "--render", "kuberay", "--image", "i", "--claim", "c"]) == 0
    shown = capsys.readouterr()
    (learner,) = (line for line in shown.err.splitlines() if "memory: learner: about 0.708 GiB each" in line)
    assert learner.endswith(
        "learner.memory_gib=0.5 is less, so that hosts may be filled past their memory: set learner.memory_gib=0.8"
    )
    assert "are free" not in shown.err and shown.out.startswith("apiVersion: ")  # Of what nodes there will be.


def test_help_names_the_launcher_of_each_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["submit", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for option in (
        "--no-wait --address: do not follow what the run prints",
        "--image IMAGE --render kuberay: the container image, with Plumbob in it",
        "--hosts N --render slurm: equal hosts",
    ):
        assert option in shown
