"""`plumbob completion`: the script with which bash, zsh or fish complete commands, options, settings and runs."""

import sys
from argparse import ArgumentParser, Namespace

from plumbob.console.exit_codes import OK

NAME = "completion"
ABOUT = "print what makes a shell complete commands, options, presets, settings and runs at Tab"
EXAMPLE = "plumbob completion bash"

SHELLS = ("bash", "zsh", "fish")

HOW = {
    "bash": 'eval "$(plumbob completion bash)"   in ~/.bashrc',
    "zsh": 'eval "$(plumbob completion zsh)"   in ~/.zshrc, after compinit',
    "fish": "plumbob completion fish | source   in ~/.config/fish/config.fish",
}


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS, help=f"put the line where the shell begins: {HOW['bash']}")


def run(arguments: Namespace) -> int:
    """A person who sees the script on a terminal is told on stderr where it belongs."""
    from argcomplete import shellcode

    print(shellcode(["plumbob"], shell=arguments.shell))
    if sys.stdout.isatty():
        print(f"plumbob: {HOW[arguments.shell]}", file=sys.stderr)
    return OK
