"""Responses of different lengths, among them one with a hole and one without any token; pairs of different lengths."""

from collections.abc import Sequence

import numpy as np

from plumbob.data.tokenization import PairBatch, TokenSequence, collate
from plumbob.rollout.rollout_records import FinishReason, Rollout, SampleRequest

NAN = float("nan")


def rollout(
    prompt_ids: Sequence[int],
    token_ids: Sequence[int],
    logprobs: Sequence[float],
    action_mask: Sequence[bool],
    finish_reason: FinishReason,
    version: int = 3,
    group_id: str = "g",
) -> Rollout:
    request = SampleRequest("p", group_id, 0, 0, "text", np.array(prompt_ids, dtype=np.int32))
    return Rollout(
        request,
        finish_reason,
        "text",
        np.array(token_ids, dtype=np.int32),
        np.array(logprobs, dtype=np.float32),
        np.full(len(token_ids), version, dtype=np.int32),
        np.array(action_mask, dtype=np.bool_),
        "worker-0",
    )


def ragged() -> list[Rollout]:
    """A whole response that ends in EOS; one that was cut, with a tool's two tokens inside; one without any token."""
    return [
        rollout([5, 6], [7, 2], [-1.0, -1.0], [True, True], "stop"),
        rollout([5], [9, 3, 4, 9], [-1.5, NAN, NAN, -2.0], [True, False, False, True], "length"),
        rollout([5, 6, 7], [], [], [], "length", group_id="h"),
    ]


def sequence(prompt: int, response: int, random: np.random.Generator) -> TokenSequence:
    ids = random.integers(1, 40, prompt + response).astype(np.int32)
    return TokenSequence(ids, np.arange(prompt + response) >= prompt)


def ragged_pairs(lengths: list[tuple[int, int, int]], seed: int = 3) -> PairBatch:
    """(prompt, chosen, rejected) tokens of each pair; ids from 1 to 39."""
    random = np.random.default_rng(seed)
    chosen, rejected = zip(*((sequence(p, c, random), sequence(p, r, random)) for p, c, r in lengths), strict=True)
    return PairBatch(collate(chosen, pad_id=0), collate(rejected, pad_id=0))
