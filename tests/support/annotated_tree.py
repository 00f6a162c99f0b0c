"""The README's annotated tree: every folder and module with its first line. `make tree` writes it anew."""

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.support.source_tree import BESIDE, ORDER, ROOT

README = ROOT / "README.md"
BEGIN, END = "<!-- the tree, written by `make tree` -->\n```\n", "```\n<!-- end of the tree -->\n"


def annotated_tree() -> str:
    rows = [row for folder in (*ORDER, *BESIDE) for row in _rows(ROOT / folder, 0)]
    width = max(len(name) for name, _ in rows)
    return "".join(f"{name:{width}}  {note}".rstrip() + "\n" for name, note in rows)


def tree_in_readme() -> str:
    text = README.read_text(encoding="utf-8")
    return text[text.index(BEGIN) + len(BEGIN) : text.index(END)]


def write_tree() -> None:
    text = README.read_text(encoding="utf-8")
    begin, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    README.write_text(text[:begin] + annotated_tree() + text[end:], encoding="utf-8")


def _rows(folder: Path, depth: int) -> Iterator[tuple[str, str]]:
    """A folder's own line, then its modules, then its folders, each indented below it."""
    yield f"{'  ' * depth}{folder.name}/", _first_line(folder / "__init__.py")
    for path in sorted(folder.iterdir(), key=lambda path: (path.is_dir(), path.name)):
        if (path / "__init__.py").is_file():
            yield from _rows(path, depth + 1)
        elif any(path.glob("*.yaml")):
            yield f"{'  ' * (depth + 1)}{path.name}/", "One YAML file each, such as toy.yaml."
        elif path.suffix == ".py" and path.name != "__init__.py":
            yield f"{'  ' * (depth + 1)}{path.name}", _first_line(path)


def _first_line(path: Path) -> str:
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]


if __name__ == "__main__":
    write_tree()
