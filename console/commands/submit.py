"""`plumbob submit`: send a run to a Ray cluster and follow it, or write what KubeRay or Slurm starts it with."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Self

from plumbob.configs.load_run import load_run
from plumbob.console.cli import FAILED, INTERRUPTED, MISTAKE, OK
from plumbob.console.display import print_json
from plumbob.core.errors import RunFailed, UserError

if TYPE_CHECKING:
    from plumbob.cluster.launchers.ray_job import Ended
    from plumbob.configs.runs import AnyRun

NOT_FOUND = 127
"""A shell's exit status for a command that is not there."""

ONLY_FOR = {
    "no_wait": "--address",
    "with_source": "--address",
    "resume": "--address",
    "image": "kuberay",
    "claim": "kuberay",
    "hosts": "slurm",
}
"""Option -> what it belongs to."""


def submit(arguments: argparse.Namespace) -> int:
    """The command; its exit status is that of the run where it is followed."""
    _check_options(arguments)
    config = load_run(arguments.config, arguments.overrides, arguments.resume)
    if arguments.render is not None:
        sys.stdout.write(render(config, arguments))
        return OK
    from plumbob.cluster.launchers.job_files import for_cluster
    from plumbob.cluster.launchers.ray_job import Jobs

    sent = for_cluster(config)
    jobs = Jobs(arguments.address)
    job = jobs.submit(sent, arguments.with_source, arguments.resume, arguments.json)
    tool = f"ray job {{}} --address {jobs.address} {job}"
    if arguments.json:
        print_json({"event": "job_submitted", "job": job, "address": jobs.address, "run": sent.name}, sys.stdout)
    else:
        print(f"job {job}: run {sent.name} is on its way to {sent.storage.path}/{sent.name}; what it prints:")
        print(f"  {tool.format('logs --follow')}", flush=True)
    if arguments.no_wait:
        return OK
    try:
        with Printing(arguments.json) as printing:
            ended = jobs.follow(job, printing.write)
        return exit_status(ended, arguments.with_source)
    except KeyboardInterrupt:
        print(
            f"plumbob: the job goes on; look: {tool.format('status')}; end it: {tool.format('stop')}", file=sys.stderr
        )
        return INTERRUPTED


def exit_status(ended: Ended, with_source: bool) -> int:
    """The run's own exit status, whose message has been passed on with the rest of what it printed.

    Raises:
        UserError: Plumbob is not installed on the head.
        RunFailed: the run was stopped, killed or never started.
    """
    if ended.succeeded:
        return OK
    if ended.exit_code in (FAILED, MISTAKE, INTERRUPTED):
        return ended.exit_code
    if ended.exit_code == NOT_FOUND:
        missing, mend = ("python", "") if with_source else ("plumbob", ", or send the source too: --with-source")
        raise UserError(f"the head's Ray finds no command {missing}: start Ray in Plumbob's environment{mend}")
    raise RunFailed(f"job {ended.job} {'was stopped' if ended.stopped else 'ended'}: {ended.message}")


def render(config: AnyRun, arguments: argparse.Namespace) -> str:
    """A manifest for KubeRay or a script for Slurm."""
    from importlib.metadata import version

    from plumbob.cluster.launchers import kuberay, slurm
    from plumbob.cluster.launchers.job_files import JOIN_WAIT_S, for_cluster
    from plumbob.cluster.resources import needs_of

    sent = for_cluster(config, JOIN_WAIT_S)
    if arguments.render == "slurm":
        return slurm.render(sent, needs_of(sent), 1 if arguments.hosts is None else arguments.hosts)
    return kuberay.render(sent, needs_of(sent), arguments.image, arguments.claim, version("ray"))


def _check_options(arguments: argparse.Namespace) -> None:
    """Raises UserError for options that do not go together."""
    chosen = arguments.render or "--address"
    for name, owner in ONLY_FOR.items():
        given = getattr(arguments, name)
        if owner != chosen and given is not None and given is not False:
            needed = owner if owner == "--address" else f"--render {owner}"
            raise UserError(f"--{name.replace('_', '-')} is for {needed} only")
    if chosen == "kuberay" and not (arguments.image and arguments.claim):
        raise UserError(
            "--render kuberay: expected --image IMAGE, which has Plumbob in it, and --claim NAME, the "
            "PersistentVolumeClaim that becomes storage.path"
        )


class Printing:
    """What a job prints, passed on; for scripts its objects go to stdout, and lines that are none to stderr."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._begun = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._begun:
            self.write("\n")

    def write(self, text: str) -> None:
        if not self._as_json:
            print(text, end="", flush=True)
            return
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            print(line, file=sys.stdout if line.startswith("{") else sys.stderr, flush=True)
