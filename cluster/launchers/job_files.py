"""Files of a submitted job: its configuration and, where Plumbob is not installed there, its source."""

import shutil
from pathlib import Path, PurePosixPath
from typing import TypeVar

import yaml

from plumbob.cluster.workers.code_digest import source_files
from plumbob.configs.paths import with_absolute_paths
from plumbob.configs.runs import AnyRun, Run
from plumbob.core.errors import UserError

C = TypeVar("C", bound=Run)

CONFIG_FILE = "run.yaml"

JOIN_WAIT_S = 300.0
"""How long a driver that starts with its hosts waits for the last of them to join."""


def for_cluster(config: C, wait_s: float = 0.0) -> C:
    """The configuration as a driver on the cluster runs it: it joins the Ray cluster that it finds there.

    Args:
        wait_s: the least time that the driver gives hosts to join.

    Raises:
        UserError: storage.path is relative, and would be below a working folder that only the driver's host has.
    """
    path = config.storage.path
    if not PurePosixPath(path).is_absolute():
        raise UserError(
            f"storage.path={path}: the run's working folder on the cluster is not this one; expected an absolute path "
            f"that every host can read, such as storage.path=/shared/runs"
        )
    cluster = config.cluster.model_copy(
        update={"address": "auto", "num_cpus": None, "wait_s": max(config.cluster.wait_s, wait_s)}
    )
    return with_absolute_paths(config).model_copy(update={"cluster": cluster})


def as_yaml(config: AnyRun) -> str:
    """The configuration as `plumbob run FILE` reads it, without `cluster.kuberay`.

    Only the launcher reads that, and the run would keep the values of its `env` in its folder and its report.
    """
    content = config.model_dump(mode="json", exclude={"cluster": {"kuberay"}})
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def write_job(config: AnyRun, folder: Path, with_source: bool) -> None:
    """Fill the folder that becomes the job's working folder: the configuration and, if asked, `plumbob/` whole."""
    (folder / CONFIG_FILE).write_text(as_yaml(config), encoding="utf-8")
    if with_source:
        for path, name in source_files():
            target = folder / "plumbob" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def entrypoint(with_source: bool, resumes: bool, as_json: bool) -> str:
    """The command that Ray starts in the job's working folder on the head."""
    program = "python -m plumbob.console.cli" if with_source else "plumbob"
    return f"{program} run {CONFIG_FILE}{' --resume' if resumes else ''}{' --json' if as_json else ''}"
