"""Usage guidelines: what of the template is still missing."""

from plumbob.driver.result.usage_guidelines import SECTIONS, missing_sections, template, usage_notes


def test_of_the_template_and_of_nothing_everything_is_missing() -> None:
    assert missing_sections(template()) == missing_sections("") == tuple(SECTIONS)


def test_what_was_filled_in_is_not_missing() -> None:
    text = template().replace("TO BE FILLED IN: who should use it, for what, in which languages.", "Pupils, for sums.")
    assert missing_sections(text) == tuple(heading for heading in SECTIONS if heading != "Intended use")
    written = "\n".join(f"### {heading} ###\nYes." for heading in SECTIONS if heading != "Limits") + "\n## Limits\n \n"
    assert missing_sections(written) == ("Limits",)
    assert usage_notes(written) == (
        "usage guidelines are missing: fill in USAGE.md (limits), or export with --usage=FILE",
    )
    assert usage_notes(written + "It cannot count past a hundred.") == ()
