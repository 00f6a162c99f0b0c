"""Whether responses were sampled from the policies that the run's checkpoints have, by plain transformers."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from plumbob.rollout.journal import JournalRow
from plumbob.trainers.learner.checkpoint import folder_name
from tests.support.plain_transformers import plain_logprobs
from tests.support.small_run import Left, tensors_of

ADAPTED = re.compile(r"param\.causal_lm\.base_model\.model\.(.*)\.lora_A\.policy\.weight")


def policy_of(checkpoint: Path, policy: dict[str, Any]) -> Any:
    """The base model with the checkpoint's adapter added to its matrices: W + alpha / rank * B A."""
    tensors = tensors_of(checkpoint)
    model = AutoModelForCausalLM.from_pretrained(policy["model"]).eval()
    scale = policy["tuning"]["alpha"] / policy["tuning"]["rank"]
    names = [(found[0], found[1]) for name in tensors if (found := ADAPTED.fullmatch(name))]
    assert names, f"no adapter in {checkpoint}"
    with torch.no_grad():
        for down, module in names:
            up = down.replace("lora_A", "lora_B")
            model.get_submodule(module).weight += scale * (tensors[up] @ tensors[down])
    return model


def gaps(left: Left, step: int) -> dict[int, float]:
    """Version -> nats between its own log-prob of a token that it sampled for that step and the sampler's, at most."""
    resolved = json.loads((left.folder / "resolved.json").read_text())["config"]
    rows = [row for number, row in left.journal if number == step]
    found = {}
    for version in sorted({int(version) for row in rows for version in row.versions}):
        model = policy_of(left.folder / "checkpoints" / folder_name(version), resolved["policy"])
        found[version] = max(gap(model, row, version, resolved["rollout"]["temperature"]) for row in rows)
    return found


def gap(model: Any, row: JournalRow, version: int, temperature: float) -> float:
    """Of the response's tokens of that version, which may have continued what another one began."""
    gaps = np.abs(plain_logprobs(model, row.prompt_ids, row.token_ids, temperature) - row.logprobs)
    return float(gaps[row.versions == version].max(initial=0.0))
