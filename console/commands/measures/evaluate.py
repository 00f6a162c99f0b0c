"""`plumbob eval`: metrics of a reward model on pairs, or of a policy on prompts."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from typing import Any

from plumbob.console.exit_codes import OK
from plumbob.console.options import add_config_or_overrides, add_json
from plumbob.console.tables import aligned, interval, number, percent
from plumbob.core.activities import activities
from plumbob.core.errors import UserError

NAME = "eval"
ABOUT = "measure a reward model on pairs, or a policy on prompts"
EXAMPLE = "plumbob eval reward.model=runs/toy/reward/reward_model data.pairs=pairs.jsonl"


def add_options(parser: ArgumentParser) -> None:
    add_config_or_overrides(parser)
    add_json(parser)


def run(arguments: Namespace) -> int:
    """The result alone goes to stdout, so that a script can read it, and progress beside it."""
    from plumbob.configs.load_run import load_eval, load_run
    from plumbob.configs.runs import EvalRun
    from plumbob.console.display import choose_listener, print_json

    config, *overrides = arguments.overrides or [""]
    settings = load_eval(arguments.overrides) if not config or "=" in config else load_run(config, overrides)
    if not isinstance(settings, EvalRun):
        raise UserError(f"{config}: kind is {settings.kind}, expected eval; start that with: plumbob run {config}")
    with choose_listener(False, sys.stderr) as listener:
        with activities.during("loading the libraries"):
            from plumbob.driver.api import evaluate
        result = evaluate(settings, listener)
    if arguments.json:
        print_json(result, sys.stdout)
    else:
        print("\n".join(lines(result)))
    return OK


def lines(result: Mapping[str, Any]) -> list[str]:
    """A metric a line; of policies that were measured beside one another, a column for each, and who wins how often."""
    policies, rates = result.get("policies", {}), result.get("win_rates", {})
    alone = aligned(_flat({name: value for name, value in result.items() if name not in ("policies", "win_rates")}))
    if not policies:
        return alone
    columns = {name: dict(_flat(metrics)) for name, metrics in policies.items()}
    names = dict.fromkeys(metric for column in columns.values() for metric in column)
    rows = [[name, *(column.get(name, "") for column in columns.values())] for name in names]
    wins = [[f"{name} wins against", *(_rate(found.get(other)) for other in rates)] for name, found in rates.items()]
    shown = [*alone, "", *aligned([["", *columns], *rows])]
    return [*shown, "", *aligned([["", *rates], *wins])] if rates else shown


def _rate(rate: Mapping[str, Any] | None) -> str:
    return "" if rate is None else f"{percent(rate['win_rate'])} {interval(rate['ci95'], percent)}"


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[list[str]]:
    rows = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple):
            rows.append([f"{prefix}{name}", ", ".join(number(item) or str(item) for item in value)])
        else:
            rows.append([f"{prefix}{name}", number(value) or str(value)])
    return rows
