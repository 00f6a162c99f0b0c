"""Words, sentences, paragraphs and items, each counted by hand."""

import pytest

from plumbob.reward.rules.counting import num_items, num_paragraphs, num_sentences, num_words


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        (" \n\t ", 0),
        ("... --- !!!", 0),
        ("one", 1),
        ("Don't stop: twenty-one days, 3.5 km", 7),  # Don't stop twenty-one days 3 5 km
        ("l’été à l'école", 3),
        ("snake_case", 2),
        ("हिन्दी भाषा", 2),
        ("我喜欢茶。你呢？", 2),
        ("```python\nprint(1)\n```", 3),
    ],
)
def test_words(text: str, count: int) -> None:
    assert num_words(text) == count


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("...", 0),
        ("No full stop", 1),
        ("One. Two! Three? Four…", 4),
        ("What?! Really", 2),
        ('He said "Stop." Then he left.', 2),
        ("Dr. Smith paid $3.50, e.g. for tea, to J. Brown in the U.S. on Nov 3.", 1),
        ("We met in the U.S. He left at 5 p.m. with tea, etc. and milk. Then no. 3 came", 4),
        ("It is 3.14. Not 3.", 2),
        ("Well... maybe", 1),
        ("Well... Maybe", 2),
        ("It was me and I. He agreed.", 2),
        ("all small. letters too. here.", 3),
        ("See example.com or a.b for more", 1),
        ("A line\nthat continues", 1),
        ("First\n\nSecond", 2),
        ("我喜欢茶。你呢？好！", 3),
        ("यह एक है। यह दो है।", 2),
        # What hides from full stops counts too.
        ("I like:\n- tea\n- milk\n1. water", 4),
        ("# Title\nText.", 2),
        ("One sentence.\n```python\na = 1. + b\nprint(a. b)\n```", 2),
        ("```\nx = 1\n```\nDone.", 2),
    ],
)
def test_sentences(text: str, count: int) -> None:
    assert num_sentences(text) == count


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("\n\n\n", 0),
        ("one\nstill one", 1),
        ("one\n\ntwo\n \t\nthree\n", 3),
        ("one\n\n---\n\ntwo", 2),
        ("one\n\n```\na = 1\n\nb = 2\n```\n\ntwo", 3),
    ],
)
def test_paragraphs(text: str, count: int) -> None:
    assert num_paragraphs(text) == count


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("no list, - really", 0),
        ("- a\n- b\n  - c", 3),
        ("* a\n+ b\n• c", 3),
        ("1. a\n2) b\n(3) c\n10. d", 4),
        ("-a\n1.b\n- \n2.", 0),
        ("3.5 litres\n2026 was", 0),
        ("```\n- a\n- b\n```\n- c", 1),
        ("~~~~\n- a\n~~~\n- b\n~~~~\n- c", 1),
    ],
)
def test_items(text: str, count: int) -> None:
    assert num_items(text) == count
