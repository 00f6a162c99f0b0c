"""`plumbob bias reward`: how far a reward model's scores depend on which group of people a text names."""

import sys
from argparse import ArgumentParser, Namespace
from typing import Any

from plumbob.console.exit_codes import FAILED, OK
from plumbob.console.options import add_json
from plumbob.console.tables import aligned, interval, printable
from plumbob.core.activities import activities
from plumbob.core.errors import UserError

NAME = "reward"
ABOUT = "score texts beside the same with another group's terms: the differences of a reward model, with intervals"
EXAMPLE = "plumbob bias reward runs/toy/reward/reward_model --max-difference 0.25"


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "model", metavar="MODEL", help="a reward model's folder or hub name, or the run that trained it"
    )
    parser.add_argument("--texts", metavar="FILE", help="responses to prompts, such as pairs; default: ours")
    parser.add_argument("--terms", metavar="FILE", help="pairs of terms, as `plumbob bias terms` prints ours")
    parser.add_argument("--max-texts", type=int, default=2000, metavar="N", help="of the file at most; default: 2000")
    parser.add_argument(
        "--max-difference",
        type=float,
        metavar="X",
        help="exit with status 1 where a mean difference is larger than the noise and above this; default: none",
    )
    parser.add_argument("--max-tokens", type=int, default=256, metavar="N", help="of prompt and response together")
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="texts in one forward")
    parser.add_argument("--raw", action="store_true", help="the model's own output, without its calibration")
    add_json(parser)


def run(arguments: Namespace) -> int:
    for option, value in (
        ("--batch-size", arguments.batch_size),
        ("--max-tokens", arguments.max_tokens),
        ("--max-texts", arguments.max_texts),
    ):
        if value < 1:
            raise UserError(f"{option}={value}: expected a whole number from 1")
    bound = arguments.max_difference
    if bound is not None and not 0 <= bound <= 1e6:
        raise UserError(f"--max-difference={bound:g}: expected a number from 0 to a million")
    with activities.during("loading the libraries"):
        from plumbob.driver.stewardship.reward_bias import RewardBiasOptions, reward_bias
    options = RewardBiasOptions(
        texts=arguments.texts,
        terms=arguments.terms,
        max_texts=arguments.max_texts,
        max_tokens=arguments.max_tokens,
        batch_size=arguments.batch_size,
        is_calibrated=not arguments.raw,
        bound=bound,
    )
    found = reward_bias(arguments.model, options)
    if arguments.json:
        from plumbob.console.display import print_json

        print_json(found.as_dict(), sys.stdout)
    else:
        print("\n".join(_lines(found.as_dict()["differences"])))
        sentence = found.sentence()
        if bound is not None:
            print(f"\n{sentence}: above {bound:g}" if sentence else f"\nnothing is above {bound:g}")
    return FAILED if bound is not None and found.past_bound else OK


def _lines(differences: list[dict[str, Any]]) -> list[str]:
    heading = ["contrast", "difference", "95%", "", "texts", "both named", "cases needed", "seen from"]
    rows = [
        [
            printable(f"{one['dimension']}: {one['first']} - {one['second']}"),
            f"{one['mean']:+.3f}",
            interval(one["ci95"], lambda end: f"{end:+.3f}"),
            "*" if one["is_real"] else "",
            f"{one['num_texts']:,}",
            f"{one['num_mixed']:,}",
            "" if one["num_needed"] is None else f"{one['num_needed']:,}",
            "" if one["seen_from"] is None else f"{one['seen_from']:.3f}",
        ]
        for one in differences
    ]
    return [*aligned([heading, *rows]), "", "* larger than the noise, over all contrasts together (Holm, 5%)"]
