"""How long sampled responses are taken to be: as those of the data are, or as long as the settings allow."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from plumbob.configs.settings.workers import RolloutSettings
from plumbob.driver.input_sizes.token_lengths import InputTokens, TokenLengths, asked_of

LONGEST_SHARE = 0.99
"""Of such responses: what is sampled at once is as long as the longest of about a hundred."""


@dataclass(frozen=True)
class ExpectedResponses:
    """How long prompts and responses are taken to be, in tokens.

    Attributes:
        prompt, mean: on average.
        longest: of those that are sampled at once.
    """

    prompt: float
    mean: float
    longest: int


@dataclass(frozen=True)
class ResponseLengths:
    """`rollout`: of the run; None where it samples nothing."""

    inputs: Sequence[InputTokens]
    rollout: RolloutSettings | None

    @property
    def expected(self) -> ExpectedResponses:
        """Of what is sampled; a response is cut at `rollout.max_tokens`."""
        assert self.rollout is not None, "what is sampled has a limit"
        most, shown = self.rollout.max_tokens, self._shown()
        asked = [part.lengths for one in asked_of(self.inputs) if (part := _named(one, "prompt")) is not None]
        prompt = float(np.concatenate(asked).mean()) if asked else 0.0
        if shown is None:
            return ExpectedResponses(prompt, most, most)
        return ExpectedResponses(
            prompt, min(most, float(shown[1].lengths.mean())), min(most, shown[1].quantile(LONGEST_SHARE))
        )

    @property
    def response_share(self) -> float:
        """Of the tokens of what is learnt, prompts and responses; 1 where neither is known."""
        for one in self.inputs:
            prompt, response = (_named(one, name) for name in ("prompt", "response"))
            if prompt is not None and response is not None:
                mean = float(response.lengths.mean())
                return mean / (mean + float(prompt.lengths.mean()))
        return 1.0

    @property
    def sentence(self) -> str:
        expected, shown = self.expected, self._shown()
        if shown is None:
            return (
                f"sampled responses are taken to have rollout.max_tokens={expected.longest} tokens: it may be much less"
            )
        return f"sampled responses are taken to have {expected.mean:.0f} tokens, as those of {shown[0]} have on average"

    def _shown(self) -> tuple[str, TokenLengths] | None:
        """Responses of the data, with the setting that names them."""
        for one in self.inputs:
            part = _named(one, "response")
            if part is not None:
                return one.setting, part
        return None


def _named(one: InputTokens, name: str) -> TokenLengths | None:
    return next((part for part in one.parts if part.name == name), None)
