"""`plumbob submit`: every launcher's own options, and what is imported to write a file."""

import subprocess
import sys

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
