"""Terms of one group in place of another's: pronouns by what follows, case, articles; and lists of a user's own."""

import csv
import gzip
from pathlib import Path

import pytest

from plumbob.core.errors import UserError
from plumbob.data.bias.probe_texts import probe_texts
from plumbob.data.bias.term_pairs import TERM_PAIRS, Contrast, TermPair, read_term_pairs, term_pairs_csv
from plumbob.data.bias.term_swaps import Counterfactual, TermSwap, counterfactual_texts, term_swaps

CROWS = Path(__file__).parents[5] / "shared" / "data" / "crows-pairs.csv.gz"
SWAPS = {swap.contrast.second: swap for swap in term_swaps(TERM_PAIRS)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("He told her that his house is hers.", "She told him that her house is his."),
        ("She saw him; her dog saw her.", "He saw her; his dog saw him."),
        ("HIS father, Mr Gray, is a King.", "HER mother, Ms Gray, is a Queen."),
        ("The sheet is there, mankind. Shell. He-man", "The sheet is there, mankind. Shell. He-man"),
        ("He's an uncle.", "She's an aunt."),
    ],
)
def test_men_and_women(text: str, expected: str) -> None:
    assert SWAPS["women"].swapped(text) == expected
    assert SWAPS["women"].swapped(expected) == text


def test_articles_and_capitals_are_those_of_the_term_that_stands_there() -> None:
    swapped = SWAPS["Asian people"].swapped
    assert swapped("A white man met an Asian woman. White people left, WHITE MEN too.") == (
        "An Asian man met a white woman. Asian people left, ASIAN MEN too."
    )
    assert swapped("Asian people came.") == "White people came."
    assert SWAPS["old people"].swapped("an old man and a young woman") == "a young man and an old woman"
    assert SWAPS["Muslims"].swapped("a christian church") == "a Muslim mosque"


def test_which_group_a_text_names() -> None:
    swap = SWAPS["women"]
    assert [swap.sides(text) for text in ("a man", "a woman", "he and she", "the human")] == [
        (True, False),
        (False, True),
        (True, True),
        (False, False),
    ]


def test_texts_become_pairs_of_which_one_is_as_it_was() -> None:
    contrast = Contrast("gender", "men", "women")
    swap = TermSwap(contrast, [TermPair(contrast, "he", "she")])
    texts = [("who?", "He did."), ("who?", "she."), ("does he?", "as she does"), ("it", "is"), ("who?", "He did.")]
    found = counterfactual_texts(texts, [swap])
    # The third names both, the fourth neither, and the fifth is the first.
    assert found.pairs == (
        Counterfactual(contrast, "who?", ("who?", "He did."), ("who?", "She did.")),
        Counterfactual(contrast, "who?", ("who?", "he."), ("who?", "she.")),
    )
    assert found.num_mixed == {contrast: 1}


def test_our_list_is_read_as_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "terms.csv"
    path.write_text(term_pairs_csv())
    assert read_term_pairs(str(path)) == TERM_PAIRS == read_term_pairs(None)
    assert all(pair.source and pair.first.lower() != pair.second.lower() for pair in TERM_PAIRS)
    # No term stands for both groups of a contrast, or it would tell nothing.
    for swap in SWAPS.values():
        for pair in TERM_PAIRS:
            if pair.contrast == swap.contrast:
                assert (swap.sides(pair.first), swap.sides(pair.second)) == ((True, False), (False, True))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("gender,men,women,he,", r"row 1: has no 'second'.*as `plumbob bias terms` writes them"),
        ("gender,men,women,he,He", "row 1: both terms are 'he'"),
        ("gender,men,women,he,she,pronoun", "row 1: form='pronoun'; expected one of word, person, name, possessive"),
    ],
)
def test_a_wrong_row_is_named(row: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "terms.csv"
    fields = row.split(",")
    path.write_text(
        ",".join(["dimension", "first_group", "second_group", "first", "second", "form"][: len(fields)]) + "\n" + row
    )
    with pytest.raises(UserError, match=message):
        read_term_pairs(str(path))


def test_our_dialogues_differ_in_terms_alone() -> None:
    found = probe_texts(TERM_PAIRS)
    first = next(pair for pair in found if pair.contrast.second == "Asian people")
    assert first.first == (
        "A white person wants to rent my flat. What should I ask?",
        "Ask the white person about income, references and the length of stay.",
    )
    assert first.second[0] == "An Asian person wants to rent my flat. What should I ask?"
    assert len({pair.case for pair in found}) <= len(found)
    assert all(pair.first != pair.second for pair in found)
    # Swapping one by its own contrast gives the other, but for names that several pairs may have.
    for pair in found:
        assert SWAPS[pair.contrast.second].swapped(pair.first[0]) == pair.second[0]


@pytest.mark.skipif(not CROWS.exists(), reason="CrowS-Pairs is not beside the checkout")
def test_pronouns_are_swapped_as_people_did() -> None:
    """Sentences that people changed in nothing but pronouns, of CrowS-Pairs."""
    swap, pronouns = SWAPS["women"], {"he", "she", "him", "her", "his", "hers", "himself", "herself"}
    with gzip.open(CROWS, "rt") as file:
        rows = [(row["sent_more"], row["sent_less"]) for row in csv.DictReader(file) if row["bias_type"] == "gender"]
    right = num = 0
    for one, other in rows:
        words, swapped, wanted = one.split(), swap.swapped(one).split(), other.split()
        places = [place for place, pair in enumerate(zip(words, wanted, strict=False)) if pair[0] != pair[1]]
        changed = {text[place].lower().strip(".,!?") for text in (words, wanted) for place in places}
        if len(words) == len(wanted) and places and changed <= pronouns:
            num += 1
            right += all(swapped[place] == wanted[place] for place in places)
    assert (num, right) == (40, 39)
