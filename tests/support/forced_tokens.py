"""What a policy writes, chosen by a test: everything else of the transformers sampler is as in a run."""

from collections.abc import Iterable, Iterator, Sequence

import pytest
import torch
from torch import Tensor

from plumbob.rollout.samplers import transformers_sampler


def force_tokens(monkeypatch: pytest.MonkeyPatch, turns: Iterable[Sequence[int]]) -> Iterator[int]:
    """Of the one response that is sampled at a time, these turns' tokens one after another; gives what is left."""
    forced = iter([int(id_) for ids in turns for id_ in ids])

    def drawn(logprobs: Tensor, generators: object) -> Tensor:
        return torch.tensor([next(forced)])

    monkeypatch.setattr(transformers_sampler, "draw", drawn)
    return forced
