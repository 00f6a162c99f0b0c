"""Packed auxiliary text beside a stage's own data, for retention (measured) and replay (learnt on)."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from plumbob.configs.settings.data import TextBlockSettings
from plumbob.data.length_checks import check_limits
from plumbob.data.reading.readers import read_texts
from plumbob.data.rendered_rows import RenderedRow, block_rows
from plumbob.data.tokenization import TokenBatch, TokenSequence, collate, pack_texts
from plumbob.models.loading import OpenedModel


@dataclass(frozen=True)
class PackedText:
    """Blocks of text, all of them learnt or measured whole, and sentences about rows that were left out.

    Attributes:
        rows: one block as the model sees it.
    """

    blocks: tuple[TokenSequence, ...]
    pad_id: int
    notes: tuple[str, ...]
    rows: tuple[RenderedRow, ...] = ()

    def batch_of(self, index: NDArray[np.int64]) -> TokenBatch:
        return collate([self.blocks[i] for i in index], self.pad_id)


def pack_text(key: str, settings: TextBlockSettings, opened: OpenedModel, is_learnt: bool) -> PackedText:
    """Read and cut. `key` names the settings; `is_learnt` says whether the blocks are, or are measured.

    Raises:
        UserError: the file cannot be read, or a block is longer than the model's positions.
    """
    check_limits({f"{key}.block_tokens": settings.block_tokens}, opened.num_positions, opened.ref.setting)
    read = read_texts(settings.text, settings)
    blocks = pack_texts(opened.tokenizer, read.records, settings.block_tokens, settings.rendered)
    rows = block_rows(f"{key}.text", opened.tokenizer, blocks, is_learnt)
    return PackedText(tuple(blocks), opened.tokenizer.pad_token_id, read.notes, rows)


class WithNotes(Protocol):
    @property
    def notes(self) -> tuple[str, ...]: ...

    @property
    def rows(self) -> tuple[RenderedRow, ...]: ...


def notes_of(*texts: WithNotes | None) -> tuple[str, ...]:
    """Of all the texts that there are."""
    return tuple(note for text in texts if text is not None for note in text.notes)


def rows_of(*texts: WithNotes | None) -> tuple[RenderedRow, ...]:
    """The same, of their rows."""
    return tuple(row for text in texts if text is not None for row in text.rows)
