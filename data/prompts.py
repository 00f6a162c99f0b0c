"""Prompts: their names, their chat template, their token ids, and a cursor over them, epoch after epoch."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plumbob.core.errors import UserError
from plumbob.data.epoch_order import Mixture, endless_mixture, endless_order
from plumbob.data.records import Prompt
from plumbob.data.texts.control_tokens import unmarked
from plumbob.data.texts.tokenizer import Tokenizer
from plumbob.data.tokenization import EncodedRecords, TooLong, encode_prompt_ids, keep_fitting


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt as the sampler takes it. `ids` int32 [P], never empty; `row` and `opening` as in `Prompt`."""

    prompt_id: str
    text: str
    ids: NDArray[np.int32]
    row: Mapping[str, Any] = field(default_factory=dict, hash=False)
    opening: str = ""


def encode_prompts(
    tokenizer: Tokenizer, prompts: Sequence[Prompt], max_prompt_tokens: int, required: bool = True
) -> EncodedRecords[EncodedPrompt]:
    """Every prompt of at most `max_prompt_tokens`. UserError if `required` and there is none."""
    all_ids = encode_prompt_ids(tokenizer, [prompt.text for prompt in prompts])
    encoded = [
        EncodedPrompt(prompt.prompt_id, unmarked(prompt.text), ids, prompt.row, prompt.opening)
        if len(ids) <= max_prompt_tokens
        else TooLong("prompt", len(ids))
        for prompt, ids in zip(prompts, all_ids, strict=True)
    ]
    return keep_fitting(encoded, "prompts", max_prompt_tokens, required=required)


class PromptCursor:
    """Gives prompts in a seeded order: each one once an epoch, or by the weights of a mixture of files.

    Epochs follow one another without a gap: a batch that an epoch's rest does not fill takes from the next epoch's
    order too, and may then hold a prompt twice, once for each epoch. Of a mixture's small files a prompt may come
    several times an epoch.
    """

    def __init__(self, prompts: Sequence[EncodedPrompt], seed: int, mixture: Mixture | None = None) -> None:
        if not prompts:
            raise ValueError("a cursor needs at least one prompt, given 0")
        self._prompts = tuple(prompts)
        self._seed = seed
        self._mixture = mixture
        self._position = 0
        shares = [] if mixture is None else [str((mixture.sizes, mixture.weights))]
        names = "\n".join([str(seed), *(prompt.prompt_id for prompt in prompts), *shares])
        self._fingerprint = hashlib.sha256(names.encode()).hexdigest()

    def next(self, count: int) -> list[EncodedPrompt]:
        if self._mixture is None:
            indices = endless_order(len(self._prompts), self._position, count, self._seed)
        else:
            indices = endless_mixture(self._mixture, self._position, count, self._seed)
        self._position += count
        return [self._prompts[index] for index in indices]

    def state(self) -> dict[str, int | str]:
        """What JSON can carry: how many prompts were given, and of which prompts and seed."""
        return {"position": self._position, "fingerprint": self._fingerprint}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on where that state was taken. UserError when it belongs to other prompts or another seed."""
        if state["fingerprint"] != self._fingerprint:
            raise UserError(
                f"the prompts are not those that the run began with ({len(self._prompts)} prompts now): "
                f"a run is resumed on the same files, weights, limits, tokenizer, seed and version of Plumbob. Put "
                f"them back, or start a new run"
            )
        self._position = int(state["position"])
