"""`plumbob serve-reward` as a process of its own."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PLUMBOB = [sys.executable, "-c", "import sys; from plumbob.console.cli import main; sys.exit(main())"]


@contextmanager
def serving(folder: Path, *options: str, **variables: str) -> Iterator[str]:
    """The address that a server of the model in the folder says it scores at."""
    command = [*PLUMBOB, "serve-reward", str(folder), "--port=0", "--max-tokens=32", *options]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **variables})
    try:
        assert server.stdout is not None
        said = server.stdout.readline()
        assert " scores batches at " in said, said
        yield said.split()[-1]
    finally:
        server.terminate()
        server.wait(60)
