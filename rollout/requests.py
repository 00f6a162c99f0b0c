"""From prompts to requests, and what a loop asks of all rollout workers together."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from plumbob.data.prompts import EncodedPrompt
from plumbob.models.adapter import PolicyWeights
from plumbob.rollout.environments.environment_protocol import episode_seed
from plumbob.rollout.rollout_heads import Response
from plumbob.rollout.rollout_records import Rollout, SampleRequest


class RolloutWorkers(Protocol):
    """All rollout workers as one."""

    def sample(self, requests: Sequence[SampleRequest]) -> Sequence[Response]:
        """One whole response to each request, in their order; each token is of the version that its worker had then.

        The tokens of all may be elsewhere.
        """

    def load(self, weights: PolicyWeights) -> None:
        """Sync this version to every worker, which verifies it before it samples; returns when the first has.

        Raises PublishError.
        """


def sample_requests(
    prompts: Sequence[EncodedPrompt],
    samples_per_prompt: int,
    step: int,
    seed: int,
    first_index: int = 0,
    with_rows: bool = False,
) -> list[SampleRequest]:
    """`samples_per_prompt` requests for each prompt, in order; every response has a seed of its own.

    Args:
        first_index: of the first prompt in its step; the prompts that were asked before in the same step come first.
        with_rows: each is to carry its prompt's row, for an environment.
    """
    requests = []
    for index, prompt in enumerate(prompts, first_index):
        group_id = f"{step}-{index}"
        for index in range(samples_per_prompt):
            requests.append(
                SampleRequest(
                    prompt_id=prompt.prompt_id,
                    group_id=group_id,
                    sample_index=index,
                    seed=response_seed(seed, group_id, index),
                    prompt=prompt.text,
                    prompt_ids=prompt.ids,
                    row=prompt.row if with_rows else {},
                    environment_seed=episode_seed(seed, prompt.row) if with_rows else 0,
                    opening=prompt.opening,
                )
            )
    return requests


def continuation(response: Response) -> SampleRequest | None:
    """What asks for the rest of a partial response; None for one that is finished."""
    if response.finish_reason != "partial":
        return None
    started = response.as_started if isinstance(response, Rollout) else response.started
    assert started is not None, "a partial response has begun"
    return replace(response.request, partial=started)


def partial_seed(request: SampleRequest) -> int:
    """Of the tokens that are sampled from here on: a continuation must not use the noise of its beginning again."""
    num_started = len(request.partial.token_ids)
    return request.seed if num_started == 0 else _seed_of(f"{request.seed}/{num_started}")


def response_seed(seed: int, group_id: str, sample_index: int) -> int:
    """A seed below 2^31 that these three decide."""
    return _seed_of(f"{seed}/{group_id}/{sample_index}")


def _seed_of(name: str) -> int:
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
