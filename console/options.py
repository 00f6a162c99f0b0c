"""Options that several commands share: CONFIG with its overrides, RUN, --address and --json."""

from argparse import ArgumentParser

from plumbob.console.completion.completers import completed_by, configs, configs_or_settings, runs, settings

OVERRIDES = "settings to change, such as ppo.num_steps=20 policy.model=/path/to/model"
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
    """A run by its folder, or by its name on the Ray at --address."""
    about = "the run's folder, its name below runs/, or that at --address"
    completed_by(runs, parser.add_argument("run", metavar="RUN", help=about))
    parser.add_argument("--address", metavar="HOST:PORT", help="the Ray that the run uses, as cluster.address")


def add_trace(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--trace",
        action="store_true",
        help="write trace.json into the run's folder: who was at what and when, for ui.perfetto.dev",
    )


def add_json(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON for scripts, one object a line")
