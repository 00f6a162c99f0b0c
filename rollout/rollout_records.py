"""What sampling makes: one frozen record per response."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

FinishReason = Literal["stop", "length", "partial"]


@dataclass(frozen=True)
class PartialResponse:
    """The tokens of a response that were sampled before.

    Attributes:
        token_ids: int32 [S], none of them EOS.
        logprobs: float32 [S], as in `Rollout`.
        versions: int32 [S], the policy version that made each token.
    """

    token_ids: NDArray[np.int32]
    logprobs: NDArray[np.float32]
    versions: NDArray[np.int32]


NOT_STARTED = PartialResponse(np.zeros(0, np.int32), np.zeros(0, np.float32), np.zeros(0, np.int32))


@dataclass(frozen=True)
class SampleRequest:
    """One response to sample.

    Attributes:
        prompt_id: names the prompt within the run.
        group_id: responses to one prompt within one step share it.
        sample_index: which response of the group this is.
        seed: of this response's random numbers; with the policy version it decides the response.
        prompt: the text that the policy sees, chat template applied.
        prompt_ids: the same as token ids, int32 [P], never empty.
        partial: what there is of the response, which is to be continued.
    """

    prompt_id: str
    group_id: str
    sample_index: int
    seed: int
    prompt: str
    prompt_ids: NDArray[np.int32]
    partial: PartialResponse = NOT_STARTED


@dataclass(frozen=True)
class Rollout:
    """One sampled response.

    Attributes:
        request: what was asked for first, without what was started.
        finish_reason: "stop" (the response ends in EOS, which is its last token), "length" (cut at the limit, no EOS)
            or "partial" (to be continued, or given up).
        response: the response as text, without special tokens.
        token_ids: int32 [T], the tokens after the prompt, EOS included when there is one.
        logprobs: float32 [T], log-probability of each token under the sampler's policy at the sampling temperature.
        versions: int32 [T], the policy version that made each token.
        action_mask: bool [T], False on text that the policy did not write.
        worker: who sampled it, of several the last.
    """

    request: SampleRequest
    finish_reason: FinishReason
    response: str
    token_ids: NDArray[np.int32]
    logprobs: NDArray[np.float32]
    versions: NDArray[np.int32]
    action_mask: NDArray[np.bool_]
    worker: str
