"""Models of the tests' folders, opened as a setting would have them."""

from pathlib import Path

from plumbob.configs.base import Dtype
from plumbob.configs.settings.models import ModelRef
from plumbob.configs.settings.tuning.quantization import Nf4Quantization
from plumbob.models.loading import OpenedPolicy, open_base
from plumbob.models.resolution import ModelSource


def policy_ref(name: str | Path, dtype: Dtype = "float32", quantization: Nf4Quantization | None = None) -> ModelRef:
    return ModelRef(str(name), "policy.model", dtype=dtype, quantization=quantization)


def opened_policy(
    base: str | Path,
    adapter: Path | None = None,
    quantization: Nf4Quantization | None = None,
    dtype: Dtype = "float32",
) -> OpenedPolicy:
    """A base, and an adapter on it that may lie anywhere."""
    ref = policy_ref(adapter or base, dtype, quantization)
    return open_base(ref, ModelSource(str(base), adapter))
