import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from plumbob.core.errors import UserError
from plumbob.data.epoch_order import Mixture
from plumbob.data.prompts import EncodedPrompt, PromptCursor, encode_prompts
from plumbob.data.records import RowError, make_prompt
from plumbob.data.texts.chat_text import chat_renderer, plain_dialogue
from plumbob.data.tokenization import TooLong

CHAT_TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'critic' %}{{ raise_exception('no critics') }}{% endif %}"
    "<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


def prompts(count: int) -> list[EncodedPrompt]:
    return [
        EncodedPrompt(f"id{number}", f"text{number}", np.array([number], dtype=np.int32)) for number in range(count)
    ]


def names(batch: list[EncodedPrompt]) -> list[str]:
    return [prompt.prompt_id for prompt in batch]


@given(
    num_prompts=st.integers(1, 9),
    seed=st.integers(0, 3),
    draws=st.lists(st.tuples(st.integers(1, 12), st.booleans(), st.integers(0, 5)), max_size=12),
)
def test_saving_and_loading_at_any_time_gives_the_same_prompts(
    num_prompts: int, seed: int, draws: list[tuple[int, bool, int]]
) -> None:
    """Each draw takes some prompts; before some, the run dies after `lost` more and continues in a new cursor."""
    whole = names(PromptCursor(prompts(num_prompts), seed).next(sum(count for count, _, _ in draws) or 1))
    cursor = PromptCursor(prompts(num_prompts), seed)
    taken: list[str] = []
    for count, dies, lost in draws:
        if dies:
            saved = json.dumps(cursor.state())
            if lost:
                cursor.next(lost)
            cursor = PromptCursor(prompts(num_prompts), seed)
            cursor.load_state(json.loads(saved))
        taken += names(cursor.next(count))
    assert taken == whole[: len(taken)]
    for start in range(0, len(taken), num_prompts):
        epoch = Counter(taken[start : start + num_prompts])
        assert max(epoch.values()) == 1
    assert len(taken) < num_prompts or len(set(taken[:num_prompts])) == num_prompts


def test_epochs_and_seeds_have_their_own_order() -> None:
    cursor = PromptCursor(prompts(40), seed=0)
    first, second = names(cursor.next(40)), names(cursor.next(40))
    other = names(PromptCursor(prompts(40), seed=1).next(40))
    assert len({tuple(first), tuple(second), tuple(other)}) == 3
    assert sorted(first) == sorted(second) == sorted(other)


def test_a_mixture_gives_each_file_its_share_and_goes_on_where_it_stood() -> None:
    # 6 prompts in two files of 4 and 2, weights 1 and 2: of an epoch's 6 places 2 are of the first, 4 of the second.
    mixture = Mixture((4, 2), (1.0, 2.0))
    taken = names(PromptCursor(prompts(6), 3, mixture).next(12))
    for epoch in (Counter(taken[:6]), Counter(taken[6:])):
        assert epoch["id4"] == epoch["id5"] == 2 and sum(epoch[f"id{number}"] for number in range(4)) == 2
    assert {name: taken.count(name) for name in ("id0", "id1", "id2", "id3")} == {f"id{n}": 1 for n in range(4)}
    for position in (1, 5, 7):
        cursor = PromptCursor(prompts(6), 3, mixture)
        cursor.next(position)
        state = json.dumps(cursor.state())
        cursor.next(3)
        resumed = PromptCursor(prompts(6), 3, mixture)
        resumed.load_state(json.loads(state))
        assert names(resumed.next(12 - position)) == taken[position:]


@pytest.mark.parametrize("other", [None, Mixture((4, 1), (1.0, 2.5)), Mixture((3, 2), (1.0, 2.0))])
def test_a_state_of_another_mixture_is_refused(other: Mixture | None) -> None:
    state = PromptCursor(prompts(5), 0, Mixture((4, 1), (1.0, 2.0))).state()
    with pytest.raises(UserError, match=r"not those that the run began with .*the same files, weights"):
        PromptCursor(prompts(5), 0, other).load_state(state)


@pytest.mark.parametrize(("count", "seed"), [(4, 0), (5, 1)])
def test_a_state_of_other_prompts_or_another_seed_is_refused(count: int, seed: int) -> None:
    state = PromptCursor(prompts(5), seed=0).state()
    with pytest.raises(UserError, match="not those that the run began with"):
        PromptCursor(prompts(count), seed).load_state(state)


def test_long_prompts_are_dropped_and_counted(tokenizer: PreTrainedTokenizerFast) -> None:
    encoded = encode_prompts(tokenizer, [make_prompt("x"), make_prompt("xyzx"), make_prompt("xyz")], 3)
    assert [(prompt.text, len(prompt.ids)) for prompt in encoded.records] == [("x", 1), ("xyz", 3)]
    assert encoded.records[0].prompt_id == make_prompt("x").prompt_id
    assert (encoded.num_rows, encoded.dropped) == (3, (TooLong("prompt", 4),))
    assert encoded.notes == (
        "1 of 3 prompts dropped, because their prompt is longer than data.max_prompt_tokens=3 "
        "(the longest has 4 tokens).",
    )
    with pytest.raises(UserError, match="no prompts are left"):
        encode_prompts(tokenizer, [make_prompt("xyzx")], 3)


def test_messages_go_through_the_chat_template(tokenizer: PreTrainedTokenizerFast) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    with pytest.raises(UserError, match="no chat template"):
        chat_renderer(tokenizer)(messages)
    chat = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, chat_template=CHAT_TEMPLATE)
    assert chat_renderer(chat)(messages) == "<user>Hi<assistant>"
    with pytest.raises(RowError, match="refuses the messages: no critics"):
        chat_renderer(chat)([{"role": "critic", "content": "Hi"}])


def test_without_a_tokenizer_messages_become_a_plain_transcript() -> None:
    messages = [("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello!"), ("user", "Who are you?")]
    assert plain_dialogue([{"role": role, "content": content} for role, content in messages]) == (
        "\n\nSystem: Be brief.\n\nHuman: Hi\n\nAssistant: Hello!\n\nHuman: Who are you?\n\nAssistant:"
    )


@pytest.mark.parametrize(
    "template", ["{{ 1 / 0 }}", "{% include 'x' %}", "{{ 'a' * 10000000 }}", "{{ messages[9].a.b }}"]
)
def test_a_template_that_fails_in_python_refuses_the_row(tokenizer: PreTrainedTokenizerFast, template: str) -> None:
    chat = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, chat_template=template)
    with pytest.raises(RowError, match="chat template"):
        chat_renderer(chat)([{"role": "user", "content": "Hi"}])
