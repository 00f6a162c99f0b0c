"""What other packages import and nobody needs: hidden (`hidden`), or not given to torch's compiler (`uncompiled`)."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

IS_OFF = "TORCHDYNAMO_DISABLE"
"""Read by torch.compile when it is called."""


@contextmanager
def hidden(package: str) -> Iterator[None]:
    """Inside, to import the package raises ImportError, unless it has been imported before."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]  # Python's own sign for that.
    try:
        yield
    finally:
        del sys.modules[package]


@contextmanager
def uncompiled() -> Iterator[None]:
    """Around imports of PEFT: functions that are decorated with torch.compile inside stay as they are.

    PEFT imports bitsandbytes, which decorates spare kernels for devices that have none of their own. CPUs and CUDA have
    their own for all but odd shapes, which are computed uncompiled then. torch's compiler would be imported for that
    alone: a second of CPU, and 40 MB. It sets a variable of the process for as long: one thread at a time.
    """
    before = os.environ.get(IS_OFF)
    os.environ[IS_OFF] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[IS_OFF]
        else:
            os.environ[IS_OFF] = before
