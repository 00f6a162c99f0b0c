"""How many tokens the records of an input have (InputTokens), with those that limits leave out: histograms."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from plumbob.configs.settings.data import (
    DemonstrationDataSettings,
    LabelledDataSettings,
    LengthSettings,
    TokenizedPairDataSettings,
)
from plumbob.data.encoded_files import by_setting
from plumbob.data.epoch_order import Mixture
from plumbob.data.tokenization import TokenSequence, TooLong

R = TypeVar("R")

NUM_BINS = 8


class Bin(NamedTuple):
    """How many records have `first` to `last` tokens, both included."""

    first: int
    last: int
    num_records: int


@dataclass(frozen=True)
class TokenLengths:
    """Of one part of an input's records, such as their prompts.

    Attributes:
        limit: the setting with its value, such as "data.max_prompt_tokens=64"; None where there is none.
        most: that value.
        lengths: int64 [N], of each; where a limit leaves records out, of these too.
    """

    name: str
    limit: str | None
    most: int | None
    lengths: NDArray[np.int64]

    @property
    def num_over(self) -> int:
        """Of those that are longer than the limit."""
        return 0 if self.most is None else int((self.lengths > self.most).sum())

    def quantile(self, share: float) -> int:
        """The fewest tokens within which that share of them is."""
        ordered = np.sort(self.lengths)
        return int(ordered[max(0, math.ceil(share * len(ordered)) - 1)])

    def histogram(self) -> tuple[Bin, ...]:
        """Bins of equal width, at most NUM_BINS, from the shortest to the longest."""
        first, last = int(self.lengths.min()), int(self.lengths.max())
        width = -(-(last - first + 1) // NUM_BINS)
        counts = np.bincount((self.lengths - first) // width)
        return tuple(
            Bin(first + index * width, first + (index + 1) * width - 1, int(count))
            for index, count in enumerate(counts.tolist())
        )

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "limit": self.most,
            "num": len(self.lengths),
            "num_over_limit": self.num_over,
            "min": int(self.lengths.min()),
            "median": self.quantile(0.5),
            "p95": self.quantile(0.95),
            "max": int(self.lengths.max()),
            "total": int(self.lengths.sum()),
            "histogram": [one._asdict() for one in self.histogram()],
        }


@dataclass(frozen=True)
class InputTokens:
    """One input.

    Attributes:
        setting: what names it, such as "data.pairs".
        num_used: records that are learnt from, or asked.
        num_dropped: left out of these, because they are longer than a limit.
        num_heldout: that are measured on; 0 where several files share them.
        parts: those of which there are any.
    """

    setting: str
    num_used: int
    num_dropped: int = 0
    parts: tuple[TokenLengths, ...] = ()
    num_heldout: int = 0

    def as_dict(self) -> dict[str, Any]:
        return {
            "setting": self.setting,
            "num_used": self.num_used,
            "num_dropped": self.num_dropped,
            "num_heldout": self.num_heldout,
            "parts": [part.as_dict() for part in self.parts],
        }


def tokens_of_sequences(
    setting: str,
    records: Sequence[Sequence[TokenSequence]],
    dropped: Sequence[TooLong],
    rules: LengthSettings,
    num_heldout: int = 0,
) -> InputTokens:
    """Of records with one prompt and one response or several, which are counted together."""
    prompts = [int(sequences[0].loss_mask.argmax()) for sequences in records]
    responses = [len(sequence.ids) - prompt for prompt, own in zip(prompts, records, strict=True) for sequence in own]
    parts = (
        _part("prompt", "data.max_prompt_tokens", rules.max_prompt_tokens, prompts, dropped),
        _part("response", "data.max_response_tokens", rules.max_response_tokens, responses, dropped),
    )
    found = tuple(part for part in parts if len(part.lengths))
    return InputTokens(setting, len(records), len(dropped), found, num_heldout)


def tokens_of_files(
    data: DemonstrationDataSettings | TokenizedPairDataSettings | LabelledDataSettings,
    train: Sequence[R],
    mixture: Mixture | None,
    dropped: Sequence[Sequence[TooLong]],
    num_heldout: int,
    sequences_of: Callable[[R], Sequence[TokenSequence]],
) -> tuple[InputTokens, ...]:
    """Of the one file that a stage learns from, or of each of several, which share what is held out."""
    own_heldout = num_heldout if mixture is None else 0
    return tuple(
        tokens_of_sequences(setting, [sequences_of(one) for one in records], left_out, data, own_heldout)
        for (setting, records), left_out in zip(by_setting(data, train, mixture), dropped, strict=True)
    )


def tokens_of_prompts(
    setting: str,
    prompts: Sequence[NDArray[Any]],
    dropped: Sequence[TooLong],
    max_prompt_tokens: int,
    num_heldout: int = 0,
) -> InputTokens:
    part = _part("prompt", "data.max_prompt_tokens", max_prompt_tokens, list(map(len, prompts)), dropped)
    return InputTokens(setting, len(prompts), len(dropped), (part,) if len(part.lengths) else (), num_heldout)


def asked_of(inputs: Sequence[InputTokens]) -> list[InputTokens]:
    """Those that have the prompts which a policy is asked: one file, or each of a mixture."""
    return [one for one in inputs if one.setting == "data.prompts" or one.setting.startswith("data.mixture=")]


def tokens_of_blocks(setting: str, blocks: Sequence[TokenSequence], num_heldout: int = 0) -> InputTokens:
    """Of packed text, which nothing is left out of; `num_heldout`: documents."""
    lengths = np.array([len(block.ids) for block in blocks], dtype=np.int64)
    parts = (TokenLengths("block", None, None, lengths),) if len(blocks) else ()
    return InputTokens(setting, len(blocks), 0, parts, num_heldout)


def tokens_of_cut(
    setting: str, responses: Sequence[Sequence[int]], limit: str, most: int, num_heldout: int = 0
) -> InputTokens:
    """Of prompts with each of their responses, read together and cut at a limit; `responses`: tokens of each, whole."""
    lengths = np.array([length for own in responses for length in own], dtype=np.int64)
    part = TokenLengths("prompt and response", f"{limit}={most}", most, lengths)
    return InputTokens(setting, len(responses), 0, (part,) if len(lengths) else (), num_heldout)


def _part(name: str, key: str, most: int, lengths: Sequence[int], dropped: Sequence[TooLong]) -> TokenLengths:
    over = [one.num_tokens for one in dropped if one.part == name]
    return TokenLengths(name, f"{key}={most}", most, np.array([*lengths, *over], dtype=np.int64))
