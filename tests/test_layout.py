"""The house: how large its rooms are, and that each name in it means one thing."""

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterator

import pytest

from tests.support.annotated_tree import annotated_tree, tree_in_readme
from tests.support.source_tree import modules, packages, text

MOST_MODULES = 12

WRONG_WORDS = {
    "mistake": "error, user error or planted bug",
    "mistakes": "errors, user errors or planted bugs",
    "mistaken": "wrong, buggy",
    "surroundings": "a Protocol, such as PoolHost",
    "unwatched": "NullListener",
    "watcher": "listener, display",
    "whereabouts": "connection file",
    "outcome": "result",
    "settle": "drain",
    "seat": "reservation",
    "seats": "reservations",
    "seated": "placed",
    "seating": "reservations",
    "staffed": "entry",
    "hire": "start_worker",
    "dismiss": "stop_workers",
    "lacking": "shortage",
    "attend": "poll_control",
}
"""Word of an identifier -> what the field says."""


def test_no_folder_has_more_than_a_dozen_modules() -> None:
    sizes = Counter(module.rpartition(".")[0] for module in modules())
    assert {folder: size for folder, size in sizes.items() if size > MOST_MODULES} == {}


def test_no_two_classes_share_a_name() -> None:
    homes = defaultdict(list)
    for module in modules():
        for node in ast.parse(text(module)).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].append(module)
    assert {name: found for name, found in homes.items() if len(found) > 1} == {}


def test_no_two_modules_share_a_name() -> None:
    """But for settings, which are named after the room that reads them, and commands, after what is typed."""
    homes = defaultdict(list)
    for module in modules():
        if not module.startswith(("configs.settings.", "console.commands.")):
            homes[module.rpartition(".")[2]].append(module)
    assert {name: found for name, found in homes.items() if len(found) > 1} == {}


@pytest.mark.parametrize("module", [*modules(), *packages()])
def test_a_module_begins_with_a_line_that_says_what_is_in_it(module: str) -> None:
    docstring = ast.get_docstring(ast.parse(text(module))) or ""
    first = docstring.partition("\n")[0]
    assert first.endswith(".") and len(first) <= 117, first


def test_the_tree_in_the_readme_is_that_of_the_source() -> None:
    assert tree_in_readme() == annotated_tree(), "run `make tree`"


def identifiers(source: str) -> Iterator[str]:
    """What a source names: classes, functions, arguments, variables and attributes."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name


def wrong_words(source: str) -> set[str]:
    words = (word.lower() for name in identifiers(source) for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name))
    return {f"{word}: say {WRONG_WORDS[word]}" for word in words if word in WRONG_WORDS}


@pytest.mark.parametrize("module", modules())
def test_names_are_made_of_the_words_of_the_field(module: str) -> None:
    assert wrong_words(text(module) + "\n" + "\n".join(f"{part} = 0" for part in module.split("."))) == set()


@pytest.mark.parametrize(
    "source", ["Whereabouts = 1", "def on_outcome(): ...", "class A:\n    def f(self, watcher): self.USER_MISTAKE = 1"]
)
def test_a_wrong_word_is_found(source: str) -> None:
    assert wrong_words(source)


def test_words_within_words_are_left_alone() -> None:
    assert wrong_words("settlement = unmistakable = 1") == set()
