"""Versions are compared where both sides have a package, and a difference names the worker, the host and both."""

import importlib.metadata
import subprocess
import sys

import pytest

from cluster.packages import check_packages, installed
from configs.errors import UserError

DRIVER = {"python": "3.11", "plumbob": "0.1.0", "torch": "2.13.0", "transformers": "5.1.0", "vllm": "0.32.0"}


def test_the_same_versions_are_accepted() -> None:
    check_packages("rollout-0", "10.0.0.2", DRIVER, DRIVER)
    # The worker's host has no vLLM, the driver's no DeepSpeed.
    scorers = {name: version for name, version in DRIVER.items() if name != "vllm"} | {"deepspeed": "0.19.8"}
    check_packages("reward-0", "10.0.0.2", scorers, DRIVER)


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (
            {"transformers": "5.0.0"},
            "worker rollout-1 on 10.0.0.2 has transformers 5.0.0, the driver has transformers 5.1.0: "
            "install the same on every host",
        ),
        (
            {"python": "3.12", "plumbob": "0.0.9"},
            "worker rollout-1 on 10.0.0.2 has python 3.12, plumbob 0.0.9, the driver has python 3.11, plumbob 0.1.0: "
            "install the same on every host",
        ),
    ],
)
def test_another_version_is_refused(own: dict[str, str], message: str) -> None:
    with pytest.raises(UserError) as refused:
        check_packages("rollout-1", "10.0.0.2", DRIVER | own, DRIVER)
    assert str(refused.value) == message


def test_what_is_installed_is_read_without_importing_it() -> None:
    found = installed()
    assert found["python"] == f"{sys.version_info.major}.{sys.version_info.minor}"
    assert found["ray"] == importlib.metadata.version("ray")
    # A build for a CPU and one for a GPU are of one version.
    assert found["torch"] == importlib.metadata.version("torch").partition("+")[0]
    code = (
        "import sys\nfrom cluster.packages import installed\ninstalled()\n"
        "print([name for name in ('torch', 'transformers', 'ray', 'vllm', 'deepspeed', 'peft') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"
