"""Weights that hold NaN or infinities, found in a safetensors file by the bits of its numbers before it is loaded."""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

EXPONENTS: dict[str, tuple[str, int]] = {
    "F64": ("<u8", 0x7FF0_0000_0000_0000),
    "F32": ("<u4", 0x7F80_0000),
    "F16": ("<u2", 0x7C00),
    "BF16": ("<u2", 0x7F80),
}
"""A safetensors type -> the unsigned integer as wide, and its bits of the exponent: all are set in what is not finite
(IEEE 754, section 3.4)."""

MAX_READ = 256 * 2**20
"""Bytes of a file that are read whole: every adapter's, and a small model's."""

MAX_OF_TENSOR = 2**16
"""Bytes that are read of each tensor of a larger file: what diverged is NaN nearly everywhere. Whoever loads such a
file looks at all of it (`models.loading.load_weights`)."""

CHUNK = 16 * 2**20
"""Bytes looked at together."""


@dataclass(frozen=True)
class _Tensor:
    """One of floats in a file: its name, type, and where it lies in the file."""

    name: str
    dtype: str
    begin: int
    end: int


def first_not_finite(path: Path) -> str | None:
    """The name of the first tensor of a file that is not finite everywhere, or, of a large file, at its beginning.

    A file is read once, until it changes. Raises what reading a damaged one raises.
    """
    state = path.stat()
    return _first_not_finite(path.resolve(), state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=256)
def _first_not_finite(path: Path, num_bytes: int, written_ns: int) -> str | None:
    limit = num_bytes if num_bytes <= MAX_READ else MAX_OF_TENSOR
    with path.open("rb") as file:
        for tensor in _tensors(file.read(int.from_bytes(file.read(8), "little"))):
            kind, exponent = EXPONENTS[tensor.dtype]
            file.seek(tensor.begin)
            left = min(tensor.end - tensor.begin, limit)
            while left > 0:
                bits = np.frombuffer(file.read(min(left, CHUNK)), kind)
                if _is_set(bits, exponent):
                    return tensor.name
                left -= CHUNK
    return None


def _is_set(bits: NDArray[np.unsignedinteger], exponent: int) -> bool:
    """Whether one of the numbers has all bits of the exponent."""
    mask = bits.dtype.type(exponent)
    return bool(np.any(np.bitwise_and(bits, mask) == mask))


def _tensors(header: bytes) -> list[_Tensor]:
    """Those of floats, as they lie in the file."""
    found = [
        _Tensor(name, each["dtype"], *(8 + len(header) + offset for offset in each["data_offsets"]))
        for name, each in json.loads(header).items()
        if name != "__metadata__" and each["dtype"] in EXPONENTS
    ]
    return sorted(found, key=lambda tensor: tensor.begin)
