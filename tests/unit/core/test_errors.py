"""The tree of errors as it is drawn, against the classes that the source defines."""

import ast
import re

from plumbob.core import errors
from tests.support.source_tree import modules, text

OUTSIDE = {
    *("RowError", "RoleError", "DamagedError"),
    *("NotScored", "EndpointError", "PipeClosed", "Refused", "ChannelClosed", "NoCall"),
}
"""These end no run: a row is skipped or refused by name, a role is misused by code, a checkpoint is passed over; and of
a reward, that a response has no score, or that what gives scores has gone, which become a failure of its part; and that
a text holds no call of a tool."""


def drawn() -> dict[str, str]:
    """Class -> its parent, from the drawing at the head of the module."""
    parents: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"( +(?:[│ ]*[├└]── )?)([A-Z]\w+)(?: {2,}|$)", line)
        if found is None:
            continue
        depth, name = len(found[1]), found[2]
        above = [(other, parent) for other, parent in above if other < depth]
        if above:
            parents[name] = above[-1][1]
        above.append((depth, name))
    return parents


def defined() -> dict[str, str]:
    """Every exception of the source -> the one that it derives from."""
    found = {}
    for module in modules():
        for node in ast.parse(text(module)).body:
            if isinstance(node, ast.ClassDef) and node.bases and isinstance(node.bases[0], ast.Name):
                found[node.name] = node.bases[0].id
    tree = {"Exception", "ValueError", "RuntimeError"}
    while more := {name for name, base in found.items() if base in tree} - tree:
        tree |= more
    return {name: found[name] for name in tree if name in found and name not in OUTSIDE}


def test_the_tree_is_drawn_as_it_is() -> None:
    assert drawn() == defined()
