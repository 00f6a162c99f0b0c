"""Tokenizers of model folders: found, complete, or refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from plumbob.core.errors import UserError
from plumbob.models.loading import open_policy
from tests.support.opened_models import opened_policy, policy_ref
from tests.support.tiny_policy import write_policy


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_policy(tmp_path_factory.mktemp("policy"))


def edit(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({name: value for name, value in (content | changes).items() if value is not None}))


@pytest.mark.parametrize("role", ["pad", "eos"])
def test_a_tokenizer_without_a_token_that_is_needed(folder: str, tmp_path: Path, role: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    setattr(tokenizer, f"{role}_token", None)
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(UserError, match=rf"the tokenizer has no {role} token; set one with"):
        _ = opened_policy(tmp_path).tokenizer


def test_a_folder_without_a_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(UserError, match="no tokenizer can be loaded"):
        _ = opened_policy(tmp_path).tokenizer


def test_a_tokenizer_is_not_made_up(tmp_path: Path) -> None:
    """transformers makes a Qwen2 tokenizer of one token, with an EOS and a pad token, out of nothing."""
    (tmp_path / "config.json").write_text('{"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}')
    assert len(AutoTokenizer.from_pretrained(tmp_path)) == 1
    with pytest.raises(UserError, match=r"there is none of merges\.txt, tokenizer\.json, vocab\.json; save"):
        _ = opened_policy(tmp_path).tokenizer


def test_a_tokenizer_is_loaded_with_what_the_stages_need(folder: str) -> None:
    tokenizer = open_policy(policy_ref(folder)).tokenizer
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, 1)


@pytest.mark.parametrize("role", ["eos", "pad"])
def test_a_tokenizer_that_cannot_be_used_is_refused_each_time(folder: str, tmp_path: Path, role: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    setattr(tokenizer, f"{role}_token", None)
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    opened = opened_policy(tmp_path)
    for _ in range(2):
        with pytest.raises(UserError, match=f"the tokenizer has no {role} token"):
            _ = opened.tokenizer
