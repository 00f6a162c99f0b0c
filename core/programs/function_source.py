"""Where the functions and classes are that a user brings: `file.py:name`, `package.module:name`; nothing is run."""

import hashlib
import importlib.util
from collections.abc import Iterable, Iterator, Mapping
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from plumbob.core.errors import UserError

SOURCE_SUFFIX = ".py"
"""By which a file with a function is told from a module."""


def source_file(function: str, key: str = "function") -> Path:
    """The file that a function stands in. Nothing of it is run, nor of the packages that a module is in.

    Args:
        key: the setting that names it, for what is raised.

    Raises:
        UserError: there is no such file or module on this host, or it is no Python source.
    """
    module, _, _ = function.rpartition(":")
    if module.endswith(SOURCE_SUFFIX):
        path = Path(module).expanduser().absolute()
        if not path.is_file():
            raise UserError(
                f"{key}={function}: there is no such file on this host; put it where every host can read it"
            )
        return path
    spec = _spec_of(module)
    if spec is None or spec.origin is None or not spec.origin.endswith(SOURCE_SUFFIX):
        raise UserError(
            f"{key}={function}: no Python source of a module {module} is installed here; install its package where "
            f"every host has it, or name a file: FILE.py:{function.rpartition(':')[2]}"
        )
    return Path(spec.origin)


def source_digests(named: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Of (key, function) each function -> SHA-256 of the file that it stands in. UserError as `source_file`."""
    return {function: digest_of_source(function, key) for key, function in named}


def digest_of_source(function: str, key: str = "function") -> str:
    """SHA-256 of the file that a function stands in. UserError as `source_file`, and where it cannot be read."""
    path = source_file(function, key)
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"{key}={function}: {path} cannot be read: {error.strerror}") from error


def changed_sources(now: Mapping[str, str], before: Mapping[str, str]) -> Iterator[str]:
    """Functions whose file is another than it was; one that there was no digest of is passed over."""
    return (function for function, digest in now.items() if before.get(function, digest) != digest)


def _spec_of(module: str) -> ModuleSpec | None:
    """As `importlib.util.find_spec`, which would import the packages that the module is in."""
    first, *below = module.split(".")
    try:
        spec = importlib.util.find_spec(first)
    except ValueError:  # A module without a spec, such as `__main__`.
        return None
    name = first
    for part in below:
        if spec is None or spec.submodule_search_locations is None:
            return None
        name = f"{name}.{part}"
        spec = PathFinder.find_spec(name, list(spec.submodule_search_locations))
    return spec
