"""What a model is for and what not (USAGE.md), which no run knows: a template, and what of it nobody filled in."""

import re

USAGE_FILE = "USAGE.md"
TO_FILL_IN = "TO BE FILLED IN"

SECTIONS = {
    "Intended use": "who should use it, for what, in which languages",
    "Out of scope": "what it must not be used for, and what it was never tried on",
    "Who may be affected": "people who do not use it themselves, and what could happen to them",
    "Limits": "what it gets wrong, as far as that is known, and what a person has to check",
    "Oversight": "who decides in the end, and how an answer can be contested",
    "Contact": "where problems are reported, and who answers",
    "Licence": "of the model; that of the base and of the data bind too",
}
"""Heading -> what stands below it."""


def template() -> str:
    """Markdown with every section to be filled in."""
    sections = [f"## {heading}\n\n{TO_FILL_IN}: {what}." for heading, what in SECTIONS.items()]
    return "# Usage guidelines\n\n" + "\n\n".join(sections) + "\n"


def missing_sections(text: str) -> tuple[str, ...]:
    """Headings of the template below which nothing stands, or still what is to be filled in. All of an empty text."""
    parts = re.split(r"^#+ +(.+?) *#*$", text, flags=re.MULTILINE)
    written = dict(zip(parts[1::2], parts[2::2], strict=True))
    return tuple(
        heading for heading in SECTIONS if not written.get(heading, "").strip() or TO_FILL_IN in written[heading]
    )


def usage_notes(text: str) -> tuple[str, ...]:
    """A sentence where a section is missing."""
    missing = missing_sections(text)
    if not missing:
        return ()
    sections = ", ".join(heading.lower() for heading in missing)
    return (f"usage guidelines are missing: fill in {USAGE_FILE} ({sections}), or export with --usage=FILE",)
