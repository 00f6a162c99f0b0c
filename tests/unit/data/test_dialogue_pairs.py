"""Pairs of dialogues: what both have alike is the prompt, and what of each side is learnt, written out by hand."""

from pathlib import Path
from typing import Any

import pytest

from plumbob.configs.settings.data import LengthSettings, ReadingSettings
from plumbob.core.errors import UserError
from plumbob.data.dialogues import encode_dialogue_pairs
from plumbob.data.reading.readers import read_dialogue_pairs, read_pairs, read_prompts
from plumbob.data.records import Demonstration, Dialogue, DialoguePair
from plumbob.data.rendered_rows import sequence_rows
from plumbob.data.texts.chat_text import chat_renderer, plain_dialogue
from plumbob.data.tokenization import EncodedRecords, TokenSequence, encode_pairs
from tests.support.chat_rows import dialogue, parts, saved
from tests.support.control_tokenizers import CHATML, byte_tokenizer
from tests.support.public_templates import public_tokenizer

RULES = ReadingSettings()
OPENED = "<|im_start|>assistant\n"
ASKED = f"<|im_start|>user\nHi<|im_end|>\n{OPENED}Hello!<|im_end|>\n<|im_start|>user\nWho?<|im_end|>\n{OPENED}"


def messages(*contents: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = dialogue(*contents)["messages"]
    return found


def encoded(
    folder: Path, tokenizer: Any, *rows: dict[str, Any], rules: LengthSettings | None = None
) -> EncodedRecords[tuple[TokenSequence, TokenSequence]]:
    read = read_dialogue_pairs(saved(folder, *rows), RULES, chat_renderer(tokenizer))
    return encode_dialogue_pairs(tokenizer, read.records, rules or LengthSettings())


@pytest.mark.parametrize(
    "row",
    [
        {"chosen": messages("Hi", "Hello!", "Who?", "Me."), "rejected": messages("Hi", "Hello!", "Who?", "No.")},
        {
            "prompt": messages("Hi", "Hello!", "Who?"),
            "chosen": [{"role": "assistant", "content": "Me."}],
            "rejected": messages("Hi", "Hello!", "Who?", "No."),
        },
    ],
)
def test_dialogues_with_several_turns_alike_have_them_as_their_prompt(tmp_path: Path, row: dict[str, Any]) -> None:
    tokenizer = byte_tokenizer(CHATML)
    ((chosen, rejected),) = encoded(tmp_path, tokenizer, row).records
    assert parts(tokenizer, chosen) == [(ASKED, False), ("Me.<|im_end|>", True)]
    assert parts(tokenizer, rejected) == [(ASKED, False), ("No.<|im_end|>", True)]
    # As the reader has them that knows the last turn alone.
    records = read_pairs(saved(tmp_path, row), RULES, chat_renderer(tokenizer)).records
    ((good, bad),) = encode_pairs(tokenizer, records, LengthSettings()).records
    assert [one.ids.tolist() for one in (good, bad)] == [one.ids.tolist() for one in (chosen, rejected)]
    assert [one.loss_mask.tolist() for one in (good, bad)] == [one.loss_mask.tolist() for one in (chosen, rejected)]


PARTED = {
    "chosen": messages("Hi", "Hello!", "Who?", "Me.", "And?", "You."),
    "rejected": messages("Hi", "Hello!", "Who?", "No.", "Please?", "Never.", "Why?", "So."),
}


@pytest.mark.parametrize("with_prompt", [False, True])
def test_sides_that_part_before_their_last_turns_learn_each_turn_from_there_on(
    tmp_path: Path, with_prompt: bool
) -> None:
    tokenizer = byte_tokenizer(CHATML)
    row = PARTED
    if with_prompt:
        row = {"prompt": PARTED["chosen"][:3], "chosen": PARTED["chosen"][3:], "rejected": PARTED["rejected"]}
    found = encoded(tmp_path, tokenizer, row)
    ((chosen, rejected),) = found.records
    assert parts(tokenizer, chosen) == [
        (ASKED, False),
        ("Me.<|im_end|>", True),
        (f"\n<|im_start|>user\nAnd?<|im_end|>\n{OPENED}", False),
        ("You.<|im_end|>", True),
    ]
    assert parts(tokenizer, rejected) == [
        (ASKED, False),
        ("No.<|im_end|>", True),
        (f"\n<|im_start|>user\nPlease?<|im_end|>\n{OPENED}", False),
        ("Never.<|im_end|>", True),
        (f"\n<|im_start|>user\nWhy?<|im_end|>\n{OPENED}", False),
        ("So.<|im_end|>", True),
    ]
    assert found.notes == ()
    (shown,) = sequence_rows("data.pairs", tokenizer, found.records, ("chosen", "rejected"))
    assert [part.name for part in shown.parts] == [
        *("prompt", "chosen", "prompt", "chosen"),
        *("rejected", "prompt", "rejected", "prompt", "rejected"),
    ]


def test_calls_of_tools_tell_turns_apart(tmp_path: Path) -> None:
    tokenizer = public_tokenizer("qwen2_5")

    def calling(country: str, answer: str) -> list[dict[str, Any]]:
        call = {"type": "function", "function": {"name": "capital_of", "arguments": {"country": country}}}
        return [
            {"role": "user", "content": "The capital?"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": answer},
            {"role": "assistant", "content": f"{answer}."},
        ]

    ((chosen, rejected),) = encoded(
        tmp_path, tokenizer, {"chosen": calling("Norland", "Ostvik"), "rejected": calling("Sudland", "none")}
    ).records
    for side, country, answer in ((chosen, "Norland", "Ostvik"), (rejected, "Sudland", "none")):
        call = f'<tool_call>\n{{"name": "capital_of", "arguments": {{"country": "{country}"}}}}\n</tool_call>'
        assert parts(tokenizer, side)[1:] == [
            (f"{call}<|im_end|>", True),
            (f"\n<|im_start|>user\n<tool_response>\n{answer}\n</tool_response><|im_end|>\n{OPENED}", False),
            (f"{answer}.<|im_end|>", True),
        ]


@pytest.mark.parametrize(
    ("chosen", "rejected", "message"),
    [
        (messages("Hi", "a"), messages("Ho", "b"), "found two prompts"),
        (messages("Hi", "a", "b", "c"), messages("Hi", "a", "d", "e"), "found two prompts"),
        (messages("Hi", "a"), messages("Hi", "a", "b", "c"), "found that one is the beginning of the other"),
        (messages("Hi", "a"), messages("Hi"), "expected the last message to be the assistant's, found 'user'"),
        (messages("Hi", "a")[1:], messages("Hi", "b")[1:], "expected a prompt that ends with a message of the user's"),
    ],
)
def test_sides_that_answer_nothing_alike_are_refused(
    tmp_path: Path, chosen: list[Any], rejected: list[Any], message: str
) -> None:
    for one, other in ((chosen, rejected), (rejected, chosen)):
        path = saved(tmp_path, {"chosen": one, "rejected": other})
        with pytest.raises(UserError, match=rf"row 1: .*{message}"):
            read_dialogue_pairs(path, RULES, plain_dialogue)


def test_where_one_turn_alone_is_learnt_parted_sides_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"row 1: .*found that they part before: a dpo run alone learns from several"):
        read_pairs(saved(tmp_path, PARTED), RULES, plain_dialogue)


def test_the_prompt_of_a_row_is_where_its_sides_part(tmp_path: Path) -> None:
    render = chat_renderer(byte_tokenizer(CHATML))
    assert [prompt.text for prompt in read_prompts(saved(tmp_path, PARTED), RULES, render).records] == [ASKED]


def test_pairs_as_text_and_equal_ones_are_read_as_ever(tmp_path: Path) -> None:
    same = messages("Hi", "Hello!", "Who?", "Me.")
    path = saved(tmp_path, {"prompt": "p", "chosen": "a", "rejected": "b"}, {"chosen": same, "rejected": same}, PARTED)
    read = read_dialogue_pairs(path, RULES, plain_dialogue)
    plain = DialoguePair(*(Dialogue((Demonstration("p", text),)) for text in ("a", "b")))
    assert (read.records[0], len(read.records), read.num_duplicate) == (plain, 2, 1)
    assert read.records[0].prompt == "p"


def test_a_side_that_is_no_one_sequence_is_dropped_and_told(tmp_path: Path) -> None:
    tokenizer = public_tokenizer("qwen3")
    thoughts = "<think>\nhm\n</think>\n\n"
    row = {
        "chosen": messages("Hi", f"{thoughts}Me.", "And?", f"{thoughts}You."),
        "rejected": messages("Hi", f"{thoughts}No."),
    }
    last = {"chosen": messages("Hi", f"{thoughts}Me."), "rejected": messages("Hi", f"{thoughts}No.")}
    found = encoded(tmp_path, tokenizer, row, last)
    assert (len(found.records), found.num_rows) == (1, 2)
    assert found.notes[0].startswith("1 of 2 pairs dropped: once others follow it the chat template, or the tokenizer")
    with pytest.raises(UserError, match=r"^no pairs are left to use: .* 1 of 1 pairs dropped: once others follow it"):
        encoded(tmp_path, tokenizer, row)


def test_limits_are_of_the_prompt_and_of_all_behind_it(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer(CHATML)
    ((chosen, rejected),) = encoded(tmp_path, tokenizer, PARTED).records
    num_prompt = int(chosen.loss_mask.argmax())
    num_behind = max(len(chosen.ids), len(rejected.ids)) - num_prompt
    for prompt, response, words in (
        (num_prompt, num_behind, None),
        (num_prompt - 1, num_behind, f"their prompt is longer .*the longest has {num_prompt} tokens"),
        (num_prompt, num_behind - 1, f"a response with its EOS is longer .*the longest has {num_behind} tokens"),
    ):
        rules = LengthSettings(max_prompt_tokens=prompt, max_response_tokens=response)
        if words is None:
            assert len(encoded(tmp_path, tokenizer, PARTED, rules=rules).records) == 1
        else:
            with pytest.raises(UserError, match=words):
                encoded(tmp_path, tokenizer, PARTED, rules=rules)
