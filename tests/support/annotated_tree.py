"""The tree with its first lines: folders in the README, files in docs/layout.md. `make tree` writes both anew."""

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.support.source_tree import BESIDE, ORDER, ROOT

FOLDERS_PAGE, FILES_PAGE = ROOT / "README.md", ROOT / "docs/layout.md"
BEGIN, END = "<!-- the tree, written by `make tree` -->\n```\n", "```\n<!-- end of the tree -->\n"

WITHOUT_PYTHON = {
    "configs/presets": "One YAML file each, such as toy.yaml.",
    "console/web/static": "The pages themselves: an address (lib/router.js) becomes a view (lib/view_table.js).",
    "console/web/static/components": "What several views are made of.",
    "console/web/static/css": "Style sheets.",
    "console/web/static/lib": "What is not drawn: addresses, the server, keys, formats.",
    "console/web/static/pairs": "Parts of the view of that name.",
    "console/web/static/rollouts": "Parts of the view of that name.",
    "console/web/static/tokens": "Parts of the view of that name.",
    "console/web/static/vendor": "Libraries of others, as published.",
    "console/web/static/views": "The views, one file each. Add new ones here.",
}
"""Folders whose line stands in no `__init__.py`."""


def annotated_tree(with_files: bool) -> str:
    rows = [row for folder in (*ORDER, *BESIDE) for row in _rows(ROOT / folder, 0, with_files)]
    width = max(len(name) for name, _ in rows)
    return "".join(f"{name:{width}}  {note}".rstrip() + "\n" for name, note in rows)


def tree_in(page: Path) -> str:
    text = page.read_text(encoding="utf-8")
    return text[text.index(BEGIN) + len(BEGIN) : text.index(END)]


def write_tree(page: Path, tree: str) -> None:
    text = page.read_text(encoding="utf-8")
    begin, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    page.write_text(text[:begin] + tree + text[end:], encoding="utf-8")


def _rows(folder: Path, depth: int, with_files: bool) -> Iterator[tuple[str, str]]:
    """A folder's own line, then its modules, then its folders, each indented below it."""
    known = WITHOUT_PYTHON.get(folder.relative_to(ROOT).as_posix())
    yield f"{'  ' * depth}{folder.name}/", known or _first_line(folder / "__init__.py")
    for path in sorted(folder.iterdir(), key=lambda path: (path.is_dir(), path.name)):
        if (path / "__init__.py").is_file() or path.relative_to(ROOT).as_posix() in WITHOUT_PYTHON:
            yield from _rows(path, depth + 1, with_files)
        elif with_files and path.suffix in (".py", ".js") and path.name != "__init__.py":
            yield f"{'  ' * (depth + 1)}{path.name}", _first_line(path)


def _first_line(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".js":
        return text.partition("\n")[0].removeprefix("// ")
    return (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]


if __name__ == "__main__":
    write_tree(FOLDERS_PAGE, annotated_tree(with_files=False))
    write_tree(FILES_PAGE, annotated_tree(with_files=True))
