"""Options that several commands share: CONFIG with its overrides, RUN, --address and --json."""

from argparse import ArgumentParser

OVERRIDES = "settings to change, such as ppo.num_steps=20 policy.model=/path/to/model"
RESUME_OVERRIDES = "settings to change that do not change what is computed, such as rollout.num_workers=4"


def add_config(parser: ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG", help="a preset's name or a YAML file")
    add_overrides(parser)


def add_overrides(parser: ArgumentParser, about: str = OVERRIDES, metavar: str = "a.b=c") -> None:
    parser.add_argument("overrides", metavar=metavar, nargs="*", help=about)


def add_run(parser: ArgumentParser) -> None:
    """A run by its folder."""
    parser.add_argument("run", metavar="RUN", help="the run's folder, or its name below runs/")


def add_live_run(parser: ArgumentParser) -> None:
    """A run by its folder, or by its name on the Ray at --address."""
    parser.add_argument("run", metavar="RUN", help="the run's folder, its name below runs/, or that at --address")
    parser.add_argument("--address", metavar="HOST:PORT", help="the Ray that the run uses, as cluster.address")


def add_trace(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--trace",
        action="store_true",
        help="write trace.json into the run's folder: who was at what and when, for ui.perfetto.dev",
    )


def add_json(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON for scripts, one object a line")
