"""`plumbob init`: a first file of settings, by a few questions on a terminal or by options."""

from __future__ import annotations

import importlib.util
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from pathlib import Path

from plumbob.console.completion.completers import completed_by, files
from plumbob.console.exit_codes import OK
from plumbob.console.first_settings.first_answers import HAVES, MACHINES, MEANINGS, METHODS, TIMES, Answers
from plumbob.console.first_settings.yaml_text import yaml_text
from plumbob.console.options import add_json
from plumbob.console.typed_answer import typed_answer
from plumbob.core.errors import UserError
from plumbob.core.outside import from_outside

NAME = "init"
ABOUT = "write a small commented file of settings that runs, by a few questions or by these options"
EXAMPLE = "plumbob init --have pairs --file pairs.jsonl --model MODEL --method dpo --output align.yaml"

ALL_METHODS = tuple(method for methods in METHODS.values() for method in methods)

REWARD = "What is a response worth? (a reward model's folder, file.py:function, or column:NAME of the right number)"


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument("--have", choices=tuple(HAVES), help="what there is to learn from")
    completed_by(files, parser.add_argument("--file", metavar="FILE", help="where it is: a file, folder or pattern"))
    parser.add_argument("--method", choices=ALL_METHODS, help="how to learn; default: the usual one for --have")
    completed_by(files, parser.add_argument("--model", metavar="MODEL", help="a folder, hub name or adapter"))
    about = "of prompts: a reward model's folder, file.py:function, or column:NAME of the right number"
    completed_by(files, parser.add_argument("--reward", metavar="REWARD", help=about))
    parser.add_argument("--time", choices=tuple(TIMES), help="a quick try, or as long as the presets take (full)")
    parser.add_argument("--machine", choices=tuple(MACHINES), help="default: gpu where there is one")
    parser.add_argument("--output", metavar="FILE", type=Path, help="default: plumbob.yaml; never overwritten")
    add_json(parser)


def run(arguments: Namespace) -> int:
    """What the options leave open is asked for on a terminal; elsewhere it is its default, or an error."""
    asks = sys.stdin.isatty() and sys.stdout.isatty() and not arguments.json
    path = _free(arguments.output or Path("plumbob.yaml"))
    text = yaml_text(_asked(arguments) if asks else _given(arguments), str(path))
    with from_outside(f"{path}: cannot be written", "give another --output"), path.open("x", encoding="utf-8") as file:
        file.write(text)
    if arguments.json:
        from plumbob.console.display import print_json

        print_json({"written": str(path), "next": f"plumbob plan {path}"}, sys.stdout)
    else:
        print(f"{path}: written; next: plumbob plan {path}")
    return OK


def _free(path: Path) -> Path:
    """Where the file will be, checked before anything is asked."""
    with from_outside(f"{path}: cannot be looked at", "give another --output"):
        path = path.expanduser()
        if path.suffix not in (".yaml", ".yml"):
            raise UserError(f"--output={path}: expected a name that ends in .yaml")
        if path.exists() or path.is_symlink():
            raise UserError(f"{path}: is there already, and nothing is overwritten; give another --output")
        if not path.absolute().parent.is_dir():
            raise UserError(f"{path}: its folder is not there; make it, or give another --output")
    return path


def _given(arguments: Namespace) -> Answers:
    if arguments.have is None:
        raise UserError(f"--have: say what there is to learn from: {', '.join(HAVES)}")
    return Answers(
        have=arguments.have,
        file=arguments.file or "",
        method=arguments.method or METHODS[arguments.have][0],
        model=arguments.model or "",
        reward=arguments.reward or "",
        time=arguments.time or "full",
        machine=arguments.machine or _machine(),
        engine=_engine(),
    )


def _asked(arguments: Namespace) -> Answers:
    """One question for each thing that no option says."""
    have = arguments.have or _choice("What do you have?", HAVES)
    file = arguments.file or _text(f"Where are the {have}? (a file, a folder or a pattern)")
    methods = {method: MEANINGS[method] for method in METHODS[have]}
    method = arguments.method or _choice("Which method?", methods)
    base = "a BERT to begin from" if method == "reward" else "a folder, a hub name or an adapter"
    may_be_new = method == "pretrain"
    hint = f"{base}; nothing makes a new one" if may_be_new else base
    model = arguments.model or _text(f"Which model? ({hint})", may_be_empty=may_be_new)
    reward = arguments.reward or (_text(REWARD) if have == "prompts" else "")
    time = arguments.time or _choice("How much time?", TIMES)
    machine = arguments.machine or _choice("On what?", dict(sorted(MACHINES.items(), key=lambda m: m[0] != _machine())))
    return Answers(have, file, method, model, reward, time, machine, _engine())


def _choice(question: str, choices: Mapping[str, str]) -> str:
    """One of the choices by its number or name; nothing typed is the first."""
    if len(choices) == 1:
        return next(iter(choices))
    print(question)
    names = list(choices)
    width = max(map(len, names))
    for number, (name, meaning) in enumerate(choices.items(), start=1):
        print(f"  {number}  {name.ljust(width)}  {meaning}")
    while True:
        typed = typed_answer(f"1-{len(names)} [1]: ")
        if not typed or typed in names:
            return typed or names[0]
        if typed.isdecimal() and 1 <= int(typed) <= len(names):
            return names[int(typed) - 1]
        print(f"  {typed}: give a number from 1 to {len(names)}, or a name")


def _text(question: str, may_be_empty: bool = False) -> str:
    while True:
        typed = typed_answer(f"{question}: ")
        if typed or may_be_empty:
            return typed


def _machine() -> str:
    """By the driver of NVIDIA's, without torch, which takes seconds."""
    return "gpu" if Path("/proc/driver/nvidia/gpus").is_dir() else "cpu"


def _engine() -> str:
    return "transformers" if importlib.util.find_spec("vllm") is None else "vllm"
