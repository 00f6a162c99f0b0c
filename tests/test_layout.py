"""The house: how large its rooms are, and that each name in it means one thing."""

import ast
from collections import Counter, defaultdict

import pytest

from tests.support.source_tree import modules, text

MOST_MODULES = 12


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


@pytest.mark.parametrize("module", modules())
def test_a_module_begins_with_a_line_that_says_what_is_in_it(module: str) -> None:
    docstring = ast.get_docstring(ast.parse(text(module))) or ""
    first = docstring.partition("\n")[0]
    assert first.endswith(".") and len(first) <= 117, first
