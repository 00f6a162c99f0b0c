"""`plumbob submit`: send a run to a Ray cluster and follow it, or write what KubeRay or Slurm starts it with."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Self

from plumbob.console.exit_codes import FAILED, INTERRUPTED, OK, RESUME_ME, USER_ERROR
from plumbob.console.options import add_config, add_json
from plumbob.core.errors import RunFailed, RunStopped, UserError

if TYPE_CHECKING:
    from plumbob.cluster.launchers.launcher import LauncherOption, Renderer
    from plumbob.cluster.launchers.ray_job import Ended
    from plumbob.configs.runs import AnyRun

NAME = "submit"
ABOUT = "send a run to a Ray cluster, or write what KubeRay or Slurm starts it with"
EXAMPLE = "plumbob submit toy name=align storage.path=/shared/runs --address http://HEAD:8265"

NOT_FOUND = 127
"""A shell's exit status for a command that is not there."""


def renderers() -> dict[str, Renderer]:
    """What --render may name: the launchers that write what another system starts."""
    from plumbob.cluster.launchers import kuberay, slurm

    return {module.NAME: module for module in (kuberay, slurm)}


def add_options(parser: ArgumentParser) -> None:
    add_config(parser)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--address", metavar="URL", help="the dashboard of the cluster's head, such as http://HEAD:8265")
    where.add_argument("--render", choices=tuple(renderers()), help="print a KubeRay manifest or a Slurm script")
    for owner, option in _options():
        about = f"{owner}: {option.about}"
        if option.is_switch:
            parser.add_argument(option.flag, action="store_true", help=about)
        else:
            parser.add_argument(option.flag, metavar=option.metavar, type=option.kind, help=about)
    add_json(parser)


def run(arguments: Namespace) -> int:
    """Its exit status is that of the run where it is followed."""
    from plumbob.configs.load_run import load_run

    _check_options(arguments)
    config = load_run(arguments.config, arguments.overrides, arguments.resume)
    if arguments.render is not None:
        rendered = renderers()[arguments.render].render(config, vars(arguments))
        _check_input(config)
        sys.stdout.write(rendered)
        return OK
    return _submit(config, arguments)


def _check_input(config: AnyRun) -> None:
    """Where this machine has the run's storage, find now what would end the job once it has waited for its hosts.

    What is left out of the input, and the memory that workers are expected to take, is printed on stderr.

    Raises:
        UserError: of the input; as `plumbob plan`.
    """
    from plumbob.configs.paths import is_folder, is_there
    from plumbob.configs.resolved_copy import RESOLVED_FILE
    from plumbob.driver.run_folder.folder import run_folder

    if not is_folder(Path(config.storage.path)):
        message = f"storage.path={config.storage.path} is not on this machine, so the run's input was not checked"
        print(f"plumbob: {message}", file=sys.stderr)
        return
    from plumbob.driver.api import check_input

    for note in check_input(config):
        print(f"plumbob: {note}", file=sys.stderr)
    if is_there(run_folder(config) / RESOLVED_FILE):
        message = "a run of this name has begun: what is written here starts another name, or resumes it if told to"
        print(f"plumbob: {run_folder(config)}: {message}", file=sys.stderr)


def _submit(config: AnyRun, arguments: Namespace) -> int:
    from plumbob.cluster.launchers.job_files import for_cluster
    from plumbob.cluster.launchers.ray_job import Jobs
    from plumbob.console.display import print_json

    sent = for_cluster(config)
    jobs = Jobs(arguments.address)
    job = jobs.submit(sent, arguments.with_source, arguments.resume, arguments.json)
    if arguments.json:
        print_json({"event": "job_submitted", "job": job, "address": jobs.address, "run": sent.name}, sys.stdout)
    else:
        print(f"job {job}: run {sent.name} is on its way to {sent.storage.path}/{sent.name}; what it prints:")
        print(f"  {jobs.command(job, 'logs', '--follow')}", flush=True)
    if arguments.no_wait:
        return OK
    try:
        with Printing(arguments.json) as printing:
            ended = jobs.follow(job, printing.write)
        return exit_status(ended, arguments.with_source)
    except KeyboardInterrupt:
        look = f"the job keeps running; look: {jobs.command(job, 'status')}; end it: {jobs.command(job, 'stop')}"
        raise RunStopped(look) from None


def exit_status(ended: Ended, with_source: bool) -> int:
    """The run's own exit status, whose message has been passed on with the rest of what it printed.

    Raises:
        UserError: Plumbob is not installed on the head.
        RunFailed: the run was stopped, killed or never started.
    """
    if ended.succeeded:
        return OK
    if ended.exit_code in (FAILED, USER_ERROR, RESUME_ME, INTERRUPTED):
        return ended.exit_code
    if ended.exit_code == NOT_FOUND:
        missing, fix = ("python", "") if with_source else ("plumbob", ", or send the source too: --with-source")
        raise UserError(f"the head's Ray finds no command {missing}: start Ray in Plumbob's environment{fix}")
    raise RunFailed(f"job {ended.job} {'was stopped' if ended.stopped else 'ended'}: {ended.message}")


def _options() -> Iterator[tuple[str, LauncherOption]]:
    """Every launcher's own options, each with how that launcher is asked for."""
    from plumbob.cluster.launchers import ray_job

    yield from (("--address", option) for option in ray_job.OPTIONS)
    for name, renderer in renderers().items():
        yield from ((f"--render {name}", option) for option in renderer.OPTIONS)


def _check_options(arguments: Namespace) -> None:
    """Raises UserError for options of a launcher that was not asked for."""
    chosen = "--address" if arguments.render is None else f"--render {arguments.render}"
    if arguments.json and arguments.render is not None:
        raise UserError("--json is for --address only: what is rendered is for another system to read")
    for owner, option in _options():
        given = getattr(arguments, option.name)
        if owner != chosen and given is not None and given is not False:
            raise UserError(f"{option.flag} is for {owner} only")


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
