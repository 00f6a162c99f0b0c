"""Partial rollouts: how they are made, and what they must be."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoModelForCausalLM

from plumbob.models.adapter import Adapter
from plumbob.models.tuning.hosting import put_adapter
from plumbob.rollout.requests import continuation
from plumbob.rollout.rollout_records import Rollout, SampleRequest
from plumbob.rollout.samplers.sampler import Sampler, sample
from tests.support.plain_transformers import plain_logprobs

CLASSES = 4
"""Tokens are counted by their id modulo this."""


def in_slices(
    sampler: Sampler, requests: Sequence[SampleRequest], adapters: Sequence[Adapter] = ()
) -> tuple[list[Rollout], list[int]]:
    """Whole responses in the order of the requests, and how many tokens each slice of all of them together added.

    Args:
        adapters: loaded one before each slice, as long as there are some.
    """
    found: dict[str, Rollout] = {}
    waiting, to_load, added = list(requests), list(adapters), []
    while waiting:
        if to_load:
            sampler.load(to_load.pop(0))
        rollouts = sample(sampler, waiting)
        pairs = zip(rollouts, waiting, strict=True)
        added.append(sum(len(rollout.token_ids) - len(request.partial.token_ids) for rollout, request in pairs))
        found |= {rollout.request.group_id: rollout for rollout in rollouts}
        waiting = [remaining for rollout in rollouts if (remaining := continuation(rollout)) is not None]
    return [found[request.group_id] for request in requests], added


def largest_gaps(
    folder: str, adapters: Sequence[Adapter], rollouts: Sequence[Rollout], temperature: float
) -> dict[int, float]:
    """Version -> largest |log-prob - that of one pass over prompt and whole response| of the tokens that it made."""
    gaps: dict[int, float] = {}
    for adapter in adapters:
        base = AutoModelForCausalLM.from_pretrained(folder).eval()
        model = put_adapter(base, adapter, "policy").eval()
        gaps[adapter.version] = 0.0
        for rollout in rollouts:
            expected = plain_logprobs(model, rollout.request.prompt_ids, rollout.token_ids, temperature)
            own = rollout.versions == adapter.version
            gaps[adapter.version] = max(gaps[adapter.version], np.abs(expected - rollout.logprobs)[own].max(initial=0))
    return gaps


def pair_statistic(sampler: Sampler, folder: str, request: SampleRequest, num: int, temperature: float) -> float:
    """Pearson's statistic of `num` partial responses of two tokens against the base model's exact probabilities.

    Responses are counted in CLASSES^2 cells by the classes of their two tokens; one that stops at once counts as if a
    token of class 0 followed. The statistic has CLASSES^2 - 1 degrees of freedom.
    """
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    eos = int(model.config.eos_token_id)
    expected = torch.zeros(CLASSES, CLASSES, dtype=torch.float64)
    first = _probabilities(model, request.prompt_ids[None], temperature)[0]
    prompts = np.array([[*request.prompt_ids, token] for token in range(len(first))])
    second = _probabilities(model, prompts, temperature)
    second[eos] = torch.eye(len(first))[0]
    for token, row in enumerate(num * first[:, None] * second):
        for other in range(CLASSES):
            expected[token % CLASSES, other] += row[other::CLASSES].sum()
    assert expected.min() > 5, "too few to compare"
    asked = [replace(request, group_id=str(seed), seed=seed) for seed in range(num)]
    counts = torch.zeros_like(expected)
    for rollout in in_slices(sampler, asked)[0]:
        one, *remaining = rollout.token_ids.tolist()
        assert (one == eos) == (not remaining)
        counts[one % CLASSES, remaining[0] % CLASSES if remaining else 0] += 1
    return float(((counts - expected) ** 2 / expected).sum())


def statistic_bound() -> float:
    """P(X >= d + 2 sqrt(d x) + 2 x) <= exp(-x) for chi-squared X of d degrees of freedom.

    Laurent and Massart 2000, lemma 1; x = 10: below 5e-5.
    """
    degrees, x = CLASSES * CLASSES - 1, 10.0
    return degrees + 2 * (degrees * x) ** 0.5 + 2 * x


@torch.no_grad()
def _probabilities(model: torch.nn.Module, prompts: NDArray[np.int32], temperature: float) -> Tensor:
    """float64 [B, V]: of the token after each prompt."""
    logits = model(input_ids=torch.from_numpy(np.asarray(prompts, np.int64))).logits[:, -1]
    return torch.softmax(logits.double() / temperature, -1)
