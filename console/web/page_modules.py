"""The pages' modules, styles and texts inside one file: a browser imports no module of a disk (`one_file`)."""

import base64
import hashlib
import json
import posixpath
import re
from html import escape
from pathlib import Path
from typing import Any

from plumbob.console.web.run_files.run_content import strict_json

INDEX = "index.html"
DATA_ID = "exported-run"
SPECIFIER = re.compile(r"""(\bfrom\s*|\bimport\s*\(?\s*)(["'])(\.{1,2}/[^"'\n]+)\2""")
"""What a module imports, by its relative path."""

STYLE = re.compile(r'<link rel="stylesheet" href="([^"]+)">\s*')
ENTRY = re.compile(r'<script type="module" src="([^"]+)"></script>\s*')


def one_file(static: Path, title: str, content: Any) -> bytes:
    """The page with everything inside it, and `content` as JSON for its scripts.

    Each module becomes a data: URL of an import map, by its path: a module says `import "lib/html.js"` there.

    Args:
        static: the folder of the page, its modules and styles.
    """
    page = (static / INDEX).read_text(encoding="utf-8")
    styles = "\n".join(_served(static, path).read_text(encoding="utf-8") for path in STYLE.findall(page))
    (entry,) = ENTRY.findall(page)
    imports = {
        path: f"data:text/javascript;base64,{base64.b64encode(source.encode()).decode()}"
        for path, source in modules_from(static, _name(entry)).items()
    }
    import_map = json.dumps({"imports": imports})
    start = f"import {json.dumps(_name(entry))};"
    policy = (
        f"default-src 'none'; script-src data: '{_digest(import_map)}' '{_digest(start)}'; style-src 'unsafe-inline'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    data = strict_json(content).decode().replace("<", "\\u003c")
    head = (
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n<style>\n{_harmless(styles)}\n</style>\n'
        f'<script type="application/json" id="{DATA_ID}">{data}</script>\n'
        f'<script type="importmap">{import_map}</script>\n<script type="module">{start}</script>\n'
    )
    page = STYLE.sub("", ENTRY.sub("", page))
    before, _, after = page.partition("<title>")
    _, _, after = after.partition("</title>")
    return f"{before}{head}<title>{escape(title)}</title>{after}".encode()


def modules_from(static: Path, entry: str) -> dict[str, str]:
    """Path below `static` -> source, of a module and all that it imports, by paths that an import map knows."""
    found: dict[str, str] = {}
    names = [entry]
    while names:
        name = names.pop()
        if name in found:
            continue

        def absolute(match: re.Match[str], folder: str = posixpath.dirname(name)) -> str:
            path = posixpath.normpath(posixpath.join(folder, match[3]))
            names.append(path)
            return f"{match[1]}{match[2]}{path}{match[2]}"

        found[name] = SPECIFIER.sub(absolute, _served(static, name).read_text(encoding="utf-8"))
    return found


def _name(address: str) -> str:
    """Below the folder of static files."""
    return address.removeprefix("/").removeprefix("static/")


def _served(static: Path, address: str) -> Path:
    path = (static / _name(address)).resolve()
    if not path.is_relative_to(static.resolve()):
        raise ValueError(f"{address} is not below {static}")
    return path


def _harmless(style: str) -> str:
    """Nothing in it ends the element that it stands in."""
    return style.replace("</", "<\\/")


def _digest(script: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"
