"""Options that several commands share: CONFIG with its overrides, RUN, --dtype, --address and --json."""

import os
from argparse import ArgumentParser, Namespace
from typing import get_args

from plumbob.console.completion.completers import completed_by, configs, configs_or_settings, runs, settings
from plumbob.core.errors import UserError

OVERRIDES = "settings to change, such as online.num_steps=20 policy.model=/path/to/model"
RESUME_OVERRIDES = "settings to change that do not change what is computed, such as rollout.num_workers=4"


def add_config(parser: ArgumentParser) -> None:
    completed_by(configs, parser.add_argument("config", metavar="CONFIG", help="a preset's name or a YAML file"))
    add_overrides(parser)


def add_overrides(parser: ArgumentParser, about: str = OVERRIDES) -> None:
    completed_by(settings, parser.add_argument("overrides", metavar="a.b=c", nargs="*", help=about))


def add_config_or_overrides(parser: ArgumentParser) -> None:
    """For a command whose CONFIG may be left out."""
    given = parser.add_argument("overrides", metavar="[CONFIG] a.b=c", nargs="*", help=OVERRIDES)
    completed_by(configs_or_settings, given)


def add_run(parser: ArgumentParser) -> None:
    """A run by its folder."""
    completed_by(runs, parser.add_argument("run", metavar="RUN", help="the run's folder, or its name below runs/"))


def add_runs(parser: ArgumentParser, nargs: str = "+") -> None:
    """Several runs by their folders."""
    about = "folders of runs, or their names below runs/"
    completed_by(runs, parser.add_argument("runs", metavar="RUN", nargs=nargs, help=about))


def add_live_run(parser: ArgumentParser) -> None:
    """A run by its folder, or by its name on the Ray cluster at --address."""
    about = "the run's folder, its name below runs/, or that at --address"
    completed_by(runs, parser.add_argument("run", metavar="RUN", help=about))
    parser.add_argument("--address", metavar="HOST:PORT", help="the Ray cluster that the run uses, as cluster.address")


def add_trace(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--trace",
        action="store_true",
        help="write trace.json into the run's folder: who was at what and when, for ui.perfetto.dev",
    )


def add_json(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON for scripts, one object a line")


def add_dtype(parser: ArgumentParser, about: str = "default: float32", default: str | None = "float32") -> None:
    """Of a model's weights."""
    from plumbob.configs.base import Dtype

    parser.add_argument("--dtype", choices=get_args(Dtype), default=default, help=about)


def add_policy(parser: ArgumentParser) -> None:
    """A policy by the run that made it, or by its folder."""
    parser.add_argument(
        "policy",
        metavar="RUN_OR_FOLDER",
        help="a run's folder or its name below runs/, a stage's folder, a model's or an adapter's, package:NAME/FOLDER",
    )


def add_listening(parser: ArgumentParser, port: int) -> None:
    """Where a server listens, and what its clients must bear."""
    parser.add_argument(
        "--host", default="127.0.0.1", help="what to listen on; another than this machine's own needs a token"
    )
    parser.add_argument("--port", type=int, default=port, help=f"0 takes a free one; default: {port}")
    parser.add_argument("--token-env", metavar="NAME", help="the variable with the token that each request must bear")


def token_of(arguments: Namespace) -> str | None:
    """The token that `add_listening` asks for; None of a server that this machine alone reaches.

    Raises:
        UserError: the port is none, the variable is not set, or others could use the server.
    """
    if not 0 <= arguments.port < 2**16:
        raise UserError(f"--port={arguments.port}: a port is a number from 0, for a free one, to 65535")
    if arguments.token_env is not None:
        token = os.environ.get(arguments.token_env)
        if not token:
            raise UserError(f"--token-env={arguments.token_env}: the variable is not set: export it with the token")
        return token
    if arguments.host not in ("127.0.0.1", "::1", "localhost"):
        raise UserError(f"--host={arguments.host}: others could use the server: give a token too, --token-env=NAME")
    return None
