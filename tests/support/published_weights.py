"""Weights of a model on their way from a learner to an engine: made, and what plain transformers says with them."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM

from plumbob.models.adapter import FullWeights
from plumbob.rollout.rollout_records import Rollout
from tests.support.plain_transformers import plain_logprobs
from tests.support.tiny_policy import TEMPERATURE


def tie_embeddings(folder: str | Path) -> str:
    """The same model with the input's embeddings for the output's too."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.config.tie_word_embeddings = True
    model.tie_weights()
    model.save_pretrained(folder)
    return str(folder)


def changed_weights(
    folder: str, version: int, dtype: torch.dtype = torch.float32, names: Collection[str] | None = None
) -> FullWeights:
    """The model's own with noise that the version decides, of all its parameters or of these."""
    generator = torch.Generator().manual_seed(version)
    named = AutoModelForCausalLM.from_pretrained(folder).named_parameters()
    noisy = {name: p.detach() + 0.05 * torch.randn(p.shape, generator=generator) for name, p in named}
    return FullWeights(
        version, {name: tensor.to(dtype) for name, tensor in noisy.items() if names is None or name in names}
    )


def with_weights(folder: str, weights: FullWeights) -> Any:
    """Plain transformers' model of the folder, with these instead of its own, in float32."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    found = model.load_state_dict(dict(weights.tensors), strict=False)
    assert not found.unexpected_keys
    return model.eval()


def weight_gaps(folder: str, weights: FullWeights, rollouts: Sequence[Rollout]) -> NDArray[np.float32]:
    """|log-prob - that of plain transformers with the weights| of every token."""
    model = with_weights(folder, weights)
    plain = (plain_logprobs(model, each.request.prompt_ids, each.token_ids, TEMPERATURE) for each in rollouts)
    return np.concatenate([np.abs(logprobs - each.logprobs) for logprobs, each in zip(plain, rollouts, strict=True)])
