"""Workers that answer at once with as much as real ones would: the driver that is measured cannot tell them apart."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plumbob.reward.scorer import Score, ScoreRequest, with_texts
from plumbob.rollout.publish_proof import PublishProof
from plumbob.rollout.rollout_heads import ChunkHeads
from plumbob.rollout.rollout_records import Rollout, SampleRequest
from plumbob.trainers.learner.learner_protocol import UpdatePlan, UpdateResult
from plumbob.trainers.learner.token_values import TokenRows
from plumbob.trainers.online.objective import CLIPPED, ENTROPIES, RATIOS, forward_with_entropies

LOGPROB = np.float32(-1.0)
"""Of every token, by whoever is asked: sampler and learner agree."""

CHARS_PER_TOKEN = 4


class StubSamplers:
    """Any number of rollout workers: each response has `num_tokens` tokens of the version loaded last."""

    def __init__(self, num_tokens: int) -> None:
        self._num_tokens, self._version = num_tokens, 0
        self._text = "abcdefgh " * (num_tokens * CHARS_PER_TOKEN // 9)

    def sample(self, requests: Sequence[SampleRequest]) -> list[Rollout]:
        return [self._response(request) for request in requests]

    def sample_apart(self, requests: Sequence[SampleRequest]) -> tuple[ChunkHeads, list[Rollout]]:
        rollouts = self.sample(requests)
        return ChunkHeads.of(rollouts), rollouts

    def _response(self, request: SampleRequest) -> Rollout:
        num = self._num_tokens
        ids = np.random.default_rng(request.seed).integers(0, 32_000, num).astype(np.int32)
        numbers = np.full(num, LOGPROB)
        versions = np.full(num, self._version, np.int32)
        text = f"{request.seed}{self._text}"
        return Rollout(request, "stop", text, ids, numbers, versions, np.ones(num, np.bool_), "rollout-0")

    def load(self, weights: Any) -> PublishProof:
        self._version = weights.version
        return PublishProof("rollout-0", weights.version, len(weights.tensors), 0.0, 0.0, 0.0)


class StubScorers:
    """Any number of scorers: a response is worth what its seed says."""

    def score(self, requests: Sequence[ScoreRequest], *parts: Sequence[Rollout]) -> list[Score]:
        requests = with_texts(requests, parts)
        totals = [float(len(request.response) % 7) - 3.0 + len(request.prompt) % 3 for request in requests]
        return [Score(total, {"helpful": total, "short": 0.0}) for total in totals]


class StubRank:
    """One of any number of learner ranks (`RankLearner`): its forwards and updates are numbers of the right shapes."""

    def __init__(self, rank: int, num_ranks: int) -> None:
        self.batch = StubExchange(rank, num_ranks)
        self.rollouts: Sequence[Rollout] = ()
        self.kept: Any = None

    def compute(self, batch: Any, role: str, function: Callable[..., Any]) -> NDArray[np.float32]:
        rows, width = batch.input_ids.shape
        shape = (rows, 2, width) if function is forward_with_entropies else (rows, width)
        return np.full(shape, 0.0 if role == "value" else LOGPROB, np.float32)

    def update(self, batch: Any, plan: UpdatePlan) -> UpdateResult:
        lengths = batch.action_mask.sum(dim=1).numpy()
        ones = np.ones(int(lengths.sum()), np.float32)
        shares = {"policy_loss": 0.0, "update_kl": 0.0, "first_squared_log_ratio": 0.0}
        tokens = {name: TokenRows(np.arange(len(lengths)), lengths, ones) for name in (RATIOS, CLIPPED, ENTROPIES)}
        return UpdateResult(shares, {"policy_grad_norm": 1.0}, tokens)


class StubExchange:
    """Satisfies `WholeBatch`: all ranks' rows are as this one's."""

    def __init__(self, rank: int, num_ranks: int) -> None:
        self._rank, self._num_ranks = rank, num_ranks

    def gather(self, own: Tensor) -> Tensor:
        return torch.cat([own] * self._num_ranks)

    def own(self, whole: Tensor) -> Tensor:
        size = len(whole) // self._num_ranks
        return whole[self._rank * size : (self._rank + 1) * size]


class StubRanks:
    """All learner ranks in one process; each call says which it is. What they are asked to do, they do."""

    def __init__(self) -> None:
        self._ranks: dict[int, StubRank] = {}

    def on_rank(
        self,
        rank: int,
        num_ranks: int,
        function: Callable[[Any, Any, Any], Any],
        common: Any,
        share: Any,
        locations: tuple[tuple[int, int], ...] = (),
        *parts: Any,
    ) -> Any:
        own = self._ranks.setdefault(rank, StubRank(rank, num_ranks))
        if parts:
            own.rollouts = [parts[part][row] for part, row in locations]
        return function(own, common, share)

    def save(self, rank: int, num_ranks: int, folder: Path) -> dict[str, Any]:
        return {}
