"""Answers a shell that asks, by argcomplete's protocol, what could stand where Tab was pressed."""

import os
from argparse import ArgumentParser
from collections.abc import Callable, Sequence

import argcomplete


def answer_shell(parser_of_words: Callable[[Sequence[str]], ArgumentParser]) -> None:
    """Print what could stand there, and end the process.

    Args:
        parser_of_words: the parser with all options of the command that is among the words of the line so far.
    """
    words = os.environ.get("COMP_LINE", "").split()
    argcomplete.autocomplete(parser_of_words(words[1:]), always_complete_options=False)
