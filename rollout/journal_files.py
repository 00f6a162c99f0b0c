"""Where the steps of a journal are: each a Parquet file, or a folder with a file of each of those who wrote it.

```
 rollouts/step-000012.parquet                    one writer
 rollouts/step-000013.parquet/part-0000.parquet  several: together the step, which has its name once all are whole
                              part-0001.parquet
```
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from plumbob.core.atomic_files import make_folder, replaced
from plumbob.core.errors import RunFailed


def step_file(folder: Path, step: int) -> Path:
    return folder / f"step-{step:06d}.parquet"


def step_files(folder: Path) -> list[Path]:
    """Of all steps that the journal has, in order, each a file or a folder of files; none where there is no journal."""
    # Past step 999,999 a name has more digits, and text would sort it before the others.
    return sorted(folder.glob("step-*.parquet"), key=lambda path: (len(path.name), path.name))


@contextmanager
def step_writers(folder: Path, step: int, num_writers: int) -> Iterator[list[Path]]:
    """Where each writer is to put its rows of a step, which appears whole or not at all when the block ends.

    A single one writes the step's file; several a file each, in a folder of that name. One that is there is replaced.
    """
    make_folder(folder)
    path = step_file(folder, step)
    if num_writers == 1:
        if path.is_dir():
            shutil.rmtree(path)
        yield [path]
        return
    if path.is_file():
        path.unlink()
    with replaced(path) as partial:
        yield [partial / f"part-{writer:04d}.parquet" for writer in range(num_writers)]


def check_written(path: Path, size: int) -> None:
    """Raises RunFailed where a writer's file cannot be seen from here, or has not its size: folders must be shared."""
    try:
        found = path.stat().st_size
    except OSError as error:
        raise RunFailed(f"{path} was written and cannot be read by the driver: {error.strerror}") from error
    if found != size:
        raise RunFailed(f"{path}: {size} bytes were written; the driver sees {found}")


def files_of(step: Path) -> list[Path]:
    """The files of one step, in the order of its rows: its own, or those of its writers."""
    return sorted(step.glob("part-*.parquet")) if step.is_dir() else [step]
