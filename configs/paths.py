"""What a run's settings name, models, files and functions, by absolute paths: any working folder finds them."""

from pathlib import Path
from typing import NamedTuple, TypeVar

from plumbob.configs.base import IsFile, IsFunction, IsModel
from plumbob.configs.runs import Run
from plumbob.configs.schema import marked_texts, with_marked_texts
from plumbob.core.programs.function_source import SOURCE_SUFFIX

ADAPTER_CONFIG_FILE = "adapter_config.json"
"""PEFT's, by which the folder of an adapter is told from that of a full model."""

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
    place, _, name = function.rpartition(":")
    return f"{_absolute_file(place)}:{name}" if place.endswith(SOURCE_SUFFIX) else function


def absolute(base: str) -> str:
    """A folder by its absolute path, a hub name as it is."""
    folder = Path(base).expanduser()
    return str(folder.resolve()) if folder.is_dir() else base


def folders_of_base(adapter: Path, base: str) -> tuple[Path, ...]:
    """Where a relative base of an adapter may lie, in the order in which it is looked for; none for other names.

    PEFT writes the base as it was named where the adapter was trained, which is another working folder than this one.

    Args:
        adapter: its folder.
        base: what its config names.
    """
    if not base or base.startswith("package:") or Path(base).expanduser().is_absolute():
        return ()
    return adapter / base, adapter.absolute().parent / base, Path(base).absolute()


def may_be_adapter(name: str) -> bool:
    """Whether a model's name is, or may be on another host, the folder of an adapter: hub names are full models.

    For what must be known before a model is opened, such as how many workers a run has.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return (folder / ADAPTER_CONFIG_FILE).exists()
    return folder.is_absolute() or name.startswith("package:")
