"""A learner's state in files: each rank writes a share of it, and a rank of any other world reads what it asks for."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from plumbob.trainers.learner.engine import Rank

NUM_FILES = "num_files"
"""In the metadata of each file: how many there are, as the folder's listing on another host may not tell yet."""


def shard_of(sizes: Mapping[str, int], rank: Rank) -> frozenset[str]:
    """Which of these a rank writes, about as much as any other: the largest first, each to whoever has the least."""
    loads = [0] * rank.world_size
    mine = set()
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        least = loads.index(min(loads))
        loads[least] += sizes[name]
        if least == rank.index:
            mine.add(name)
    return frozenset(mine)


def file_name(index: int) -> str:
    return f"learner-{index}.safetensors"


def write_shard(tensors: Mapping[str, Tensor], folder: Path, rank: Rank) -> str:
    """The name of the file."""
    name = file_name(rank.index)
    save_file(dict(tensors), folder / name, {NUM_FILES: str(rank.world_size)})
    return name


@contextmanager
def open_shards(folder: Path) -> Iterator[Mapping[str, Tensor]]:
    """All that the ranks wrote, by name."""
    with ExitStack() as opened:

        def file_of(index: int) -> Any:
            return opened.enter_context(safe_open(folder / file_name(index), "pt"))

        first = file_of(0)
        others = [file_of(index) for index in range(1, int(first.metadata()[NUM_FILES]))]
        yield LazyTensors({name: file for file in (first, *others) for name in file.keys()})  # noqa: SIM118


class LazyTensors(Mapping[str, Tensor]):
    """Tensors that are read when they are asked for: all together may be more than a host's memory holds."""

    def __init__(self, files: Mapping[str, Any]) -> None:
        self._files = files

    def __getitem__(self, name: str) -> Tensor:
        tensor: Tensor = self._files[name].get_tensor(name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)
