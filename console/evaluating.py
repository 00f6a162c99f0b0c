"""`plumbob eval`: figures of a reward model on pairs, or of a policy on prompts."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import Any

from configs.errors import UserError
from configs.load import load_eval, load_run
from configs.schema import EvalRun
from console.cli import OK
from console.figures import number
from console.live import aligned, choose_listener, print_json


def evaluate(arguments: argparse.Namespace) -> int:
    """The command; the result alone goes to stdout, so that a script can read it, and progress beside it."""
    config, *overrides = arguments.overrides or [""]
    run = load_eval(arguments.overrides) if not config or "=" in config else load_run(config, overrides)
    if not isinstance(run, EvalRun):
        raise UserError(f"{config}: kind is {run.kind}, expected eval; start that with: plumbob run {config}")
    from cluster.launch import evaluate as measure

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
