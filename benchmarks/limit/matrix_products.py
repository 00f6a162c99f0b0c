"""The matrix products of an offline step alone, as a process: `-m benchmarks.limit.matrix_products WORKLOAD RESULT`.

What no step of SFT by LoRA, or of a reward model with all its weights, can be faster than in its precision: the
products of its tokens with the model's linear layers, forward and backward, without padding. Attention, norms,
activations, adapters, loss and optimizer are left out.
"""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from benchmarks.limit.bare_parts import seconds_of
from benchmarks.workload import Workload

TOKENS_AT_ONCE = 4096
"""Of one product: as many as a micro-batch of the learner's has at most."""


def records_of(work: Workload) -> list[tuple[int, int]]:
    """(all tokens, response tokens) of every sequence; a pair is two."""
    tokenizer = AutoTokenizer.from_pretrained(work.policy)

    def count(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False))

    found = []
    for line in Path(work.data).read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        for response in (row[name] for name in ("completion", "chosen", "rejected") if name in row):
            found.append((count(row["prompt"]) + count(response), count(response)))
    return found


def products(weights: Sequence[tuple[Tensor, int]], has_weight_gradients: bool) -> float:
    """Seconds of y = x W', dx = dy W and, where weights are trained, dW = dy' x.

    Args:
        weights: (W [out, in], number of tokens that are multiplied with it).
    """

    def part() -> None:
        for weight, num_tokens in weights:
            for start in range(0, num_tokens, TOKENS_AT_ONCE):
                num = min(TOKENS_AT_ONCE, num_tokens - start)
                given, gradient = inputs[weight.shape[1]][:num], inputs[weight.shape[0]][:num]
                given @ weight.T
                gradient @ weight
                if has_weight_gradients:
                    gradient.T @ given

    sizes = {size for weight, _ in weights for size in weight.shape}
    inputs = {size: torch.randn(TOKENS_AT_ONCE, size, dtype=weights[0][0].dtype) for size in sizes}
    with torch.no_grad():
        return seconds_of(part)


def floor_of(work: Workload) -> dict[str, float]:
    """`products`: seconds of a step's; `tokens`: of a step, on average."""
    records = records_of(work)
    tokens, responses = (sum(column) // work.num_steps for column in zip(*records, strict=True))
    is_reward = work.method == "reward"
    opened = AutoModelForSequenceClassification if is_reward else AutoModelForCausalLM
    model = opened.from_pretrained(work.policy, dtype=getattr(torch, work.precision))
    head = model.get_output_embeddings()
    linear = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    # A reward model's head sees one token a sequence, which is nothing beside the rest.
    weights = [
        (module.weight.detach(), responses if module is head else tokens)
        for module in linear
        if module.out_features > 1
    ]
    return {"products": products(weights, has_weight_gradients=is_reward), "tokens": float(tokens)}


if __name__ == "__main__":
    torch.set_num_threads(os.cpu_count() or 1)
    measured = floor_of(Workload.read(Path(sys.argv[1])))
    Path(sys.argv[2]).write_text(json.dumps(measured), encoding="utf-8")
