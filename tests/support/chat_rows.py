"""Rows of a file and what of them is learnt."""

import json
from itertools import groupby
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from plumbob.configs.settings.data import LengthSettings, ReadingSettings
from plumbob.data.dialogues import encode_dialogues
from plumbob.data.reading.readers import read_demonstrations, read_dialogues
from plumbob.data.texts.chat_text import chat_renderer
from plumbob.data.tokenization import EncodedRecords, TokenSequence, encode_demonstrations

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


def dialogue(*contents: str) -> dict[str, Any]:
    """A row of turns of the user's and the assistant's, by turns."""
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[place % 2], "content": text} for place, text in enumerate(contents)]}


def all_turns(folder: Path, tokenizer: PreTrainedTokenizerFast, *rows: Any) -> EncodedRecords[TokenSequence]:
    """The rows with every turn of the assistant's learnt."""
    read = read_dialogues(saved(folder, *rows), RULES, chat_renderer(tokenizer), "all")
    return encode_dialogues(tokenizer, read.records, LengthSettings(max_prompt_tokens=4096))


def parts(tokenizer: PreTrainedTokenizerFast, sequence: TokenSequence) -> list[tuple[str, bool]]:
    """A sequence as text, cut where learning begins and ends, and whether each part is learnt."""
    tokens = zip(sequence.ids.tolist(), sequence.loss_mask.tolist(), strict=True)
    runs = ((is_learnt, [id_ for id_, _ in run]) for is_learnt, run in groupby(tokens, key=lambda token: token[1]))
    return [(str(tokenizer.decode(ids)), is_learnt) for is_learnt, ids in runs]
