"""What the driver does without: packages that only its workers need, and that take seconds to import."""

import subprocess
import sys

from tests.support.source_tree import ROOT


def test_the_driver_loads_no_package_that_its_workers_alone_need() -> None:
    code = (
        "import sys, plumbob.driver.api\n"
        "print([name for name in ('peft', 'deepspeed', 'vllm', 'bitsandbytes') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=300
    )
    assert done.stdout.strip() == "[]"
