"""Weights that are not whole are told by their headers, before anything loads them."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from plumbob.core.errors import UserError
from plumbob.models.files.weight_files import check_weights

KEY = "policy.model"


def write(path: Path, seed: int = 0) -> Path:
    save_file({f"layer.{seed}": torch.ones(2, 3)}, path)
    return path


@pytest.mark.parametrize("num_bytes", [0, 3, -1])
def test_a_file_that_was_cut_is_damaged(tmp_path: Path, num_bytes: int) -> None:
    path = write(tmp_path / "model.safetensors")
    check_weights(tmp_path, KEY)
    # Without its last byte alone, the header is sound and the tensors are one byte short of it.
    path.write_bytes(path.read_bytes()[:num_bytes])
    with pytest.raises(UserError, match=rf"policy\.model={tmp_path}: model\.safetensors is damaged or missing"):
        check_weights(tmp_path, KEY)


def test_every_shard_of_an_index_is_looked_at(tmp_path: Path) -> None:
    shards = [write(tmp_path / f"model-0000{number}-of-00002.safetensors", number) for number in (1, 2)]
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"layer.1": shards[0].name, "layer.2": shards[1].name}}))
    check_weights(tmp_path, KEY)
    shards[1].write_bytes(b"cut")
    with pytest.raises(UserError, match=r"model-00002-of-00002\.safetensors is damaged or missing"):
        check_weights(tmp_path, KEY)
    shards[1].unlink()
    with pytest.raises(UserError, match=r"model-00002-of-00002\.safetensors is damaged or missing"):
        check_weights(tmp_path, KEY)
    for content in ("{", "[]", "{}", '{"weight_map": 3}'):
        index.write_text(content)
        with pytest.raises(UserError, match=r"model\.safetensors\.index\.json does not name the shards"):
            check_weights(tmp_path, KEY)


def test_a_folder_without_weights(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickled")
    with pytest.raises(UserError, match=r"has no weights, neither model\.safetensors nor .*save_pretrained"):
        check_weights(tmp_path, KEY)
