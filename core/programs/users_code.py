"""Code of the user's as a process sees it that runs it: imported afresh, bounded, its errors in the user's own lines.

Imports nothing but the standard library, so that such a process starts at once and holds nothing of a run.
"""

import importlib
import importlib.machinery
import importlib.util
import inspect
import json
import os
import resource
import struct
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, BinaryIO

HEADER = struct.Struct(">Q")
"""Before a message, which is JSON: its length in bytes."""

BEGIN = "import sys; sys.path.append({ours!r}); from {module} import main; sys.path.pop(); main()"
"""What a process of ours begins with: its program, wherever this package is, and nothing else of ours in its way."""

MAX_TRACEBACK_LINES = 12
MAX_LINE = 300
MAX_FLOAT32 = 3.4e38
"""What is larger is infinite to the learner."""

Failure = dict[str, Any]
"""`failure`, by which such are counted, and `detail`, the lines of a traceback where there is one."""


class Refused(Exception):  # noqa: N818 - a refusal of what the user named, told on the other side
    """It is nothing that can be called as it would be."""


def read_message(stream: BinaryIO) -> Any:
    """The next message; None where the other side has gone."""
    header = stream.read(HEADER.size)
    if len(header) < HEADER.size:
        return None
    return json.loads(stream.read(HEADER.unpack(header)[0]))


def limit(kind: int, most: int) -> None:
    """Bound what this process may have of a resource."""
    _, hard = resource.getrlimit(kind)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(kind, (most, most))


def load(place: str, name: str, is_such: Callable[[Any], bool], kinds: str) -> Any:
    """What is called so in a file or a module, which is imported afresh; whatever that raises.

    Args:
        is_such: what a refusal lists, and `kinds` what it calls them: functions or classes.

    Raises:
        Refused: there is nothing of that name.
    """
    sys.path[:0] = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    module = _module_of(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    found = getattr(module, name, None)
    if found is None:
        near = [one for one, value in vars(module).items() if is_such(value)]
        raise Refused(f"{place} has no {name}; its {kinds}: {', '.join(near) or 'none'}")
    return found


def load_function(place: str, name: str) -> Callable[..., Any]:
    """As `load`. Raises Refused where it is no function."""
    function = load(place, name, inspect.isfunction, "functions")
    if not callable(function) or inspect.isclass(function):
        kind = "class" if inspect.isclass(function) else type(function).__name__
        raise Refused(f"{name} in {place} is no function but of type {kind}")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise Refused(f"{name} in {place} yields its values; it is to return them")
    return function


class _FreshSource(importlib.machinery.SourceFileLoader):
    """Compiles the source as it is now. Bytecode that is kept for it is told from older by size and second alone."""

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.get_data(self.path), self.path, "exec", dont_inherit=True)


def _module_of(path: Path) -> ModuleType:
    """A file as a module, whose neighbours it can import; it takes no other module's name from it."""
    name = path.stem if path.stem not in sys.modules and path.stem not in sys.stdlib_module_names else f"_{path.stem}"
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(name, path, loader=_FreshSource(name, str(path)))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def failure_of(error: BaseException, *own: str) -> Failure:
    what = traceback.format_exception_only(error)[-1].splitlines()
    return {"failure": what[0][:MAX_LINE] if what else type(error).__name__, "detail": users_lines(error, *own)}


def users_lines(error: BaseException, *own: str) -> list[str]:
    """The last lines of its traceback, without those that are ours.

    Args:
        own: the files of ours through which the user's code was called.
    """
    found = traceback.TracebackException.from_exception(error)
    ours = (*own, __file__)
    frames = [frame for frame in found.stack if frame.filename not in ours and "importlib" not in frame.filename]
    found.stack = traceback.StackSummary.from_list(frames)
    lines = [line for text in found.format() for line in text.splitlines()]
    return [line[:MAX_LINE] for line in lines[-MAX_TRACEBACK_LINES:]]
