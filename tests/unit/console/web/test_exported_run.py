"""A run as one file without a server."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from plumbob.console.cli import main
from plumbob.console.web.page_modules import modules_from, one_file
from tests.support.finished_run import HOSTILE

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Plumbob</title>
<link rel="stylesheet" href="static/css/a.css">
<link rel="stylesheet" href="/static/css/b.css">
<script type="module" src="static/app.js"></script>
</head><body><div id="app"></div></body></html>
"""


@pytest.fixture
def static(tmp_path: Path) -> Path:
    """Modules that import one another in each of the ways that there are."""
    files = {
        "index.html": PAGE,
        "css/a.css": "a { color: red }",
        "css/b.css": "b::after { content: '</style>' }",
        "app.js": 'import { a } from "./lib/a.js";\n'
        'const later = () => import("./views/b.js");\nexport const text = "./x.js";\n',
        "lib/a.js": "import '../vendor/v.js'; export const a = 1;",
        "views/b.js": 'export { a } from "../lib/a.js";',
        "vendor/v.js": "export default 1",
    }
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    return tmp_path


def inside(page: str, kind: str) -> Any:
    (found,) = re.findall(rf'<script type="{kind}"[^>]*>(.*?)</script>', page, re.DOTALL)
    return found


def test_modules_name_what_they_import_by_its_place(static: Path) -> None:
    found = modules_from(static, "app.js")
    assert set(found) == {"app.js", "lib/a.js", "views/b.js", "vendor/v.js"}
    assert 'from "lib/a.js"' in found["app.js"] and 'import("views/b.js")' in found["app.js"]
    assert 'text = "./x.js"' in found["app.js"]
    assert found["lib/a.js"].startswith("import 'vendor/v.js'") and 'from "lib/a.js"' in found["views/b.js"]


def test_everything_is_inside_the_file_and_nothing_gets_out_of_its_place(static: Path) -> None:
    page = one_file(static, HOSTILE, {"text": f"</script>{HOSTILE}", "number": float("nan")}).decode()
    assert json.loads(inside(page, "application/json")) == {"text": f"</script>{HOSTILE}", "number": None}
    imports = json.loads(inside(page, "importmap"))["imports"]
    source = base64.b64decode(imports["views/b.js"].partition(",")[2]).decode()
    assert source == 'export { a } from "lib/a.js";'
    assert inside(page, "module") == 'import "app.js";'
    assert page.count("<script>alert") == 0 and page.count("</style>") == 1
    assert 'src="' not in page and 'href="' not in page and "script-src data: 'sha256-" in page


def test_the_file_has_a_sample_of_the_run(client: httpx.Client) -> None:
    answer = client.get("/api/runs/nested~ppo/export.html")
    assert answer.headers["content-disposition"] == 'attachment; filename="nested-ppo.html"'
    data = json.loads(inside(answer.text, "application/json"))
    assert data["run"] == "nested~ppo" and data["session"]["can_steer"] is False
    base = "/api/runs/nested~ppo"
    assert set(data["answers"]) == {
        *("/api/runs", base, f"{base}/events", f"{base}/config", f"{base}/metrics", f"{base}/metrics?stage=ppo")
    }
    assert len(data["answers"][f"{base}/metrics"]["records"]) == 30
    sample = data["rollouts"]["ppo"]
    assert sample["total"] == 65 and sample == data["rollouts"][""] and data["pairs"] == {}
    assert {row["step"] for row in sample["rows"]} == {1, 9, 30}
    groups = [(row["step"], row["group"]["index"]) for row in sample["rows"] if row["step"] != 9]
    assert all(groups.count(group) == 4 for group in groups)  # Whole groups.
    assert "tokens" in sample["rows"][0] and HOSTILE not in answer.text


def test_the_command_writes_the_file(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "toy.html"
    assert main(["ui", str(runs / "toy"), "--export", str(file)]) == 0
    assert capsys.readouterr().out.strip() == str(file)
    assert json.loads(inside(file.read_text(), "application/json"))["run"] == "toy"
    assert main(["ui", str(runs), "--export", str(file)]) == 2
    assert "there is no run" in capsys.readouterr().err
