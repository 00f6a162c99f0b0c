"""A user's working folder whose packages are called as ours are in the checkout; importing one ends the process."""

from pathlib import Path

from tests.support.source_tree import ORDER


def write_packages_of_our_names(folder: Path) -> None:
    for name in ORDER:
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(f"raise SystemExit('the working folder has its own {name}')\n")
    (folder / "models.py").write_text("raise SystemExit('the working folder has its own models.py')\n")
