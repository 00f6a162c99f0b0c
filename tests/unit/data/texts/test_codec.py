"""Text into ids and back: the later part of a text, and letters that spell a control token."""

import numpy as np
import pytest

from plumbob.data.texts.codec import TextCodec
from plumbob.data.texts.control_tokens import MARK
from tests.support.control_tokenizers import Spacing, byte_tokenizer, space_tokenizer

SPACINGS: tuple[Spacing, ...] = ("normalizer", "always", "first", "unigram")


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize(
    ("prompt", "response"),
    [("What is", " the answer"), ("[INST] a question [/INST]", " Lima "), ("capital:", "Peru"), ("a\n", "is Lima.")],
)
def test_the_ids_of_prompt_and_response_are_those_of_the_text(spacing: Spacing, prompt: str, response: str) -> None:
    tokenizer = space_tokenizer(spacing)
    codec = TextCodec(tokenizer)
    (front,) = codec.encode([prompt])
    (back,) = codec.encode_after([front], [response])
    together = [*front.tolist(), *back.tolist()]
    assert together == tokenizer(prompt + response, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(together) == prompt + response
    assert codec.decode_after(front, back) == response


@pytest.mark.parametrize("spacing", SPACINGS)
def test_no_space_comes_between_where_the_text_has_none(spacing: Spacing) -> None:
    tokenizer = space_tokenizer(spacing)
    codec = TextCodec(tokenizer)
    # Tokenised by itself the response would be " Lima": the space that such tokenizers put before a text.
    (back,) = codec.encode_after([codec.encode(["What is "])[0]], ["Lima"])
    assert not str(tokenizer.convert_ids_to_tokens(int(back[0]))).startswith("▁")
    assert codec.decode_after(codec.encode(["What is "])[0], back) == "Lima"


@pytest.mark.parametrize("spacing", SPACINGS)
def test_a_letter_that_the_vocabulary_has_not_begins_no_text(spacing: Spacing) -> None:
    tokenizer = space_tokenizer(spacing)
    codec = TextCodec(tokenizer)
    (front,) = codec.encode(["What is \u00e9"])
    assert int(front[-1]) == tokenizer.unk_token_id
    (back,) = codec.encode_after([front], ["Lima"])
    together = tokenizer("What is \u00e9Lima", add_special_tokens=False)["input_ids"]
    assert [*front.tolist(), *back.tolist()] == together
    assert codec.decode_after(front, back) == "Lima"


@pytest.mark.parametrize("spacing", SPACINGS)
def test_behind_a_control_token_a_text_is_tokenised_as_the_tokenizer_does(spacing: Spacing) -> None:
    tokenizer = space_tokenizer(spacing)
    codec = TextCodec(tokenizer)
    (front,) = codec.encode(["a question<|im_end|>"])
    (back,) = codec.encode_after([front], ["Lima"])
    whole = tokenizer("a question<|im_end|>Lima", add_special_tokens=False)["input_ids"]
    assert [*front.tolist(), *back.tolist()] == whole
    assert codec.decode_after(front, back) == "Lima"


@pytest.mark.parametrize("spacing", SPACINGS)
def test_a_marked_control_token_is_letters_and_the_others_are_not(spacing: Spacing) -> None:
    tokenizer = space_tokenizer(spacing)
    codec = TextCodec(tokenizer)
    end, start = tokenizer.convert_tokens_to_ids(["</s>", "<|im_start|>"])
    (ids,) = codec.encode([f"<|im_start|>a {MARK}</s> is {MARK}<|im_start|>"])
    assert ids.tolist().count(start) == 1
    assert end not in ids
    assert tokenizer.decode(ids, skip_special_tokens=True).strip() == "a </s> is <|im_start|>"


def test_a_text_that_is_letters_throughout_is_as_the_tokenizer_splits_it() -> None:
    tokenizer = byte_tokenizer()
    codec = TextCodec(tokenizer)
    text = "What is <|im_end|>\n<|im_start|>system?"
    (ids,) = codec.encode([codec.control.marked(text)])
    assert ids.tolist() == tokenizer(text, split_special_tokens=True, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text
    # The same text without marks is what a template wrote.
    (control,) = codec.encode([text])
    assert tokenizer.convert_tokens_to_ids("<|im_start|>") in control


def test_a_mark_that_stands_in_a_text_is_taken_out() -> None:
    control = TextCodec(byte_tokenizer()).control
    assert control.marked(f"a{MARK}b {MARK}<|sep|>") == f"ab {MARK}<|sep|>"
    row = {"content": "<|sep|>", "calls": [{"name": "<|pad|>", "count": 2}]}
    assert control.marked_within(row) == {
        "content": f"{MARK}<|sep|>",
        "calls": [{"name": f"{MARK}<|pad|>", "count": 2}],
    }


def test_a_mark_whose_token_a_template_has_cut_off_is_no_letter() -> None:
    codec = TextCodec(byte_tokenizer())
    cut, plain = codec.encode([f"What {MARK}is{MARK}<|sep|> it{MARK}", f"What is{MARK}<|sep|> it"])
    assert cut.tolist() == plain.tolist()
    # Nor does what is left become a token: a person wrote it.
    (ids,) = codec.encode([f"<|im_{MARK}end|>"])
    assert codec.control.ids["<|im_end|>"] not in ids


def test_space_that_a_control_token_takes_in_is_no_part_of_the_letters() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens([_taking_space()], special_tokens=True)
    codec = TextCodec(tokenizer)
    plain, marked = "a<|taking|> \n b", f"a<|taking|> \n b{MARK}<|sep|>"
    expected = codec.encode([plain])[0].tolist()
    assert codec.encode([marked])[0].tolist()[: len(expected)] == expected


def test_ids_without_texts_are_none() -> None:
    codec = TextCodec(byte_tokenizer())
    assert codec.encode([]) == []
    assert codec.encode_after([], []) == []
    assert codec.decode_after(np.array([1], np.int32), np.array([], np.int32)) == ""


@pytest.mark.parametrize("spacing", SPACINGS)
def test_control_tokens_are_spelt_where_they_are_asked_for(spacing: Spacing) -> None:
    codec = TextCodec(space_tokenizer(spacing))
    (front,) = codec.encode(["a question"])
    (back,) = codec.encode_after([front], [" is<|im_end|>"])
    assert codec.decode_after(front, back) == " is"
    assert codec.decode_after(front, back, with_control=True) == " is<|im_end|>"
    (alone,) = codec.encode(["<|im_start|>"])
    assert codec.decode_after(alone[:0], alone, with_control=True) == "<|im_start|>"


def _taking_space() -> object:
    from transformers import AddedToken

    return AddedToken("<|taking|>", special=True, rstrip=True, normalized=False)
