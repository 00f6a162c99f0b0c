"""Whether a model's folder is the one that it was."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from plumbob.core.errors import UserError
from plumbob.models.fingerprint import NUM_SAMPLES, SAMPLE_BYTES, TENSORS, digests_of_model

LARGE = 3 * NUM_SAMPLES * SAMPLE_BYTES


def digests(folder: Path) -> dict[str, str]:
    found = digests_of_model(str(folder), "policy.model")
    assert all(len(digest) == 32 for digest in found.values())
    return found


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(bytes(LARGE))
    return folder


def test_a_copy_elsewhere_is_the_same_and_another_file_is_not(base: Path) -> None:
    before = digests(base)
    copied = base.rename(base.with_name("copied"))
    assert digests(copied) == before
    (copied / "notes.md").write_text("what people write beside it")
    assert digests(copied) == before
    (copied / "config.json").write_text("[]")
    assert {file for file, digest in digests(copied).items() if digest != before[file]} == {"config.json"}


@pytest.mark.parametrize("place", [0, LARGE // 2, LARGE - 1])
def test_weights_that_were_trained_on_are_not_the_same(base: Path, place: int) -> None:
    before = digests(base)
    weights = bytearray(LARGE)
    # All that a step changes: no distance between two samples is as large.
    start = min(place, LARGE - LARGE // NUM_SAMPLES)
    weights[start : start + LARGE // NUM_SAMPLES] = b"\1" * (LARGE // NUM_SAMPLES)
    (base / "model.safetensors").write_bytes(weights)
    assert digests(base) != before
    (base / "model.safetensors").write_bytes(bytes(LARGE + 1))
    assert digests(base) != before


@pytest.mark.parametrize("tensor", ["norm.weight", "large.weight"])
def test_weights_of_which_one_tensor_was_trained_are_not_the_same(base: Path, tensor: str) -> None:
    """A norm of 2 KiB lies between two samples."""
    tensors = {"a.weight": torch.zeros(1_000_000), "norm.weight": torch.zeros(512), "large.weight": torch.zeros(500)}
    save_file(tensors, base / "model.safetensors")
    before = digests(base)
    tensors[tensor] = tensors[tensor] + 1e-3
    save_file(tensors, base / "model.safetensors")
    after = digests(base)
    assert {file for file, digest in after.items() if digest != before[file]} >= {f"model.safetensors {TENSORS}"}


def test_what_is_no_safetensors_has_its_samples_alone(base: Path) -> None:
    for content in (
        bytes(LARGE),
        (2**62).to_bytes(8, "little") + bytes(LARGE),
        b"\x04" + bytes(7) + b"[{}]" + bytes(LARGE),
    ):
        (base / "model.safetensors").write_bytes(content)
        assert set(digests(base)) == {"config.json", "model.safetensors"}


def test_an_adapter_is_not_the_same_on_another_base(base: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    (adapter / "adapter_model.safetensors").write_bytes(b"weights")
    before = digests(adapter)
    assert set(before) == {
        "adapter_config.json",
        "adapter_model.safetensors",
        f"{base}/config.json",
        f"{base}/model.safetensors",
    }
    (base / "config.json").write_text("[]")
    assert digests(adapter) != before


def test_a_base_beside_the_adapter_counts_under_the_name_that_it_has_there(base: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "../base"}))
    (adapter / "adapter_model.safetensors").write_bytes(b"weights")
    before = digests(adapter)
    assert {name for name in before if "/" in name} == {"../base/config.json", "../base/model.safetensors"}
    (base / "config.json").write_text("[]")
    assert digests(adapter) != before


def test_an_adapter_that_cannot_be_read_is_named(base: Path) -> None:
    (base / "adapter_model.safetensors").write_bytes(b"weights")
    (base / "adapter_config.json").write_text("{")
    with pytest.raises(UserError, match=r"adapter_config\.json: cannot be read: .*; save the adapter again"):
        digests(base)


def test_a_name_of_the_hub_has_none() -> None:
    assert digests_of_model("org/model", "policy.model") == {}
