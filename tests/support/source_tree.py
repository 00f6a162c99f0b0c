"""What is imported by whom in the source, read from its text."""

import ast
from collections.abc import Iterator, Mapping, Set
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]


def setup_folders() -> tuple[str, ...]:
    """The folders that setup.py installs below `plumbob`, read from its text."""
    (found,) = (
        node.value
        for node in ast.parse((ROOT / "setup.py").read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "FOLDERS"
    )
    return tuple(ast.literal_eval(found))


ORDER = setup_folders()
"""The folders of the source; each imports those before it and itself."""


BESIDE = ("benchmarks", "examples")
"""Folders of code that are not installed, and held to the size of rooms, first lines and words as the source is."""


def source_files() -> list[str]:
    """Paths below the root, with forward slashes."""
    return sorted(path.relative_to(ROOT).as_posix() for folder in ORDER for path in (ROOT / folder).rglob("*.py"))


def modules() -> list[str]:
    """Dotted names without `plumbob.`; packages, which hold nothing, are left out."""
    return [path[:-3].replace("/", ".") for path in source_files() if not path.endswith("__init__.py")]


def packages() -> list[str]:
    """Dotted names of the `__init__` modules."""
    return [path[:-3].replace("/", ".") for path in source_files() if path.endswith("__init__.py")]


def modules_beside() -> list[str]:
    """Modules of `BESIDE`, by their dotted names."""
    found = (path.relative_to(ROOT) for folder in BESIDE for path in (ROOT / folder).rglob("*.py"))
    return sorted(path.with_suffix("").as_posix().replace("/", ".") for path in found if path.stem != "__init__")


def text(module: str) -> str:
    return (ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")


def imported_modules(source: str) -> Iterator[str]:
    """Every module that the source imports, wherever in it: `from a import b` yields a.b, since b may be a module."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (name.name for name in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                yield from (f"{'.' * level}{module or ''}.{name.name}" for name in names)
            case ast.Call(func=ast.Attribute(attr="import_module") | ast.Name(id="import_module" | "__import__")):
                yield from (str(arg.value) for arg in node.args[:1] if isinstance(arg, ast.Constant))


@cache
def arrows() -> Mapping[str, Set[str]]:
    """Module -> the modules of ours that it imports."""
    known = set(modules())
    found: dict[str, set[str]] = {}
    for module in known:
        named = [
            name.removeprefix("plumbob.") for name in imported_modules(text(module)) if name.startswith("plumbob.")
        ]
        found[module] = {name if name in known else name.rpartition(".")[0] for name in named} & known
    return found


def rings(graph: Mapping[str, Set[str]]) -> list[list[str]]:
    """Groups of nodes that reach one another (Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in graph.get(node, frozenset()):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            ring = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(ring) > 1:
                found.append(sorted(ring))

    for node in graph:
        if node not in index:
            visit(node)
    return found
