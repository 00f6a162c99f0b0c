"""What a chat template ends an assistant's turn with, and that it is what is learnt."""

import time

import pytest
from transformers import AddedToken

from plumbob.configs.settings.data import LengthSettings
from plumbob.data.records import Demonstration, PreferencePair
from plumbob.data.texts.codec import TextCodec
from plumbob.data.texts.turns import ResponseEnds, assistant_turn, control_tokens, opened_tags, without_repeated
from plumbob.data.tokenization import encode_demonstrations, encode_pairs
from tests.support.control_tokenizers import CHATML, LLAMA_2, LLAMA_3, THINKING, byte_tokenizer, space_tokenizer

EOS = "<|endoftext|>"
CHATML_PROMPT = "<|im_start|>user\nWhat is it?<|im_end|>\n<|im_start|>assistant\n"
LLAMA_3_PROMPT = "<|im_start|>user<|sep|>\n\nWhat is it?<|eot_id|><|im_start|>assistant<|sep|>\n\n"


@pytest.mark.parametrize(
    ("template", "prompt", "end"),
    [
        (CHATML, CHATML_PROMPT, "<|im_end|>"),
        (LLAMA_3, LLAMA_3_PROMPT, "<|eot_id|>"),
        (THINKING, f"{CHATML_PROMPT}<think>\n", "<|im_end|>"),
        (CHATML, f"{CHATML_PROMPT}<think>\n\n</think>\n\n", "<|im_end|>"),
        # A text that no template opened, and one by which a person pretends it.
        (CHATML, "What is it?", EOS),
        (CHATML, "<|im_start|>user\nWhat is it?", EOS),
        (None, CHATML_PROMPT, EOS),
    ],
)
def test_a_response_ends_as_the_template_ends_a_turn(template: str | None, prompt: str, end: str) -> None:
    tokenizer = byte_tokenizer(template)
    (encoded,) = encode_demonstrations(tokenizer, [Demonstration(prompt, "Lima")], LengthSettings()).records
    learnt = encoded.ids[encoded.loss_mask]
    assert tokenizer.decode(learnt) == f"Lima{end}"
    assert int(learnt[-1]) == tokenizer.convert_tokens_to_ids(end)
    pair = PreferencePair(prompt, "Lima", "No")
    ((chosen, rejected),) = encode_pairs(tokenizer, [pair], LengthSettings()).records
    assert {int(chosen.ids[-1]), int(rejected.ids[-1])} == {int(learnt[-1])}


@pytest.mark.parametrize(
    "spelt", ["<|im_end|>", "<|im_end|>\n", EOS, f"<|im_end|>\n{EOS}", f"\ufdd0{EOS}", "<|im_end|>" * 3]
)
def test_an_end_that_the_response_spells_is_learnt_once(spelt: str) -> None:
    tokenizer = byte_tokenizer(CHATML)
    rows = [Demonstration(prompt, f"Lima{spelt}") for prompt in (CHATML_PROMPT, "What is it?")]
    turn, text = encode_demonstrations(tokenizer, rows, LengthSettings()).records
    assert tokenizer.decode(turn.ids[turn.loss_mask]) == "Lima<|im_end|>"
    assert tokenizer.decode(text.ids[text.loss_mask]) == f"Lima{EOS}"


def test_a_turn_is_what_the_template_writes_of_it() -> None:
    turn = assistant_turn(space_tokenizer("normalizer", LLAMA_2))
    assert turn is not None
    # "[INST] question [/INST] answer </s>": no prompt is opened, and space stands on both sides of the answer.
    assert (turn.opening, turn.before, turn.closing, turn.end, turn.strips) == (" [/INST]", " ", " ", "</s>", True)
    turn = assistant_turn(byte_tokenizer(CHATML))
    assert turn is not None
    assert (turn.opening, turn.before, turn.after) == ("<|im_start|>assistant", "", "<|im_end|>\n")
    assert not turn.strips


@pytest.mark.parametrize("template", [None, "{{ raise_exception('no') }}", "{{ 1 / 0 }}", "nothing of the messages"])
def test_where_no_turn_can_be_told_a_response_ends_with_the_eos(template: str | None) -> None:
    tokenizer = byte_tokenizer(template)
    assert assistant_turn(tokenizer) is None
    assert ResponseEnds(tokenizer).stop_ids == {tokenizer.eos_token_id}


def test_a_run_of_space_that_is_a_token_ends_no_turn() -> None:
    tokenizer = byte_tokenizer(CHATML.replace("<|im_end|>", "  <|im_end|>"))
    tokenizer.add_tokens([AddedToken("  ", special=False, normalized=False)])
    turn = assistant_turn(tokenizer)
    assert turn is not None
    assert (turn.closing, turn.end) == ("  ", "<|im_end|>")


def test_a_word_behind_an_answer_ends_no_turn() -> None:
    tokenizer = byte_tokenizer(CHATML.replace("<|im_end|>", " over<|im_end|>"))
    tokenizer.add_tokens(["over"])
    turn = assistant_turn(tokenizer)
    assert turn is not None
    assert (turn.closing, turn.end) == (" over", "<|im_end|>")


def test_a_template_that_opens_no_prompt_tells_turns_apart_by_what_it_writes_before_answers() -> None:
    turns = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}<|im_end|>{% endfor %}"
    tokenizer = byte_tokenizer(turns)
    tokenizer.add_tokens([AddedToken(text, special=False) for text in ("<user>", "<assistant>")])
    assert {"<user>", "<assistant>"} <= control_tokens(tokenizer).ids.keys()


def test_a_long_text_is_read_in_time_linear_in_its_length() -> None:
    ends, size = ResponseEnds(byte_tokenizer(CHATML)), 50_000
    begun = time.process_time()
    assert opened_tags("x" + " " * size + "y") == ""
    assert opened_tags("x<b>" + "<b>" * size + "y") == ""
    for text in ("<|im_end|>" * size + "x", "x" + " " * size + "y"):
        assert ends.without_end(text) == text
    assert ends.without_end("x" + "<|im_end|>" * size) == "x"
    assert without_repeated("<b>" * size, "x") == "x"
    # Milliseconds; in time quadratic in the length it would be minutes.
    assert time.process_time() - begun < 10


def test_what_tells_turns_apart_is_a_control_token_though_the_tokenizer_does_not_mark_it() -> None:
    template = THINKING.replace("<|im_start|>", "<|turn|>").replace("<|im_end|>", "<|over|>")
    tokenizer = byte_tokenizer(template)
    tokenizer.add_tokens([AddedToken(text, special=False) for text in ("<|turn|>", "<|over|>", "<think>")])
    control, codec = control_tokens(tokenizer), TextCodec(tokenizer)
    assert {"<|turn|>", "<|over|>", EOS} <= control.ids.keys()
    assert "<think>" not in control.ids  # A word of the vocabulary, which answers write too.
    (ids,) = codec.encode([f"<|turn|>user\n{control.marked('Hi<|over|> <think>')}<|over|>"])
    over, think = tokenizer.convert_tokens_to_ids(["<|over|>", "<think>"])
    assert (ids.tolist().count(over), ids.tolist().count(think)) == (1, 1)
    assert tokenizer.decode(ids) == "<|turn|>user\nHi<|over|> <think><|over|>"


def test_a_turn_without_a_token_of_its_own_ends_with_the_eos() -> None:
    tokenizer = byte_tokenizer("{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:")
    turn = assistant_turn(tokenizer)
    assert turn is not None
    assert (turn.end, turn.end_id) == (EOS, tokenizer.eos_token_id)


@pytest.mark.parametrize(
    ("prompt", "answer", "rest"),
    [
        ("<|im_start|>assistant\n<think>\n", "<think>\nhm\n</think>\nLima", "hm\n</think>\nLima"),
        ("<|im_start|>assistant\n<think>\n", "<think>hm</think>Lima", "hm</think>Lima"),
        ("<|im_start|>assistant\n<think>\n\n</think>\n\n", "<think>\n\n</think>\n\nLima", "Lima"),
        ("<|im_start|>assistant\n<think>\n", "hm</think>Lima", "hm</think>Lima"),
        ("<|im_start|>assistant\n", "<think>hm</think>Lima", "<think>hm</think>Lima"),
    ],
)
def test_what_the_prompt_has_opened_is_not_opened_again(prompt: str, answer: str, rest: str) -> None:
    assert without_repeated(opened_tags(prompt), answer) == rest
