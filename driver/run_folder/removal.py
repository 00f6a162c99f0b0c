"""Removing a run: only a folder that is one, and none that a driver is at work on."""

import shutil
from pathlib import Path

from plumbob.configs.resolved_copy import RESOLVED_FILE
from plumbob.core.errors import UserError
from plumbob.core.outside import from_outside
from plumbob.driver.run_folder.folder import CLUSTER_FILE
from plumbob.driver.run_folder.listed_run import driver_at_work
from plumbob.driver.run_folder.lock import LOCK_FILE, locked_folder


def check_removable(folder: Path) -> None:
    """Raises UserError when the folder is no run, is a link, or a driver is at work there."""
    if folder.is_symlink():
        raise UserError(f"{folder}: is a link; remove the run that it names, {folder.resolve()}, and then the link")
    if not (folder / RESOLVED_FILE).is_file():
        raise UserError(f"{folder}: this is no run: it has no {RESOLVED_FILE}, and nothing was removed")
    owner = driver_at_work(folder)
    if owner is not None:
        raise UserError(
            f"{folder}: a driver is at work on this run: {owner}; stop it first: plumbob stop {folder}. Where that "
            f"process is gone, delete {folder / LOCK_FILE}"
        )


def remove_run(folder: Path) -> None:
    """Remove it, its lock held. What is interrupted is still a run, and can be removed again.

    Raises:
        UserError: as `check_removable`, or something in it cannot be removed.
    """
    check_removable(folder)
    fix = "remove what is left as the user whose it is"
    with locked_folder(folder, lambda message: None) as is_ours:
        if not is_ours and (folder / CLUSTER_FILE).exists():  # Where there are no locks, that is all that tells.
            raise UserError(f"{folder}: it may be running: stop it, or delete {folder / CLUSTER_FILE}")
        with from_outside(f"{folder}: cannot be removed whole", fix):
            for path in sorted(folder.iterdir()):
                if path.name in (RESOLVED_FILE, LOCK_FILE):
                    continue
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()
            (folder / RESOLVED_FILE).unlink()
    with from_outside(f"{folder}: cannot be removed whole", fix):
        folder.rmdir()
