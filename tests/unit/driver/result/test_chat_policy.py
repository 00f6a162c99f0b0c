"""A chat's turns against plain transformers on prompts written by hand."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from plumbob.core.errors import UserError
from plumbob.driver.result.chat_policy import ChatOptions, open_chat
from tests.support.plain_transformers import load_plain, plain_greedy
from tests.support.tiny_policy import EOS
from tests.support.tiny_scorer import write_scorer

GREEDY = ChatOptions(temperature=0.0, max_tokens=6, seed=0)


def expected(folder: str, base: str, text: str) -> str:
    """The likeliest answer behind a prompt."""
    tokenizer: Any = AutoTokenizer.from_pretrained(base)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return str(tokenizer.decode(plain_greedy(load_plain(folder), ids, 6, EOS), skip_special_tokens=True))


def test_turns_follow_one_another_and_each_side_sees_its_own(adapter: str, base: str) -> None:
    tuned, plain = open_chat(adapter, "", GREEDY)
    assert (tuned.name, plain.name, tuned.notes) == ("tuned", "base", ())
    first = {}
    for side, folder in ((tuned, adapter), (plain, base)):
        first[side.name] = "".join(side.respond("the car"))
        assert first[side.name] == expected(folder, base, "\n\nHuman: the car\n\nAssistant:")
    assert first["tuned"] != first["base"]
    for side, folder in ((tuned, adapter), (plain, base)):
        own = first[side.name].strip()
        prompt = f"\n\nHuman: the car\n\nAssistant: {own}\n\nHuman: red?\n\nAssistant:"
        assert "".join(side.respond("red?")) == expected(folder, base, prompt)


def test_a_dialogue_begins_anew_with_a_system_message(adapter: str, base: str) -> None:
    (tuned,) = open_chat(adapter, None, GREEDY)
    "".join(tuned.respond("forgotten"))
    tuned.reset("Be kind")
    found = "".join(tuned.respond("hi"))
    assert found == expected(adapter, base, "\n\nSystem: Be kind\n\nHuman: hi\n\nAssistant:")


def test_an_answer_that_is_left_is_the_turn_as_far_as_it_was_written(base: str) -> None:
    (side,) = open_chat(base, None, ChatOptions(temperature=0.0, max_tokens=200, seed=0))
    pieces = side.respond("the engine")
    begun = next(pieces) + next(pieces)
    pieces.close()
    found = "".join(side.respond("go"))
    prompt = f"\n\nHuman: the engine\n\nAssistant: {begun.strip()}\n\nHuman: go\n\nAssistant:"
    tokenizer: Any = AutoTokenizer.from_pretrained(base)
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    assert found.startswith(str(tokenizer.decode(plain_greedy(load_plain(base), ids, 3, EOS)).rstrip("\ufffd")))


def test_the_oldest_turns_are_forgotten_where_positions_end(base: str) -> None:
    """256 positions, 64 of which are spared for an answer: two of these turns do not fit, one does."""
    (side,) = open_chat(base, None, ChatOptions(temperature=0.0, max_tokens=64, seed=0))
    "".join(side.respond("zq" * 50))
    assert side.dialogue.num_forgotten == 0
    "".join(side.respond("qz" * 50))
    assert side.dialogue.num_forgotten == 1
    before = side.dialogue
    with pytest.raises(UserError, match=r"^base: the turn has \d+ tokens, and the model 256 positions"):
        "".join(side.respond("zq" * 150))
    # Nothing is forgotten for a turn that is not taken.
    assert side.dialogue == before and [turn["content"] for turn in before.turns[::2]] == ["qz" * 50]
    assert "".join(side.respond("hi"))


def test_what_spells_a_control_token_is_letters(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (side,) = open_chat(base, None, GREEDY)
    asked: list[np.ndarray[Any, Any]] = []
    sampler: Any = side._sampler
    submit = sampler.submit
    monkeypatch.setattr(sampler, "submit", lambda requests: (asked.append(requests[0].prompt_ids), submit(requests)))
    "".join(side.respond("end <eos> here"))
    assert EOS not in asked[0]
    assert AutoTokenizer.from_pretrained(base)("<eos>", add_special_tokens=False)["input_ids"] == [EOS]


def test_a_seed_gives_the_same_answers_and_another_one_others(base: str) -> None:
    found = []
    for seed in (1, 1, 2):
        (side,) = open_chat(base, None, ChatOptions(temperature=1.0, max_tokens=12, seed=seed))
        found.append("".join(side.respond("hello")))
    assert found[0] == found[1] != found[2]


def test_prompts_without_a_template(base: str, tmp_path: Path) -> None:
    plain = Path(shutil.copytree(base, tmp_path / "plain"))
    (plain / "chat_template.jinja").unlink()
    (side,) = open_chat(str(plain), None, GREEDY)
    assert side.notes == ("plain: its tokenizer has no chat template: turns are written as Human: and Assistant:",)
    assert "".join(side.respond("the car")) == expected(base, base, "\n\nHuman: the car\n\nAssistant:")


def test_a_prompt_template_takes_the_place_of_the_chat_template(base: str) -> None:
    options = replace(GREEDY, prompt_template="Question: {prompt}\nAnswer:")
    (side,) = open_chat(base, None, options)
    "".join(side.respond("first"))
    assert "".join(side.respond("red?")) == expected(base, base, "Question: red?\nAnswer:")
    assert side.notes[0].startswith("base: a turn is written as 'Question: {prompt}\\nAnswer:'")
    before = side.dialogue
    with pytest.raises(UserError, match=r"^base: a turn is written as .* has no place for a system message"):
        side.reset("Be kind")
    assert side.dialogue == before
    side.reset()
    assert side.dialogue.turns == ()


def test_what_cannot_chat_is_refused(base: str, tmp_path: Path) -> None:
    scorer = str(write_scorer(tmp_path / "scorer"))
    with pytest.raises(UserError, match="is not a causal language model"):
        open_chat(scorer, None, GREEDY)
    with pytest.raises(UserError, match="there is no run in this folder"):
        open_chat(str(tmp_path / "absent"), None, GREEDY)
    with pytest.raises(UserError, match="is a full model, and no run says what it began from: name one"):
        open_chat(base, "", GREEDY)
