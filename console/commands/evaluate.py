"""`plumbob eval`: figures of a reward model on pairs, or of a policy on prompts."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import Any

from plumbob.configs.load_run import load_eval, load_run
from plumbob.configs.runs import EvalRun
from plumbob.console.cli import OK
from plumbob.console.display import aligned, choose_listener, print_json
from plumbob.console.tables import number
from plumbob.core.errors import UserError


def evaluate(arguments: argparse.Namespace) -> int:
    """The command; the result alone goes to stdout, so that a script can read it, and progress beside it."""
    config, *overrides = arguments.overrides or [""]
    run = load_eval(arguments.overrides) if not config or "=" in config else load_run(config, overrides)
    if not isinstance(run, EvalRun):
        raise UserError(f"{config}: kind is {run.kind}, expected eval; start that with: plumbob run {config}")
    from plumbob.driver.api import evaluate as measure

    with choose_listener(False, sys.stderr) as listener:
        result = measure(run, listener)
    if arguments.json:
        print_json(result, sys.stdout)
    else:
        print("\n".join(aligned(_flat(result))))
    return OK


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
