"""`plumbob bias policy`: stereotypes and unequal treatment of a policy, before and after alignment side by side."""

from __future__ import annotations

import sys
from argparse import SUPPRESS, ArgumentParser, Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from plumbob.console.exit_codes import OK
from plumbob.console.options import add_dtype, add_json, add_policy
from plumbob.console.tables import aligned, interval, printable
from plumbob.core.activities import activities
from plumbob.core.errors import UserError

if TYPE_CHECKING:
    from plumbob.driver.stewardship.bias_table import BiasMeasure

NAME = "policy"
ABOUT = "measure a policy on CrowS-Pairs and BBQ, and by responses to prompts with another group's terms"
EXAMPLE = "plumbob bias policy runs/toy/ppo --against runs/toy/sft --crows-pairs crows_pairs_anonymized.csv"


def add_options(parser: ArgumentParser) -> None:
    add_policy(parser)
    parser.add_argument("--against", metavar="RUN_OR_FOLDER", help="another policy, such as the one before alignment")
    parser.add_argument("--crows-pairs", metavar="FILE", help="the authors' CSV; also of an encoder")
    parser.add_argument(
        "--bbq", metavar="FILE", action="append", default=[], help="one of the authors' JSONL files; may be repeated"
    )
    parser.add_argument(
        "--reward",
        metavar="MODEL_OR_PART",
        help="scores responses: a reward model, or a part such as '{kind: length, max: 50}'",
    )
    parser.add_argument("--judge", help=SUPPRESS)
    parser.add_argument("--terms", metavar="FILE", help="for --reward: pairs of terms, as `plumbob bias terms` prints")
    parser.add_argument(
        "--num-prompts", type=int, default=200, metavar="N", help="for --reward: pairs of prompts (200)"
    )
    parser.add_argument("--max-tokens", type=int, default=64, metavar="N", help="for --reward: of a response (64)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="for --reward: of what is drawn (0)")
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="texts in one forward (32)")
    add_dtype(parser)
    add_json(parser)


def run(arguments: Namespace) -> int:
    for option in ("num_prompts", "max_tokens", "batch_size"):
        value = getattr(arguments, option)
        if value < 1:
            raise UserError(f"--{option.replace('_', '-')}={value}: expected a whole number from 1")
    if arguments.judge is not None:
        raise UserError(f"--judge={arguments.judge}: is called --reward: give --reward={arguments.judge}")
    if arguments.reward is None and arguments.terms is not None:
        raise UserError("--terms is for --reward: name a reward model or a part that scores the responses")
    with activities.during("loading the libraries"):
        from plumbob.models.quantization.forms import hush_bitsandbytes

        hush_bitsandbytes()
        from plumbob.driver.stewardship.counterfactual_responses import CounterfactualPrompts, reward_of
        from plumbob.driver.stewardship.policy_bias import PolicyBiasOptions, policy_bias
    generated = None
    if arguments.reward is not None:
        generated = CounterfactualPrompts(
            reward_of(arguments.reward),
            arguments.terms,
            arguments.num_prompts,
            arguments.max_tokens,
            seed=arguments.seed,
        )
    options = PolicyBiasOptions(
        arguments.crows_pairs, tuple(arguments.bbq), generated, arguments.batch_size, arguments.dtype
    )
    found = policy_bias(arguments.policy, arguments.against, options)
    if arguments.json:
        from plumbob.console.display import print_json

        print_json({"measures": [one.as_dict() for one in found]}, sys.stdout)
    else:
        print("\n".join(_lines(found)))
    return OK


def _lines(measures: Sequence[BiasMeasure]) -> list[str]:
    heading = ["measure", "value", "95%", "cases"]
    is_compared = any(one.change for one in measures)
    if is_compared:
        heading += ["before", "difference", "95%", "", "cases needed", "seen from"]
    rows = [[*_own(one), *(_change(one) if is_compared else [])] for one in measures]
    notes = ["", "* larger than the noise, over all measures together (Holm, 5%)"] if is_compared else []
    return [*aligned([heading, *rows]), *notes]


def _own(one: BiasMeasure) -> list[str]:
    bounds = None if one.ci95 is None else list(one.ci95)
    return [printable(one.name), f"{one.value:.3f}", interval(bounds, _signed), f"{one.num_cases:,}"]


def _change(one: BiasMeasure) -> list[str]:
    change = one.change
    if change is None:
        return [""] * 6
    return [
        f"{change.before:.3f}",
        _signed(change.difference),
        interval(None if change.ci95 is None else list(change.ci95), _signed),
        "*" if change.is_real else "",
        "" if change.num_needed is None else f"{change.num_needed:,}",
        "" if change.seen_from is None else f"{change.seen_from:.3f}",
    ]


def _signed(value: object) -> str:
    return f"{value:+.3f}"
