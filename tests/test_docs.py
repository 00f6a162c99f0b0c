"""Files that the documents name are there: in backquotes, from the root of the checkout."""

import importlib.util
import re

import pytest

from tests.support.source_tree import ROOT

DOCUMENTS = ["README.md", *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md"))]
"""Those of today; the decisions in docs/decisions/ are dated, and keep the names of their day."""

FILE = re.compile(r"`([\w.*-]+(?:/[\w.*-]+)+(?:\.(?:py|md|toml|yaml|lock|txt)|/))`")
OUTSIDE = ("runs/", "checkpoints/", "tensorboard/", ".venv/")
"""What a run or an install makes."""


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_that_a_document_names_are_there(document: str) -> None:
    named = FILE.findall((ROOT / document).read_text(encoding="utf-8"))
    assert [name for name in named if not name.startswith(OUTSIDE) and not any(ROOT.glob(name))] == []


def test_fields_of_rows_that_the_documents_name_are_read() -> None:
    table = [
        line for line in (ROOT / "docs/data.md").read_text(encoding="utf-8").splitlines() if line.startswith("| `")
    ]
    named = {name for line in table for name in re.findall(r"`(\w+)`", line.split("|")[2])}
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "data/reading").glob("*.py"))
    assert "answers" in named and [name for name in named if f'"{name}"' not in code] == []


def test_the_site_shows_each_command_with_its_example() -> None:
    """As its help does."""
    spec = importlib.util.spec_from_file_location("generated_pages", ROOT / "docs/site/generated_pages.py")
    assert spec is not None and spec.loader is not None
    pages = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pages)
    page = pages.commands_page()
    assert "\nexample: plumbob runs rm toy toy-2 --yes\n```" in page
    sections = page.split("\n## `")[1:]
    assert len(sections) > 30
    assert [section for section in sections if section.count("\nexample: plumbob ") != 1] == []
