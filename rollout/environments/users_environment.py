"""A user's environment as it is imported: what it must have, and be called with, before any episode begins."""

import inspect
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from plumbob.core.programs.users_code import Refused, load, load_function
from plumbob.rollout.environments.episode_program import ToolCalls


def load_environment(spec: dict[str, Any]) -> tuple[Callable[[], Any], ToolCalls | None]:
    """What makes an episode's object, and what finds calls of tools. Raises Refused, and what the import raises."""
    place, name, arguments = spec["place"], spec["name"], spec["arguments"]
    environment = load(place, name, inspect.isclass, "classes")
    if not inspect.isclass(environment):
        raise Refused(f"{name} in {place} is no class but a {type(environment).__name__}")
    for method, given in (("reset", ({}, 0)), ("step", ({},))):
        function = getattr(environment, method, None)
        expected = "reset(self, row, seed)" if method == "reset" else "step(self, turn)"
        if not callable(function):
            raise Refused(f"{name} has no {method}; expected {expected}")
        if not _takes(function, (None, *given), {}):
            raise Refused(f"{name}.{method}{inspect.signature(function)} takes other arguments; expected {expected}")
    if not _takes(environment, (), arguments):
        raise Refused(f"{name}{inspect.signature(environment)} does not take arguments={json.dumps(arguments)}")
    tool_calls = load_function(*spec["tool_calls"]) if spec["tool_calls"] else None
    if (taken := _data_bytes()) > spec["memory_bytes"]:
        raise Refused(
            f"its import alone takes {taken / 2**30:.2f} GiB, and memory_gib has {spec['memory_bytes'] / 2**30:g}"
        )
    return lambda: environment(**arguments), tool_calls


def _data_bytes() -> int:
    """What this process has allocated, as the limit counts it."""
    (found,) = re.findall(r"VmData:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found) * 1024


def _takes(function: Callable[..., Any], given: tuple[Any, ...], named: dict[str, Any]) -> bool:
    try:
        inspect.signature(function).bind(*given, **named)
    except TypeError:
        return False
    return True
