"""Rows of a file and what of them is learnt."""

import json
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from plumbob.configs.settings.data import LengthSettings, ReadingSettings
from plumbob.data.reading.readers import read_demonstrations
from plumbob.data.texts.chat import chat_renderer
from plumbob.data.tokenization import TokenSequence, encode_demonstrations

RULES = ReadingSettings()


def saved(folder: Path, *rows: Any) -> str:
    path = folder / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def chat(question: str, answer: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def encoded(
    folder: Path, tokenizer: PreTrainedTokenizerFast, row: Any, rules: ReadingSettings = RULES
) -> TokenSequence:
    records = read_demonstrations(saved(folder, row), rules, chat_renderer(tokenizer)).records
    (found,) = encode_demonstrations(tokenizer, records, LengthSettings()).records
    return found


def learnt(tokenizer: PreTrainedTokenizerFast, sequence: TokenSequence) -> str:
    return str(tokenizer.decode(sequence.ids[sequence.loss_mask]))
