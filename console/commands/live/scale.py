"""`plumbob scale`: change the number of rollout workers of a running run, or empty a host of its workers."""

from argparse import ArgumentParser, Namespace

from plumbob.console.exit_codes import OK
from plumbob.console.options import add_live_run

NAME = "scale"
ABOUT = "change the number of rollout workers of a running run"
EXAMPLE = "plumbob scale runs/grpo --rollout-workers 3"


def add_options(parser: ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--rollout-workers", type=int, metavar="N", help="how many there shall be")
    what.add_argument(
        "--leave", metavar="HOST", help="drain a host that will be taken away: its workers finish their work first"
    )
    add_live_run(parser)


def run(arguments: Namespace) -> int:
    from plumbob.driver import steering

    if arguments.leave is not None:
        steering.leave(arguments.run, arguments.leave, arguments.address)
        print(
            f"{arguments.leave}: its rollout workers and scorers finish their work, and others start "
            f"where there is capacity; learners stay until the host goes"
        )
        return OK
    before = steering.scale(arguments.run, arguments.rollout_workers, arguments.address)
    print(f"rollout workers: {before} become {arguments.rollout_workers}; those that go finish their responses first")
    return OK
