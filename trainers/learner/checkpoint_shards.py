"""A learner's state in files: each rank writes a shard of it, and a rank of any other world reads what it asks for."""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from plumbob.trainers.learner.engine import Rank

NUM_FILES = "num_files"
"""In the metadata of each file: how many there are, as the folder's listing on another host may not tell yet."""

DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.int32: "I32", torch.uint8: "U8"}
"""By safetensors' names."""

FILLER, ALIGNMENT = "filler.", 8
"""Of the tensors that are there so that others begin at a multiple of so many bytes."""

TENSORS_OF_A_NAME, ENTRY_BYTES = 12, 256
"""At most: tensors of one parameter with their fillers, and what each takes in a file's header beside its name."""


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


def in_buckets(sizes: Mapping[str, int], most: int) -> tuple[tuple[str, ...], ...]:
    """The names in their order, in as few parts as hold no more than `most` each, but of one that is larger."""
    buckets: list[list[str]] = []
    held = 0
    for name, size in sizes.items():
        if not buckets or held + size > most:
            buckets.append([])
            held = 0
        buckets[-1].append(name)
        held += size
    return tuple(map(tuple, buckets))


def file_name(index: int) -> str:
    return f"learner-{index}.safetensors"


def write_shard(tensors: Iterable[tuple[str, Tensor]], names: Collection[str], folder: Path, rank: Rank) -> str:
    """What a rank has to write, as of `write_tensors`. Returns the file's name."""
    write_tensors(folder / file_name(rank.index), tensors, names, {NUM_FILES: str(rank.world_size)})
    return file_name(rank.index)


def write_tensors(
    path: Path, tensors: Iterable[tuple[str, Tensor]], names: Collection[str], metadata: Mapping[str, str]
) -> None:
    """A safetensors file of what comes, one tensor at a time: none is kept.

    safetensors' own `save_file` has all of them at once, which for a shard of a model is as much as the optimizer
    keeps of it. The header, which comes first, is written last, into room that is left for it.

    Args:
        tensors: name and CPU tensor; at most `TENSORS_OF_A_NAME` of each parameter.
        names: of the parameters.
    """
    room = 1024 + sum(TENSORS_OF_A_NAME * (len(one) + ENTRY_BYTES) for one in names)
    room += -room % ALIGNMENT
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    with path.open("wb") as file:
        file.seek(8 + room)
        for key, tensor in _aligned(tensors):
            end += file.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
            offsets = [end - tensor.nbytes, end]
            header[key] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
        content = json.dumps(header).encode()
        assert len(content) <= room, "more tensors than their names let expect"
        file.seek(0)
        file.write(room.to_bytes(8, "little") + content.ljust(room))


def _aligned(tensors: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    for index, (name, tensor) in enumerate(tensors):
        yield name, tensor
        if missing := -tensor.nbytes % ALIGNMENT:
            yield f"{FILLER}{index}", torch.zeros(missing, dtype=torch.uint8)


@contextmanager
def open_shards(folder: Path) -> Iterator[Mapping[str, Tensor]]:
    """All that the ranks wrote, by name."""
    with ExitStack() as opened:

        def file_of(index: int) -> Any:
            return opened.enter_context(safe_open(folder / file_name(index), "pt"))

        first = file_of(0)
        others = [file_of(index) for index in range(1, int(first.metadata()[NUM_FILES]))]
        named = ((name, file) for file in (first, *others) for name in file.keys())  # noqa: SIM118
        yield LazyTensors({name: file for name, file in named if not name.startswith(FILLER)})


@contextmanager
def on_disk_meanwhile(
    tensors: Iterable[tuple[str, Tensor]], names: Collection[str], folder: Path
) -> Iterator[Mapping[str, Tensor]]:
    """The same tensors by name, none of which is in memory before it is read: they are in a file as long as asked for.

    What is read of them is the file's pages, which the system may drop again.
    """
    path = folder / ".parameters"
    try:
        write_tensors(path, tensors, names, {})
        with safe_open(path, "pt") as file:
            yield LazyTensors({name: file for name in file.keys() if not name.startswith(FILLER)})  # noqa: SIM118
    finally:
        path.unlink(missing_ok=True)


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
