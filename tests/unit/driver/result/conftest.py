"""A tiny policy that chats, and adapters on it."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from plumbob.data.texts.chat_text import PLAIN_CHAT_TEMPLATE
from tests.support.libraries import write_adapter
from tests.support.tiny_policy import write_policy


@pytest.fixture(scope="package")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = write_policy(tmp_path_factory.mktemp("models") / "base")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = PLAIN_CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="package")
def adapter(base: str) -> str:
    return str(write_adapter(Path(base).parent / "tuned", base))
