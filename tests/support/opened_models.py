"""Models of the tests' folders, opened as a setting would have them."""

from pathlib import Path

from plumbob.configs.base import Dtype
from plumbob.configs.settings.models import ModelRef
from plumbob.models.loading import OpenedPolicy, open_base
from plumbob.models.resolution import ModelSource


def policy_ref(name: str | Path, dtype: Dtype = "float32") -> ModelRef:
    return ModelRef(str(name), "policy.model", dtype=dtype)


def opened_policy(base: str | Path, adapter: Path | None = None) -> OpenedPolicy:
    """A base, and an adapter on it that may lie anywhere."""
    return open_base(policy_ref(adapter or base), ModelSource(str(base), adapter))
