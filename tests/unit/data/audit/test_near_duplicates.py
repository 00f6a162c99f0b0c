"""Which texts are nearly the same: similarities by hand, and planted duplicates among other texts."""

import random

import pytest

from plumbob.data.audit.near_duplicates import bands_for, near_between, near_within
from plumbob.data.audit.word_shingles import jaccard, shingles_of, telling_shingles, words_of

NONE: frozenset[str] = frozenset()
WORDS = ("car", "road", "wheel", "lamp", "door", "seat", "glass", "tyre", "engine", "brake", "horn", "belt", "rain")


def sentence(rng: random.Random, num_words: int) -> list[str]:
    return [f"{rng.choice(WORDS)}{rng.randrange(50)}" for _ in range(num_words)]


def test_case_and_punctuation_are_no_difference_and_signs_are() -> None:
    assert words_of("Hello, World! (What's 2+2?)") == ["hello", "world", "(", "what", "s", "2", "+", "2", ")"]
    assert words_of("2 - 3 = ?") != words_of("2 + 3 = ?")


def test_similarity_is_the_share_of_common_shingles() -> None:
    one, other = (shingles_of(text.split()) for text in ("a b c d e", "a b c d f"))
    # abc, bcd, cde against abc, bcd, cdf: two of four.
    assert jaccard(one, other) == 0.5
    assert shingles_of(["a"]) == {"a"} and shingles_of([]) == frozenset()
    assert jaccard(one, frozenset()) == 0.0


@pytest.mark.parametrize("similarity", [0.5, 0.7, 0.8, 0.9, 1.0])
def test_hardly_a_text_that_is_similar_enough_has_no_band_in_common(similarity: float) -> None:
    bands, rows = bands_for(similarity)
    assert bands * rows <= 128
    assert (1 - similarity**rows) ** bands <= 0.001
    # As selective as that allows: with a hash more in each band more would be missed.
    assert rows == 128 or (1 - similarity ** (rows + 1)) ** (128 // (rows + 1)) > 0.001


def test_planted_near_duplicates_are_found_and_nothing_else() -> None:
    rng = random.Random(1)
    texts = [" ".join(sentence(rng, 60)) for _ in range(300)]
    # A word changed in the middle of sixty: of 58 shingles each 55 are common, 55 / 61 = 0.90.
    words = texts[7].split()
    texts.append(" ".join([*words[:30], "other", *words[31:]]))
    texts.append(texts[8].upper() + "!")
    # Nine words spread over the text: 31 / (58 + 27) = 0.36, no duplicate.
    texts.append(" ".join("new" if place % 7 == 3 else word for place, word in enumerate(texts[9].split())))
    found = near_within(texts, [NONE] * len(texts), 0.8)
    assert [(one.text, one.other) for one in found] == [(300, 7), (301, 8)]
    assert found[0].similarity == pytest.approx(55 / 61) and found[1].similarity == 1.0


def test_a_part_must_be_similar_too() -> None:
    prompt = " ".join(sentence(random.Random(2), 80))
    texts = [f"{prompt} yes indeed", f"{prompt} not at all", f"{prompt}, yes indeed"]
    parts = [shingles_of(words_of(text)) for text in ("yes indeed", "not at all", "yes, indeed")]
    assert [(one.text, one.other) for one in near_within(texts, parts, 0.8)] == [(2, 0)]


def test_what_a_template_puts_around_every_prompt_makes_none_alike() -> None:
    frame = "you are a helpful assistant that answers each question shortly and politely"
    prompts = [f"{frame}: what is the price of {word}{number}?" for number in range(2) for word in WORDS]
    assert near_between(prompts[:20], prompts[20:], 0.8) == {}
    # With it these two would be: 15 of 17 shingles are the same.
    whole = [shingles_of(words_of(prompt)) for prompt in prompts[:2]]
    assert jaccard(*whole) == pytest.approx(15 / 17)
    telling = telling_shingles(prompts)
    assert jaccard(*telling[:2]) == 0.0
    # Of too few texts nothing can be told.
    assert telling_shingles(prompts[:2]) == whole


def test_between_two_sides_a_text_is_not_nearly_itself() -> None:
    rng = random.Random(3)
    held = [" ".join(sentence(rng, 40)) for _ in range(50)]
    train = [" ".join(sentence(rng, 40)) for _ in range(50)] + [held[3], held[4].title() + "."]
    assert near_between(train, held, 0.8) == {train[-1]: held[4]}
    assert near_between(train, [], 0.8) == near_between([], held, 0.8) == {}
    assert near_between(["!!", "..."], ["?"], 0.8) == {}
