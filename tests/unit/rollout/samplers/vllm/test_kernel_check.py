"""What is said of a vLLM whose kernels are for other machines; that they compute is what `plumbob doctor` finds."""

from types import SimpleNamespace

import pytest
import torch

from plumbob.rollout.samplers.vllm.kernel_check import norm_error

pytest.importorskip("vllm")


def test_a_build_for_gpus_is_named_on_a_machine_that_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """It registers no kernel on a machine without its driver."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.ops, "_C", SimpleNamespace())
    with pytest.raises(RuntimeError, match="this vLLM is the build for GPUs, and there is no GPU here"):
        norm_error()
