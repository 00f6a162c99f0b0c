"""What Ray's workers import (WorkerImports): the source that the driver runs, and nothing of its working folder."""

import site
from pathlib import Path

from ray.job_config import JobConfig

from plumbob.cluster.workers.code_digest import package_folder


class WorkerImports(JobConfig):
    """A job whose workers look for the driver's own source first, then among what their host has installed.

    By itself Ray (2.60, `ray._private.worker.connect`) puts the driver's working folder and the folder of its script
    before all that. A `models.py` or a clone of Plumbob that a user happens to stand beside would be taken for ours.
    """

    def __init__(self) -> None:
        super().__init__(_py_driver_sys_path=source_path())

    def _runtime_env_has_working_dir(self) -> bool:
        """Ray asks this in order to add those folders or not, and for nothing else."""
        return True


def source_path() -> list[str]:
    """The folder that has the package that this process runs; none where every Python of this host finds it anyway."""
    folder = package_folder().parent
    installed = [*site.getsitepackages(), site.getusersitepackages()]
    return [] if folder in [Path(path).resolve() for path in installed] else [str(folder)]
