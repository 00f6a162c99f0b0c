"""Public data as people have it; skipped where the files are not beside the checkout."""

import gzip
import json
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from plumbob.configs.settings.data import LengthSettings, ReadingSettings
from plumbob.core.errors import UserError
from plumbob.data.reading.readers import read_demonstrations, read_pairs, read_prompts
from plumbob.data.splitting import split_by_prompt
from plumbob.data.texts.chat_text import Message
from plumbob.data.tokenization import encode_pairs

FOLDER = Path(__file__).parents[4] / "shared" / "data"
HH, GSM8K = FOLDER / "hh-harmless-2000.jsonl.gz", FOLDER / "gsm8k-train.jsonl.gz"
SKIP = ReadingSettings(bad_rows="skip")


def no_chat(messages: list[Message]) -> str:
    raise AssertionError("these files have no messages")


@pytest.mark.skipif(not HH.exists(), reason="hh-rlhf is not beside the checkout")
def test_hh_rlhf_pairs(tokenizer: PreTrainedTokenizerFast) -> None:
    # Looked at by hand: rows 1255, 1689, 1951 and 1953 part before the last turn; 87, 517, 926, 1104 have no response.
    with pytest.raises(UserError, match=r"4 of 2000 rows are malformed\. row 1255: "):
        read_pairs(str(HH), ReadingSettings(), no_chat)
    read = read_pairs(str(HH), SKIP, no_chat)
    assert (len(read.records), read.num_skipped_malformed, read.num_empty, read.num_duplicate) == (1992, 4, 4, 0)
    with gzip.open(HH, "rt") as lines:
        first = json.loads(next(lines))
    assert read.records[0].prompt + read.records[0].chosen == first["chosen"]
    assert read.records[0].prompt + read.records[0].rejected == first["rejected"]
    assert all(pair.chosen.startswith(" ") and pair.prompt.endswith("Assistant:") for pair in read.records)

    prompts = read_prompts(str(HH), SKIP, no_chat)
    assert (len(prompts.records), prompts.num_duplicate) == (1994, 2)
    train, heldout = split_by_prompt(read.records, lambda pair: pair.prompt, 0.15, seed=0)
    assert len(train) + len(heldout) == 1992
    encoded = encode_pairs(
        tokenizer, read.records[:200], LengthSettings(max_prompt_tokens=512, max_response_tokens=512)
    )
    assert len(encoded.records) + len(encoded.dropped) == 200


@pytest.mark.skipif(not GSM8K.exists(), reason="GSM8K is not beside the checkout")
def test_gsm8k_demonstrations() -> None:
    read = read_demonstrations(str(GSM8K), ReadingSettings(), no_chat)
    assert (len(read.records), read.notes) == (7473, ())
    assert read.records[0].prompt.startswith("Natalia sold clips")
    assert read.records[0].response.endswith("#### 72")
