"""The program of a process that tries one engine (`python -m ... NAME`): a line of JSON says what it found.

Each test computes something whose result is known, on a model of two small layers that is made on the spot. An engine
that crashes, or hangs, takes this process with it and no other.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

MAX_ERROR = 1e-4
"""Of a kernel in float32, and of log-probs."""

LARGEST_NF4_ERROR, LARGEST_STEP_ERROR = 0.12, 1e-3
"""Of normal weights in 4 bits, over the weights' own: 0.093 is expected, in blocks of 64; and of a step of 0.1."""

NUM_TOKENS = 4


def vllm_kernels() -> str:
    from plumbob.rollout.samplers.vllm.kernel_check import norm_error

    return f"its kernels compute a norm to {_small(norm_error(), MAX_ERROR):.0e}; --deep starts an engine"


def vllm_engine() -> str:
    from plumbob.configs.settings.workers import VllmEngine

    return _sampled(VllmEngine(kv_cache_gib=0.1, max_num_seqs=4))


def transformers_sampler() -> str:
    from plumbob.configs.settings.workers import TransformersEngine

    return _sampled(TransformersEngine())


def deepspeed_step() -> str:
    import numpy as np

    from plumbob.configs.load_run import load_run
    from plumbob.configs.runs import SftRun
    from plumbob.data.tokenization import TokenBatch
    from plumbob.trainers.learner.learner_protocol import UpdatePlan
    from plumbob.verify.local_learner import open_learner

    with tempfile.TemporaryDirectory() as folder:
        given = [f"policy.model={_policy(folder)}", "data.demonstrations=none", "policy.tuning.kind=full"]
        run = load_run("sft", [*given, "sft.learning_rate=1e-2", f"storage.path={folder}"])
        assert isinstance(run, SftRun)
        learner = open_learner(run)
        ids = np.random.default_rng(0).integers(2, 250, (4, 16))
        batch = TokenBatch(ids, np.ones(ids.shape, np.bool_), np.ones(ids.shape, np.bool_))
        losses = [learner.update(batch, UpdatePlan(4, 1, 1.0, 0)).metrics["loss"] for _ in range(2)]
    if not losses[1] < losses[0]:
        raise ArithmeticError(f"two steps on one batch: the loss was {losses[0]:.4f}, then {losses[1]:.4f}")
    return f"two optimizer steps: the loss fell from {losses[0]:.3f} to {losses[1]:.3f}"


def ray_boot() -> str:
    from plumbob.cluster.connection import started_or_joined
    from plumbob.cluster.nodes import hosts
    from plumbob.configs.settings.workers import ClusterSettings

    with started_or_joined(ClusterSettings(num_cpus=1)):
        (host,) = hosts(free=True)
        return f"a private one started at {host.address}, with {host.free.gib:.1f} GiB free"


def bitsandbytes_kernels() -> str:
    import torch

    from plumbob.configs.settings.tuning.quantization import Nf4Quantization
    from plumbob.models.quantization.eight_bit_adamw import open_adamw_8bit
    from plumbob.models.quantization.nf4 import rounded

    torch.manual_seed(0)
    weight = torch.randn(64, 256)
    error = float((rounded(weight, Nf4Quantization()) - weight).norm() / weight.norm())
    parameter = torch.nn.Parameter(torch.zeros(256))
    optimizer = open_adamw_8bit([{"params": [parameter], "lr": 0.1}], weight_decay=0.0, is_paged=False)
    parameter.grad = torch.ones(256)
    optimizer.step()
    # Adam's first step is of the learning rate, whatever the gradient.
    step = float((parameter.detach() + 0.1).abs().max())
    return (
        f"4 bits to {_small(error, LARGEST_NF4_ERROR):.1%} of the weights, a step of AdamW in 8 bits to "
        f"{_small(step, LARGEST_STEP_ERROR):.0e}"
    )


TESTS: Mapping[str, Callable[[], str]] = {
    "vllm": vllm_kernels,
    "vllm-engine": vllm_engine,
    "transformers": transformers_sampler,
    "deepspeed": deepspeed_step,
    "ray": ray_boot,
    "bitsandbytes": bitsandbytes_kernels,
}
"""Name of an engine -> what tries it; it raises what is wrong."""


def main(name: str) -> None:
    # What libraries print must not stand before the line of JSON.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    import torch  # noqa: F401  What all of them begin with is not the engine's time.

    began = time.monotonic()
    try:
        ok, found = True, TESTS[name]()
    except Exception as error:  # Whatever a package raises is what was to be found out.
        ok, found = False, f"{type(error).__name__}: {error}"
    json.dump({"ok": ok, "found": found, "seconds": time.monotonic() - began}, answers)
    answers.close()


def _small(error: float, bound: float) -> float:
    if not error <= bound:
        raise ArithmeticError(f"an error of {error:.2g}, and at most {bound:g} was expected")
    return error


def _policy(folder: str) -> str:
    from plumbob.configs.settings.models import NewLlamaSettings
    from plumbob.models.from_scratch import build_llama

    target = Path(folder) / "policy"
    build_llama(NewLlamaSettings(vocab_size=300), ["the car has four doors"], target, seed=0)
    return str(target)


def _sampled(engine: Any) -> str:
    """Two responses to one prompt and seed are the same, token by token."""
    import numpy as np

    from plumbob.configs.settings.models import ModelRef
    from plumbob.rollout.rollout_records import SampleRequest
    from plumbob.rollout.samplers.open_sampler import open_sampler
    from plumbob.rollout.samplers.sampler import SamplerSpec, sample

    with tempfile.TemporaryDirectory() as folder:
        model = ModelRef(_policy(folder), "policy.model")
        sampler = open_sampler(SamplerSpec(model, "doctor", engine, 1.0, NUM_TOKENS, lora_rank=0))
        prompt = np.array([40, 50, 60], np.int32)
        requests = [SampleRequest(f"p{index}", f"g{index}", 0, 7, "", prompt) for index in range(2)]
        first, second = sample(sampler, requests)
        sampler.close()
    if not np.array_equal(first.token_ids, second.token_ids):
        raise ArithmeticError(f"one prompt and seed gave {first.token_ids} and {second.token_ids}")
    _small(float(np.abs(first.logprobs - second.logprobs).max()), MAX_ERROR)
    return f"sampled {len(first.token_ids)} tokens twice alike"


if __name__ == "__main__":
    main(sys.argv[1])
