"""Model folders that are hostile, damaged or clumsily edited: one message, before anything is built by them."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from plumbob.core.errors import UserError
from plumbob.data.tokenization import TokenSequence, collate, encode_prompt_ids
from plumbob.models.adapter import save_adapter
from plumbob.models.files.weight_files import save_model
from plumbob.models.loading import load_causal_lm, open_policy
from tests.support.opened_models import policy_ref
from tests.support.tiny_policy import make_adapter, write_policy


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_policy(tmp_path_factory.mktemp("policy"))


@pytest.fixture
def folder(whole: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "model"))


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("num_hidden_layers", 100_000, "num_hidden_layers in its config.json is 100000"),
        ("num_hidden_layers", 0, "num_hidden_layers in its config.json is 0"),
        ("hidden_size", 10**9, "hidden_size in its config.json is 1000000000"),
        ("vocab_size", -5, "vocab_size in its config.json is -5"),
    ],
)
def test_sizes_are_read_before_a_model_is_built(folder: Path, name: str, value: object, found: str) -> None:
    edit(folder / "config.json", lambda config: config.update({name: value}))
    with pytest.raises(UserError, match=f"policy.model={folder}: {found}, and must be a whole number from 1 to"):
        open_policy(policy_ref(str(folder)))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("hidden_size", value) for value in (1.5, "64", [], {}, True)),
        *(("architectures", value) for value in ("LlamaForCausalLM", [3], {"a": 1})),
        *(("model_type", value) for value in (3, [], None, "no-such-model")),
        ("rope_parameters", {"rope_type": 7}),
        ("quantization_config", "no"),
        ("dtype", "float99"),
        ("auto_map", {"AutoConfig": 3}),
    ],
)
def test_a_config_with_values_of_other_types(folder: Path, name: str, value: object) -> None:
    edit(folder / "config.json", lambda config: config.update({name: value}))
    with pytest.raises(UserError, match=f"policy.model={folder}: "):
        opened = open_policy(policy_ref(str(folder)))
        _ = opened.tokenizer, opened.num_positions
        load_causal_lm(opened)


@pytest.mark.parametrize("content", [b"", b"[]", b"3", b"\xff\xfe{}", b'{"a":' * 50_000, b"{}"])
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_files_that_hold_another_thing(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    if (name, content) == ("tokenizer_config.json", b"{}"):
        return  # A tokenizer without names of its special tokens: refused for the EOS, which is another test's.
    with pytest.raises(UserError, match=f"policy.model={folder}: "):
        _ = open_policy(policy_ref(str(folder))).tokenizer


@pytest.mark.parametrize("value", ["256", True, 0, -3, [], float("nan")])
def test_a_longest_text_that_is_no_number(folder: Path, value: object) -> None:
    edit(folder / "tokenizer_config.json", lambda config: config.update(model_max_length=value))
    with pytest.raises(UserError, match=f"policy.model={folder}: .*model_max_length"):
        _ = open_policy(policy_ref(str(folder))).tokenizer


def test_weights_that_lack_layers_are_not_made_of_random_numbers(folder: Path) -> None:
    edit(folder / "config.json", lambda config: config.update(num_hidden_layers=config["num_hidden_layers"] + 1))
    with pytest.raises(UserError, match=r"the weights lack model\.layers\.\d.* and 1 more: the folder is not whole"):
        load_causal_lm(open_policy(policy_ref(str(folder))))


@pytest.mark.parametrize("ring", ["itself", "two", "another adapter"])
def test_an_adapter_on_an_adapter(whole: str, tmp_path: Path, ring: str) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for adapter in (first, second):
        save_adapter(make_adapter(whole, 0, seed=1), adapter)
    bases = {"itself": (first, first), "two": (second, first), "another adapter": (second, Path(whole))}[ring]
    for adapter, base in zip((first, second), bases, strict=True):
        edit(
            adapter / "adapter_config.json",
            lambda config, base=base: config.update(base_model_name_or_path=str(base)),
        )
    with pytest.raises(UserError, match=f"{first}: was trained on {bases[0]}, which is an adapter itself; merge"):
        open_policy(policy_ref(str(first)))


@pytest.mark.parametrize("rank", [0, -1, 10**9, None, "4", True, 4.0, [4]])
def test_an_adapter_of_a_rank_that_no_layer_has(whole: str, tmp_path: Path, rank: object) -> None:
    save_adapter(make_adapter(whole, 0, seed=1), tmp_path)
    edit(tmp_path / "adapter_config.json", lambda config: config.update(r=rank))
    told = re.escape(f"adapter_config.json: r is {json.dumps(rank)}, and must be a whole number from 1 to")
    with pytest.raises(UserError, match=told):
        open_policy(policy_ref(str(tmp_path)))


@pytest.mark.parametrize("alpha", ["16", True, [16], {"q_proj": 16}])
def test_an_adapter_whose_alpha_is_no_number(whole: str, tmp_path: Path, alpha: object) -> None:
    save_adapter(make_adapter(whole, 0, seed=1), tmp_path)
    edit(tmp_path / "adapter_config.json", lambda config: config.update(lora_alpha=alpha))
    with pytest.raises(UserError, match=re.escape(f"lora_alpha is {json.dumps(alpha)}, and must be a number; save")):
        open_policy(policy_ref(str(tmp_path)))


@pytest.mark.parametrize("name", ["package:a.b/c", "package:", "package:..x/y", "package:no-such/z", "package:\0/a"])
def test_a_package_that_is_none(name: str) -> None:
    with pytest.raises(UserError, match=r"policy\.model=package:.*; (install it, or )?give a folder"):
        open_policy(policy_ref(name))


@pytest.mark.parametrize("name", ["x" * 300, "/" + "x" * 300, "~nosuchuser/model", "a\0b"])
def test_a_name_that_no_folder_can_have(name: str) -> None:
    with pytest.raises(UserError, match=r"policy\.model="):
        open_policy(policy_ref(name))


def test_an_index_of_weights_names_files_beside_it(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder.parent / "model.safetensors")
    index = {"metadata": {}, "weight_map": {"a": "../model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"does not name the shards: \.\./model\.safetensors is no file beside it"):
        open_policy(policy_ref(str(folder)))


def add_token(folder: Path, token: str, role: str = "") -> None:
    """To the tokenizer alone, as people do who forget the model."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if role:
        tokenizer.add_special_tokens({f"{role}_token": token})
    else:
        tokenizer.add_tokens([token], special_tokens=True)
    tokenizer.save_pretrained(folder)


def test_a_pad_token_without_an_embedding_is_never_looked_up(folder: Path) -> None:
    add_token(folder, "[PAD]", "pad")
    opened = open_policy(policy_ref(str(folder)))
    tokenizer = opened.tokenizer
    assert len(tokenizer) > opened.config.vocab_size
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    sequences = [TokenSequence(ids, ids > 0) for ids in encode_prompt_ids(tokenizer, ["A", "A b c d e"])]
    batch = collate(sequences, tokenizer.pad_token_id)
    assert batch.input_ids.max() < opened.config.vocab_size
    load_causal_lm(opened)(torch.from_numpy(batch.input_ids))


@pytest.mark.parametrize("role", ["eos", "bos"])
def test_a_token_that_every_text_has_needs_an_embedding(folder: Path, role: str) -> None:
    add_token(folder, "<|new|>", role)
    with pytest.raises(UserError, match=rf"policy\.model={folder}: the {role} token has the id \d+, and the model has"):
        _ = open_policy(policy_ref(str(folder))).tokenizer


def test_a_text_with_a_token_without_an_embedding(folder: Path) -> None:
    add_token(folder, "<tool_call>")
    tokenizer = open_policy(policy_ref(str(folder))).tokenizer
    assert len(encode_prompt_ids(tokenizer, ["A b"])) == 1
    with pytest.raises(UserError, match=r"a text has the token '<tool_call>' of id \d+, and the model has embeddings"):
        encode_prompt_ids(tokenizer, ["A b", "A <tool_call>"])


def test_whoever_may_read_a_model_may_read_its_weights(whole: str, tmp_path: Path) -> None:
    save_adapter(make_adapter(whole, 0, seed=1), tmp_path)
    opened = open_policy(policy_ref(whole))
    save_model(load_causal_lm(opened), opened.tokenizer, tmp_path / "full")
    modes = {path.stat().st_mode & 0o777 for path in tmp_path.rglob("*") if path.is_file()}
    mask = os.umask(0o022)
    os.umask(mask)
    assert modes == {0o666 & ~mask}


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_a_folder_that_may_not_be_read_is_told_so_to_another_user(folder: Path, tmp_path: Path) -> None:
    for path in (folder, *folder.parents[: len(folder.parents) - 1]):
        path.chmod(path.stat().st_mode | 0o755)
    closed = {
        "config.json": 0o600,
        "model.safetensors": 0o600,
        "tokenizer.json": 0o600,
        ".": 0o700,
    }
    for name, mode in closed.items():
        path = folder / name
        before = path.stat().st_mode
        path.chmod(mode)
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            os.setgid(65534)
            os.setuid(65534)
            try:
                _ = open_policy(policy_ref(str(folder))).tokenizer
                message = "opened"
            except UserError as error:
                message = f"UserError {error}"
            except BaseException as error:
                message = repr(error)
            os.write(writing, message.encode()[:4000])
            os._exit(0)
        os.waitpid(child, 0)
        os.close(writing)
        told = os.read(reading, 4000).decode()
        os.close(reading)
        path.chmod(before)
        assert told.startswith(f"UserError policy.model={folder}: "), (name, told)
        assert "may not be read" in told or "ermission denied" in told, (name, told)
