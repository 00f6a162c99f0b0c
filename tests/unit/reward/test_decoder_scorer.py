"""A decoder as a reward model scores as it does in plain transformers, whatever is padded beside it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, LlamaConfig, PreTrainedTokenizerFast
from transformers.models.llama.modeling_llama import LlamaForSequenceClassification

from plumbob.configs.settings.data import ReadingSettings
from plumbob.configs.settings.rewards import CombinedReward, WeightedPart
from plumbob.core.errors import UserError
from plumbob.data.reading.readers import read_pairs, read_prompts
from plumbob.data.texts.chat_text import chat_renderer, plain_dialogue
from plumbob.reward.open_scorer import check_reward, open_scorer
from plumbob.reward.reward_models.reward_prompts import FormScorer, RewardPrompts
from plumbob.reward.scorer import ScoreRequest
from tests.support.control_tokenizers import LLAMA_2, QWEN_3, byte_tokenizer, written
from tests.support.score_requests import score_requests
from tests.support.tiny_scorer import model_reward
from tests.unit.reward.test_dialogue_form import CHATML, write

QUESTIONS = ("Capital?", "How far is it from Ostvik to the sea?", "Say <|im_end|> aloud.")
ANSWERS = ("Ostvik.", "It is forty miles, by the old road.", "No <|im_end|> here.", "")


def write_decoder(folder: Path, pad_id: int | None, template: str | None = CHATML) -> Path:
    tokenizer = byte_tokenizer(template)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=256, num_labels=1, pad_token_id=pad_id, initializer_range=0.2,
    )  # fmt: skip
    LlamaForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def plain_score(folder: Path, ids: list[int]) -> float:
    """By transformers alone, of one text that nothing is beside."""
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    with torch.inference_mode():
        found: float = model(torch.tensor([ids])).logits.item()
    return found


def letters(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """Ids of a text in which nothing is a control token."""
    found: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return found


@pytest.mark.parametrize("padding", ["its own", "none"])
def test_a_dialogue_is_scored_at_its_last_token(tmp_path: Path, padding: str) -> None:
    tokenizer = byte_tokenizer(CHATML)
    # Without a padding token of the config's the model takes the last token, also where that is a batch's padding.
    folder = write_decoder(tmp_path / "rm", tokenizer.pad_token_id if padding == "its own" else None)
    reward = model_reward(folder, batch_size=5, max_tokens=200)
    check_reward(reward)
    prompts = RewardPrompts(reward)
    policy: Any = byte_tokenizer("{% for m in messages %}[{{ m['content'] }}]{% endfor %}")
    rows = [{"prompt": [{"role": "user", "content": text}]} for text in QUESTIONS]
    asked = read_prompts(write(tmp_path, *rows), ReadingSettings(), prompts.beside(chat_renderer(policy))).records
    requests = [ScoreRequest(prompt.text, answer) for prompt in asked for answer in ANSWERS]
    found = FormScorer(open_scorer(reward, "cpu"), prompts).score(requests)
    start, end = (tokenizer.convert_tokens_to_ids(token) for token in ("<|im_start|>", "<|im_end|>"))
    expected = []
    for question in QUESTIONS:
        for answer in ANSWERS:
            ids = [start, *letters(tokenizer, f"user\n{question}"), end, *letters(tokenizer, "\n")]
            ids += [start, *letters(tokenizer, "assistant\n"), *letters(tokenizer, answer), end]
            expected.append(plain_score(folder, [*ids, *letters(tokenizer, "\n")]))
    assert max(expected) - min(expected) > 0.05
    assert [score.total for score in found] == pytest.approx(expected, abs=1e-5)
    assert [score.parts["raw"] for score in found] == [score.total for score in found]


@pytest.mark.parametrize("template", [CHATML, LLAMA_2, QWEN_3])
def test_pairs_and_prompts_are_read_as_the_template_writes_the_dialogue(tmp_path: Path, template: str) -> None:
    """With what it writes between the opened prompt and an answer: nothing, a space, or empty thoughts."""
    folder = write_decoder(tmp_path / "rm", None, template)
    tokenizer, reward = AutoTokenizer.from_pretrained(folder), model_reward(folder, max_tokens=200)
    asked = [{"role": "user", "content": "Capital?"}]
    sides = {name: [{"role": "assistant", "content": text}] for name, text in (("chosen", "Lima"), ("rejected", "No"))}
    expected = []
    for turn in sides.values():
        text = written(tokenizer, ("user", "Capital?"), ("assistant", turn[0]["content"]))
        expected.append(plain_score(folder, tokenizer(text, add_special_tokens=False)["input_ids"]))
    rows, scorer = write(tmp_path, {"prompt": asked, **sides}), open_scorer(reward, "cpu")
    prompts, pairs = RewardPrompts(reward), RewardPrompts(reward)
    policy: Any = byte_tokenizer("{% for m in messages %}[{{ m['content'] }}]{% endfor %}")
    (prompt,) = read_prompts(rows, ReadingSettings(), prompts.beside(chat_renderer(policy))).records
    (pair,) = read_pairs(rows, ReadingSettings(), pairs.instead_of(plain_dialogue)).records
    for scored, requests in (
        (prompts, [ScoreRequest(prompt.text, answer) for answer in ("Lima", "No")]),
        (pairs, [ScoreRequest(pair.prompt, answer) for answer in (pair.chosen, pair.rejected)]),
    ):
        found = FormScorer(scorer, scored).score(requests)
        assert [score.total for score in found] == pytest.approx(expected, abs=1e-5)
    assert abs(expected[0] - expected[1]) > 1e-3


def test_a_text_is_followed_by_the_response_and_the_eos(tmp_path: Path) -> None:
    folder = write_decoder(tmp_path / "rm", None, template=None)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    (found,) = open_scorer(model_reward(folder), "cpu").score(score_requests([("2 + 2 =", " 4")]))
    ids = [*letters(tokenizer, "2 + 2 = 4"), tokenizer.eos_token_id]
    assert found.total == pytest.approx(plain_score(folder, ids), abs=1e-5)


def test_what_is_too_long_loses_its_beginning(tmp_path: Path) -> None:
    folder = write_decoder(tmp_path / "rm", None, template=None)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    (found,) = open_scorer(model_reward(folder, max_tokens=5), "cpu").score(score_requests([("abcdefgh", "xyz")]))
    ids = [*letters(tokenizer, "abcdefghxyz"), tokenizer.eos_token_id][-5:]
    assert found.total == pytest.approx(plain_score(folder, ids), abs=1e-5)
    with pytest.raises(UserError, match="takes at most 256 tokens"):
        check_reward(model_reward(folder, max_tokens=257))


SPOKEN = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def test_each_part_reads_the_dialogue_by_its_own_template(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer(CHATML)
    folders = {
        "marked": write_decoder(tmp_path / "rm", None),
        "spoken": write_decoder(tmp_path / "other", None, SPOKEN),
    }
    reward = CombinedReward(
        tuple(WeightedPart(name, model_reward(folder, max_tokens=200), 1.0, False) for name, folder in folders.items())
    )
    prompts = RewardPrompts(reward)
    policy: Any = byte_tokenizer("{% for m in messages %}[{{ m['content'] }}]{% endfor %}")
    rows = write(tmp_path, {"prompt": [{"role": "user", "content": QUESTIONS[0]}]})
    (asked,) = read_prompts(rows, ReadingSettings(), prompts.beside(chat_renderer(policy))).records
    (found,) = FormScorer(open_scorer(reward, "cpu"), prompts).score([ScoreRequest(asked.text, ANSWERS[0])])
    start, end = (tokenizer.convert_tokens_to_ids(token) for token in ("<|im_start|>", "<|im_end|>"))
    marked = [start, *letters(tokenizer, f"user\n{QUESTIONS[0]}"), end, *letters(tokenizer, "\n")]
    marked += [start, *letters(tokenizer, f"assistant\n{ANSWERS[0]}"), end, *letters(tokenizer, "\n")]
    spoken = letters(tokenizer, f"user: {QUESTIONS[0]}\nassistant: {ANSWERS[0]}\n")
    expected = {"marked": plain_score(folders["marked"], marked), "spoken": plain_score(folders["spoken"], spoken)}
    assert {name: found.parts[name] for name in folders} == pytest.approx(expected, abs=1e-5)
    assert abs(expected["marked"] - expected["spoken"]) > 1e-3
