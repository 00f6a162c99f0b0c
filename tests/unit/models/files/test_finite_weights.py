"""NaN and infinities in a file of weights are found by their bits, whatever type the numbers have."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from plumbob.core.errors import UserError
from plumbob.models.files import finite_weights
from plumbob.models.files.finite_weights import first_not_finite
from plumbob.models.files.weight_files import check_file

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
PLACES = [0, 17, 34]
"""The first of 35 numbers, one in the middle and the last."""


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [torch.nan, -torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("place", PLACES)
def test_one_number_is_found_wherever_it_is(tmp_path: Path, dtype: torch.dtype, value: float, place: int) -> None:
    path = tmp_path / "model.safetensors"
    broken = torch.zeros(5, 7, dtype=dtype)
    broken.view(-1)[place] = value
    save_file({"a": torch.ones(3, dtype=dtype), "b": broken, "c": torch.ones(2)}, path)
    assert first_not_finite(path) == "b"
    with pytest.raises(UserError, match=rf"^policy\.model={tmp_path}: model\.safetensors: b has numbers that are NaN"):
        check_file(path, "policy.model")


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_largest_and_the_smallest_numbers_are_finite(tmp_path: Path, dtype: torch.dtype) -> None:
    bounds = torch.finfo(dtype)
    odd = torch.tensor([bounds.max, bounds.min, bounds.tiny, bounds.smallest_normal / 2, 0.0, -0.0], dtype=dtype)
    save_file({"a": odd}, tmp_path / "model.safetensors")
    assert first_not_finite(tmp_path / "model.safetensors") is None


def test_whole_numbers_are_finite_whatever_their_bits(tmp_path: Path) -> None:
    """-1 has all bits, those of an exponent among them."""
    whole = {str(dtype): torch.full((4,), -1, dtype=dtype) for dtype in (torch.int64, torch.int32, torch.int16)}
    save_file(whole, tmp_path / "model.safetensors")
    assert first_not_finite(tmp_path / "model.safetensors") is None


def test_a_file_is_read_in_chunks_and_again_when_it_was_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finite_weights, "CHUNK", 16)
    path = tmp_path / "model.safetensors"
    weights = torch.zeros(5, 7)
    save_file({"a": weights}, path)
    assert first_not_finite(path) is None
    weights[4, 6] = torch.nan
    save_file({"a": weights, "b": torch.ones(1)}, path)
    assert first_not_finite(path) == "a"


def test_of_a_large_file_each_tensor_is_read_at_its_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finite_weights, "MAX_READ", 64)
    monkeypatch.setattr(finite_weights, "MAX_OF_TENSOR", 16)
    for place, found in ((3, "b"), (4, None)):  # Four numbers of 32 bits have 16 bytes.
        weights = torch.zeros(35)
        weights[place] = torch.inf
        path = tmp_path / f"{place}.safetensors"
        save_file({"a": torch.ones(35), "b": weights}, path)
        assert first_not_finite(path) == found
