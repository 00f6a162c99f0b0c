"""Inside a sandbox: a program as a script, from its standard input to its standard output."""

import os
import sys
from types import ModuleType
from typing import Any


def run_script(spec: dict[str, Any]) -> None:
    """Run what the channel has as `__main__`. What it raises is raised."""
    with os.fdopen(spec["channel"], "rb") as channel:
        source = channel.read()
    module = ModuleType("__main__")
    sys.modules["__main__"] = module
    exec(compile(source, "program.py", "exec", dont_inherit=True), module.__dict__)
