"""A reward model is asked in the form of dialogue in which it was trained, or it is said that it is not."""

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from plumbob.configs.settings.data import ReadingSettings
from plumbob.configs.settings.models import REWARD_MODEL, ModelRef
from plumbob.configs.settings.rewards import EnsembleReward
from plumbob.core.errors import UserError
from plumbob.data.reading.readers import read_pairs, read_prompts
from plumbob.data.rendered_rows import RowPart
from plumbob.data.texts.bounded_templates import template_time
from plumbob.data.texts.chat_text import chat_renderer, plain_dialogue
from plumbob.reward.reward_models.dialogue_form import (
    FORM_FILE,
    DialogueForm,
    FormInUse,
    form_of,
    load_form,
    save_form,
)
from plumbob.reward.reward_models.reward_prompts import FormScorer, RewardPrompts
from plumbob.reward.scorer import Score, ScoreRequest
from tests.support.score_requests import score_requests
from tests.support.tiny_policy import write_policy
from tests.support.tiny_scorer import model_reward, write_scorer

CHATML = (
    "{{ bos }}{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
RULES = ReadingSettings()
USER = {"role": "user", "content": "Capital?"}
ASKED = "<|im_start|>user\nCapital?<|im_end|>\n<|im_start|>assistant\n"
PLAIN = "\n\nHuman: Capital?\n\nAssistant:"


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerFast:
    tokenizer = AutoTokenizer.from_pretrained(write_policy(tmp_path_factory.mktemp("policy")))
    tokenizer.chat_template = CHATML
    return tokenizer


@pytest.fixture
def scorer(tmp_path: Path) -> Path:
    return write_scorer(tmp_path / "scorer")


def write(folder: Path, *rows: object) -> str:
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return str(folder / "rows.jsonl")


def form_of_pairs(folder: Path, tokenizer: PreTrainedTokenizerFast | None, prompt: object) -> DialogueForm:
    """What a reward model is given that was trained on pairs with such a prompt."""
    responses = ({"chosen": "a", "rejected": "b"}, {"chosen": "c", "rejected": "d"})
    in_use = FormInUse(tokenizer)
    rows = [{"prompt": prompt, **pair} for pair in responses]
    if isinstance(prompt, list):
        rows = [
            {"prompt": prompt} | {name: [{"role": "assistant", "content": x}] for name, x in pair.items()}
            for pair in responses
        ]
    read = read_pairs(write(folder, *rows), RULES, in_use)
    return in_use.form([record.prompt for record in read.records])


def asked_in_ppo(folder: Path, scored: RewardPrompts, tokenizer: PreTrainedTokenizerFast, prompt: object) -> list[str]:
    read = read_prompts(write(folder, {"prompt": prompt}), RULES, scored.beside(chat_renderer(tokenizer)))
    return [prompt.text for prompt in read.records]


def test_a_form_is_stored_with_the_model(tmp_path: Path, scorer: Path, chat: PreTrainedTokenizerFast) -> None:
    ref = ModelRef(str(scorer), REWARD_MODEL)
    assert load_form(ref) is None
    for tokenizer, prompt, ending in (
        (None, [USER], "\n\nAssistant:"),
        (chat, [USER], "<|im_end|>\n<|im_start|>assistant\n"),
        (chat, "Capital of X?\nAnswer:", "Capital of X?\nAnswer:"),
        (None, "?", ""),
    ):
        form = form_of_pairs(tmp_path, tokenizer, prompt)
        save_form(form, scorer)
        assert load_form(ref) == form and form.ending == ending
        assert (form.chat_template is None) == isinstance(prompt, str)


def test_a_form_that_was_tampered_with_is_refused(scorer: Path) -> None:
    for content in ("[]", "{", '{"chat_template": 3, "special_tokens": {}, "ending": ""}'):
        (scorer / FORM_FILE).write_text(content)
        with pytest.raises(UserError, match=r"dialogue_form\.json: cannot be read"):
            load_form(ModelRef(str(scorer), REWARD_MODEL))


def test_a_model_of_plain_transcripts_is_asked_plainly(
    tmp_path: Path, scorer: Path, chat: PreTrainedTokenizerFast
) -> None:
    """Although the policy's template is another; the policy itself is asked by its own."""
    save_form(form_of_pairs(tmp_path, None, [USER]), scorer)
    scored = RewardPrompts(model_reward(scorer))
    prompts = asked_in_ppo(tmp_path, scored, chat, [USER])
    assert prompts == [ASKED] and scored.form_prompts(ASKED)[str(scorer)] == PLAIN and scored.notes(prompts) == ()
    assert scored.parts(ASKED) == (RowPart("as reward.model reads it", PLAIN, False),) and scored.parts("x") == ()

    class EchoScorer:
        def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
            return [
                Score(0.0, {request.prompt: 0.0, prompt: 1.0, response: 2.0})
                for request in requests
                for prompt, response in [request.pair_for(str(scorer))]
            ]

    first, second = FormScorer(EchoScorer(), scored).score(
        score_requests([(ASKED, "Ostvik."), ("something else", "no")])
    )
    # A reward model reads its own form; whoever else scores, what the policy saw.
    assert first.parts == {ASKED: 0.0, PLAIN: 1.0, "Ostvik.": 2.0}
    assert second.parts == {"something else": 1.0, "no": 2.0}


def test_a_model_of_a_template_is_asked_by_it_where_the_policy_has_none_of_its_own(
    tmp_path: Path, scorer: Path, chat: PreTrainedTokenizerFast
) -> None:
    save_form(form_of_pairs(tmp_path, chat, [USER]), scorer)
    scored = RewardPrompts(model_reward(scorer))
    read = read_prompts(write(tmp_path, {"prompt": [USER]}), RULES, scored.beside(plain_dialogue))
    assert [prompt.text for prompt in read.records] == [PLAIN] and scored.form_prompts(PLAIN)[str(scorer)] == ASKED
    # Pairs that it alone is to compare are written for it.
    row = {"prompt": [USER], "chosen": "a", "rejected": "b"}
    (pair,) = read_pairs(
        write(tmp_path, row), RULES, RewardPrompts(model_reward(scorer)).instead_of(plain_dialogue)
    ).records
    assert pair.prompt == ASKED


def test_a_foreign_model_is_told_of(tmp_path: Path, scorer: Path, chat: PreTrainedTokenizerFast) -> None:
    scored = RewardPrompts(model_reward(scorer))
    (note,) = scored.notes(asked_in_ppo(tmp_path, scored, chat, [USER]))
    assert note.startswith(f"reward.model={scorer}: nothing says in which form of dialogue it was trained")
    assert "as the policy's chat template writes them" in note
    assert RewardPrompts(model_reward(scorer)).notes(["Capital?"]) == ()
    # Of one with a chat template in its own tokenizer that is the form.
    own = AutoTokenizer.from_pretrained(scorer)
    own.chat_template = "{% for message in messages %}[{{ message['content'] }}]{% endfor %}"
    own.save_pretrained(scorer)
    scored = RewardPrompts(model_reward(scorer))
    prompts = asked_in_ppo(tmp_path, scored, chat, [USER])
    assert scored.notes(prompts) == () and scored.form_prompts(ASKED)[str(scorer)] == "[Capital?]"


def test_texts_and_messages_that_do_not_end_alike_are_told_of(
    tmp_path: Path, scorer: Path, chat: PreTrainedTokenizerFast
) -> None:
    save_form(form_of_pairs(tmp_path, None, "Capital of X?\nAnswer:"), scorer)
    scored = RewardPrompts(model_reward(scorer))
    (note,) = scored.notes(asked_in_ppo(tmp_path, scored, chat, [USER]))
    assert "trained on texts, which ended with" in note and "from chat messages that do not end so" in note
    save_form(form_of_pairs(tmp_path, chat, [USER]), scorer)
    scored = RewardPrompts(model_reward(scorer))
    (note,) = scored.notes(asked_in_ppo(tmp_path, scored, chat, "Capital?"))
    assert "trained on chat messages, which ended with" in note and "from texts that do not end so" in note
    # Texts that were written in the form before, as a pipeline writes them.
    assert RewardPrompts(model_reward(scorer)).notes([ASKED]) == ()


def test_texts_that_do_not_end_as_those_of_the_training_are_told_of(
    tmp_path: Path, scorer: Path, chat: PreTrainedTokenizerFast
) -> None:
    """Such as by `data.prompt_template`, of which a reward model's tokenizer knows nothing."""
    save_form(DialogueForm(None, {}, "\n\nAssistant:"), scorer)
    asked = ["Question: a\nAnswer:", "\n\nHuman: b\n\nAssistant:", "Question: c\nAnswer:"]
    (note,) = RewardPrompts(model_reward(scorer)).notes(asked)
    assert note == (
        f"reward.model={scorer}: trained on texts, which ended with '\\n\\nAssistant:', and here given prompts "
        f"(2 of 3) from texts that do not end so, such as ...'Question: a\\nAnswer:': its scores may mean little."
    )
    assert RewardPrompts(model_reward(scorer)).notes(asked[1:2]) == ()
    save_form(DialogueForm(None, {}, ""), scorer)  # Those of the training ended in many ways.
    assert RewardPrompts(model_reward(scorer)).notes(asked) == ()
    # Of a file of both, each prompt by what it was: this one is written in the form, that one is not.
    save_form(form_of_pairs(tmp_path, chat, [USER]), scorer)
    scored = RewardPrompts(model_reward(scorer))
    asked = asked_in_ppo(tmp_path, scored, chat, [USER]) + asked[:1]
    (note,) = scored.notes(asked)
    assert "trained on chat messages" in note and "(1 of 2) from texts that do not end so, such as ...'Quest" in note


def test_the_tokens_of_a_template_are_those_that_it_names(tmp_path: Path, scorer: Path) -> None:
    """One template beside tokenizers that pad otherwise is one form; beside other tokens that it writes it is not."""
    other = write_scorer(tmp_path / "other")
    members = EnsembleReward((model_reward(scorer), model_reward(other)), 0.0)
    save_form(form_of(CHATML, {"bos": "<s>", "pad_token": "[PAD]"}), scorer)
    save_form(form_of(CHATML, {"bos": "<s>", "pad_token": "<pad>", "mask_token": "?"}), other)
    assert RewardPrompts(members).instead_of(plain_dialogue)([USER]) == f"<s>{ASKED}"
    for tokens, begin in (({"bos": "<bos>"}, "<bos>"), ({}, "")):
        save_form(form_of(CHATML, tokens), other)
        scored = RewardPrompts(members)
        assert scored.instead_of(plain_dialogue)([USER]) == f"<s>{ASKED}"
        assert scored.form_prompts(f"<s>{ASKED}") == {str(scorer): f"<s>{ASKED}", str(other): begin + ASKED}


def test_models_of_different_forms_read_each_its_own(
    tmp_path: Path, scorer: Path, chat: PreTrainedTokenizerFast
) -> None:
    other, foreign = write_scorer(tmp_path / "other"), write_scorer(tmp_path / "foreign")
    save_form(form_of_pairs(tmp_path, None, [USER]), scorer)
    save_form(form_of_pairs(tmp_path, chat, [USER]), other)
    scored = RewardPrompts(EnsembleReward((model_reward(scorer), model_reward(other)), 0.0))
    prompts = asked_in_ppo(tmp_path, scored, chat, [USER])
    assert scored.form_prompts(ASKED) == {str(scorer): PLAIN, str(other): ASKED} and scored.notes(prompts) == ()
    assert scored.parts(ASKED) == (RowPart("as reward.model reads it", PLAIN, False),)
    # Of pairs too, whose responses are then as they stand in the file: a plain transcript puts a space before them.
    turns = {name: [{"role": "assistant", "content": name}] for name in ("chosen", "rejected")}
    rows = write(tmp_path, {"prompt": [USER], **turns})
    for models, response in (
        (EnsembleReward((model_reward(scorer), model_reward(other)), 0.0), "chosen"),
        (model_reward(scorer), " chosen"),
    ):
        scored = RewardPrompts(models)
        (pair,) = read_pairs(rows, RULES, scored.instead_of(chat_renderer(chat))).records
        assert (pair.prompt, pair.chosen) == (PLAIN, response)
        assert scored.form_prompts(PLAIN).get(str(other)) == (ASKED if models.models[1:] else None)
    # Of texts that end otherwise nothing says that they are of two forms.
    save_form(DialogueForm(None, {}, "?\nAnswer:"), scorer)
    save_form(DialogueForm(None, {}, "\nAnswer:"), other)
    texts = RewardPrompts(EnsembleReward((model_reward(scorer), model_reward(other)), 0.0))
    assert texts.written([USER]) == {} and texts.notes(["Why?\nAnswer:"]) == ()
    save_form(form_of_pairs(tmp_path, None, [USER]), scorer)
    # One of which nothing is known is asked as the others are, and that is told.
    scored = RewardPrompts(EnsembleReward((model_reward(scorer), model_reward(foreign)), 0.0))
    (note,) = scored.notes(asked_in_ppo(tmp_path, scored, chat, [USER]))
    assert set(scored.form_prompts(ASKED).values()) == {PLAIN}
    assert str(foreign) in note and "as that of the others writes them" in note


def test_a_model_inside_a_package_is_found(
    tmp_path: Path, scorer: Path, monkeypatch: pytest.MonkeyPatch, chat: PreTrainedTokenizerFast
) -> None:
    (tmp_path / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path.parent)
    form = form_of_pairs(tmp_path, chat, [USER])
    save_form(form, scorer)
    assert load_form(ModelRef(f"package:{tmp_path.name}/scorer", REWARD_MODEL)) == form


def test_to_look_at_a_template_that_writes_the_date_is_not_to_write_it() -> None:
    """A run on texts alone beside such a reward model says nothing of a date."""
    dated = "{{ strftime_now('%Y') }}" + CHATML
    with template_time(datetime(2024, 7, 26)) as clock:
        form = form_of(dated, {"bos": "<s>"})
        assert form.ending == "<|im_end|>\n<|im_start|>assistant\n" and not clock.was_read
        assert form.render is not None and form.render([USER]) == f"2024<s>{ASKED}" and clock.was_read
