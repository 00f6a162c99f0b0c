"""`plumbob config`: list the settings, each with its type, bounds, default and meaning."""

from __future__ import annotations

import difflib
import json
import shutil
import sys
import textwrap
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from plumbob.console.completion.completers import completed_by, setting_names
from plumbob.console.exit_codes import OK
from plumbob.console.options import add_json
from plumbob.core.errors import UserError

if TYPE_CHECKING:
    from plumbob.configs.setting_docs import DescribedSetting

NAME = "config"
ABOUT = "list the settings, each with its type, default and meaning"
EXAMPLE = "plumbob config online.kl --kind online"

NUM_NEAR = 3
"""Keys that are suggested for one that there is not."""

INDENT = "    "
MAX_WIDTH = 110


def add_options(parser: ArgumentParser) -> None:
    key = parser.add_argument("key", metavar="KEY", nargs="?", help="only this setting or those below it, as online.kl")
    completed_by(setting_names, key)
    parser.add_argument("--kind", metavar="KIND", help="only settings of this kind of run, such as dpo")
    add_json(parser)


def run(arguments: Namespace) -> int:
    from dataclasses import asdict

    from plumbob.configs.runs import RUN_KINDS
    from plumbob.configs.setting_docs import described_settings
    from plumbob.console.display import print_json

    if arguments.kind not in (None, *RUN_KINDS):
        raise UserError(f"--kind {arguments.kind}: no kind of run; expected one of {', '.join(RUN_KINDS)}")
    kinds = tuple(RUN_KINDS) if arguments.kind is None else (arguments.kind,)
    settings = described_settings(kinds)
    if arguments.key is not None:
        settings = below(arguments.key, settings)
    if arguments.json:
        print_json({"settings": [asdict(each) | {"choices": dict(each.choices)} for each in settings]}, sys.stdout)
    else:
        print("\n".join(line for each in settings for line in lines(each, kinds)))
    return OK


def below(key: str, settings: Sequence[DescribedSetting]) -> list[DescribedSetting]:
    """The setting of that key and all below it. Raises UserError, with those that are near, when there is none."""
    found = [each for each in settings if each.key == key or each.key.startswith(f"{key}.")]
    if found:
        return found
    raise UserError(f"{key}: no setting is called that; {_hint(key, [each.key for each in settings])}")


def _hint(key: str, keys: Sequence[str]) -> str:
    from plumbob.configs.renamed_keys import RENAMED

    renamed = {each.key: each.new_name for each in RENAMED}
    if key in renamed:
        return f"it is part of {renamed[key]} now"
    last = key.rpartition(".")[2]
    same = [each for each in keys if each.rpartition(".")[2] == last]
    near = same[:NUM_NEAR] or difflib.get_close_matches(key, keys, n=NUM_NEAR)
    return f"did you mean {' or '.join(near)}?" if near else "`plumbob config` lists all"


def lines(setting: DescribedSetting, kinds: Sequence[str]) -> list[str]:
    """What a person reads of one setting, `kinds` being the kinds of run that were asked about."""
    value = " (required)" if setting.is_required else f" = {json.dumps(setting.default, ensure_ascii=False)}"
    is_plain_group = setting.type == "group" and not setting.is_required
    facts = [setting.type]
    if setting.only_with:
        facts.append(f"only with {' or '.join(setting.only_with)}")
    if len(setting.runs) < len(kinds):
        facts.append(f"of {', '.join(setting.runs)}")
    if setting.may_change:
        facts.append("may change on resume")
    choices = [f"{choice}: {meaning}" for choice, meaning in setting.choices if meaning]
    width = min(shutil.get_terminal_size().columns, MAX_WIDTH) - len(INDENT)
    wrapped = [line for text in ("; ".join(facts), setting.meaning, *choices) for line in textwrap.wrap(text, width)]
    return [f"{setting.key}{'' if is_plain_group else value}", *(f"{INDENT}{line}" for line in wrapped)]
