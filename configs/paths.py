"""Where the models, files and functions lie that a run's settings name: absolute paths, packages, and the cache."""

import hashlib
import importlib.util
import os
from pathlib import Path
from typing import NamedTuple, TypeVar

from plumbob.configs.base import IsFile, IsFunction, IsModel
from plumbob.configs.runs import Run
from plumbob.configs.schema import marked_texts, with_marked_texts
from plumbob.core.outside import from_outside
from plumbob.core.programs.function_source import SOURCE_SUFFIX

ADAPTER_CONFIG_FILE = "adapter_config.json"
"""PEFT's, by which the folder of an adapter is told from that of a full model."""

OPEN_IT = "the user who runs this has to have the right to enter the folders above it"

R = TypeVar("R", bound=Run)


def with_absolute_paths(config: R) -> R:
    """Folders of models, files of data and files with functions by their absolute paths.

    A worker may be another host's, with a working folder of its own, and a run may be resumed from another folder.
    """
    located = with_marked_texts(with_marked_texts(config, IsModel, absolute), IsFile, _absolute_file)
    return with_marked_texts(located, IsFunction, _absolute_function)


class NamedInputs(NamedTuple):
    """What a run's settings name, each with its dotted key: (key, name)."""

    files: tuple[tuple[str, str], ...]
    models: tuple[tuple[str, str], ...]
    functions: tuple[tuple[str, str], ...]


def named_inputs(config: Run) -> NamedInputs:
    return NamedInputs(*(tuple(marked_texts(config, mark)) for mark in (IsFile, IsModel, IsFunction)))


def _absolute_file(path: str) -> str:
    """A file, folder or pattern of files, whether it is there or not."""
    return str(Path(path).expanduser().absolute())


def _absolute_function(function: str) -> str:
    """One in a file by the file's absolute path, one in a module as it is."""
    source, _, name = function.rpartition(":")
    return f"{_absolute_file(source)}:{name}" if source.endswith(SOURCE_SUFFIX) else function


def absolute(base: str) -> str:
    """A folder by its absolute path, a hub name as it is."""
    folder = Path(base).expanduser()
    return str(folder.resolve()) if is_folder(folder) else base


def is_folder(path: Path) -> bool:
    """Whether it is one. Raises UserError where a folder above it may not be entered."""
    with from_outside(f"{path}: cannot be looked at", OPEN_IT):
        return path.is_dir()


def is_there(path: Path) -> bool:
    """Whether there is a file or a folder. Raises UserError as `is_folder`."""
    with from_outside(f"{path}: cannot be looked at", OPEN_IT):
        return path.exists()


def folders_of_base(adapter: Path, base: str) -> tuple[Path, ...]:
    """Where a relative base of an adapter may lie, in the order in which it is looked for; none for other names.

    PEFT writes the base as it was named where the adapter was trained, which is another working folder than this one.

    Args:
        adapter: its folder.
        base: what its config names.
    """
    if not base or is_of_package(base) or Path(base).expanduser().is_absolute():
        return ()
    return adapter / base, adapter.absolute().parent / base, Path(base).absolute()


def may_be_adapter(name: str) -> bool:
    """Whether a model's name is, or may be on another host, the folder of an adapter: hub names are full models.

    For what must be known before a model is opened, such as how many workers a run has.
    """
    folder = Path(name).expanduser()
    if is_folder(folder):
        return is_there(folder / ADAPTER_CONFIG_FILE)
    return folder.is_absolute() or is_of_package(name)


# ------------------------------------------------------------------------------------------- models inside of packages

PACKAGE_PREFIX = "package:"


def is_of_package(name: str) -> bool:
    """Whether a model's name is `package:NAME/FOLDER`."""
    return name.startswith(PACKAGE_PREFIX)


def installed_folder(name: str) -> Path | None:
    """The folder that `package:NAME/FOLDER` is where the Python package is installed; else None. Nothing is imported.

    Raises:
        ValueError: the package's name is none.
    """
    package, _, inner = name.removeprefix(PACKAGE_PREFIX).partition("/")
    if not package.isidentifier() or ".." in Path(inner).parts:  # A dotted name would be imported to be found.
        raise ValueError(f"{package!r} is no name of a package, or {inner!r} leaves it")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / inner


def gguf_file_in(folder: Path) -> Path | None:
    """The only GGUF file of a folder that has no config.json of a model; else None."""
    files = sorted(folder.glob("*.gguf"))
    return files[0] if len(files) == 1 and not (folder / "config.json").exists() else None


def plain_model_name(gguf: Path) -> str:
    """Under which the cache has the model of a GGUF file in plain form: its name, and a digest of what is in it."""
    with gguf.open("rb") as opened:
        return f"{gguf.stem}-{hashlib.file_digest(opened, 'sha256').hexdigest()[:16]}"


def cached_folder(name: str) -> Path:
    """Where the cache (`XDG_CACHE_HOME`, or ~/.cache) has a model, or would have it."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "plumbob" / "models" / name
