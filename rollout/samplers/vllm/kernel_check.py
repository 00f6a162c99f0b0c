"""Whether vLLM's compiled kernels compute here, told without an engine, which takes half a minute to start."""

import torch

EPSILON = 1e-6


def norm_error() -> float:
    """The largest difference of vLLM's kernel for x / sqrt(mean(x^2) + epsilon) w from that formula, on this machine.

    Raises:
        ImportError: vLLM is not there, or cannot be imported.
        RuntimeError, AttributeError: it is without kernels for this machine, as the build for GPUs is for CPUs.
    """
    from vllm import _custom_ops as kernels

    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not hasattr(torch.ops._C, "rms_norm"):
        raise RuntimeError("this vLLM is the build for GPUs, and there is no GPU here")
    x = torch.linspace(-2, 3, 256, device=device).reshape(4, 64)
    weight = torch.linspace(0.5, 1.5, 64, device=device)
    found = torch.empty_like(x)
    kernels.rms_norm(found, x, weight, EPSILON)
    expected = x / (x.pow(2).mean(dim=-1, keepdim=True) + EPSILON).sqrt() * weight
    return float((found - expected).abs().max())
