"""Prompt and response as a BERT reward model reads them."""

import pytest
from tokenizers.processors import TemplateProcessing

from plumbob.reward.reward_models.bert_encoding import EncodedPair, encode_pairs, pad_pairs
from tests.support.control_tokenizers import space_tokenizer
from tests.support.tiny_scorer import CLS, PAD, SEP, UNK, A, bert_tokenizer

PAIRS = [("a b c", "d e"), ("a", "b c d e f g h"), ("", "x"), ("p q r s t u v w", ""), ("a b", "c")]


def ids(text: str) -> list[int]:
    names = {"C": CLS, "S": SEP}
    return [names.get(letter, A + ord(letter) - ord("a")) for letter in text]


@pytest.mark.parametrize(
    ("max_tokens", "expected"),
    [
        (9, "CabcSxyS"),
        (8, "CabcSxyS"),
        (7, "CbcSxyS"),  # the beginning of the prompt goes first
        (5, "CSxyS"),  # then all of it
        (4, "CSxS"),  # a response that does not fit alone keeps its head
    ],
)
def test_what_is_too_long_loses_the_beginning_of_the_prompt_first(max_tokens, expected):
    (found,) = encode_pairs(bert_tokenizer(), [("a b c", "x y")], max_tokens)
    assert found.input_ids == ids(expected)
    # 0 up to the first [SEP], 1 after it.
    first = expected.index("S") + 1
    assert found.token_type_ids == [0] * first + [1] * (len(expected) - first)


def test_a_pair_that_fits_is_what_the_tokenizer_itself_makes():
    tokenizer = bert_tokenizer()
    for (prompt, response), found in zip(PAIRS, encode_pairs(tokenizer, PAIRS, 32), strict=True):
        expected = tokenizer([prompt], [response])
        assert [found.input_ids] == expected.input_ids
        assert [found.token_type_ids] == expected.token_type_ids


def test_a_truncation_and_padding_stored_in_the_tokenizer_do_not_reach_the_text():
    # tokenizer.json files of sentence encoders carry both.
    tokenizer = bert_tokenizer()
    tokenizer.backend_tokenizer.enable_truncation(max_length=4)
    tokenizer.backend_tokenizer.enable_padding(length=12)
    (found,) = encode_pairs(tokenizer, [("a b c", "x y")], 32)
    assert found.input_ids == ids("CabcSxyS")


@pytest.mark.parametrize("spelt", ["[SEP]", "[CLS]", "\ufdd0[SEP]"])
def test_a_control_token_that_a_text_spells_is_letters(spelt):
    for pair in [(f"a {spelt} b", "x"), ("a", f"x {spelt}")]:
        (found,) = encode_pairs(bert_tokenizer(), [pair], 32)
        # "[", the word and "]", none of which the vocabulary has.
        assert (found.input_ids.count(CLS), found.input_ids.count(SEP)) == (1, 2)
        assert found.input_ids.count(UNK) == 3


def test_a_vocabulary_that_has_the_control_token_as_a_word_does_not_read_it():
    tokenizer = space_tokenizer("unigram")
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    (found,) = encode_pairs(tokenizer, [("What is </s> it", "Lima")], 64)
    assert (found.input_ids.count(1), found.input_ids.count(2)) == (1, 2)


def test_padding_is_on_the_right_and_masked():
    inputs = pad_pairs(bert_tokenizer(), [EncodedPair([2, 3, 9, 3], [0, 0, 1, 1]), EncodedPair([2, 3], [0, 0])])
    assert inputs["input_ids"].tolist() == [[2, 3, 9, 3], [2, 3, PAD, PAD]]
    assert inputs["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert inputs["token_type_ids"].tolist() == [[0, 0, 1, 1], [0, 0, 0, 0]]
