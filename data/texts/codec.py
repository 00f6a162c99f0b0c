"""Text into ids and back, exactly: parts of a text that are tokenised apart, and letters that spell a control token.

Tokenizers of Llama 2's kind put a space before each text that they are given. A response is no text of its own but
continues its prompt, so its ids are made, and read, as those of a text's later part.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plumbob.data.texts.control_tokens import MARK
from plumbob.data.texts.tokenizer import Tokenizer
from plumbob.data.texts.turns import control_tokens

SPACES = ("\u2581", "\u0120")
"""How sentencepiece and byte-level vocabularies write a space."""

ANCHORS = (":", "\n", "a", "0", ")", "A")
"""What may stand before the later part of a text while its ids are found: one that makes no token together with it."""


class TextCodec:
    """Of one tokenizer. Ids are int32, without a BOS or EOS that the text does not spell."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer: Any = tokenizer
        self.control = control_tokens(tokenizer)
        # What stands for a letter that the vocabulary has not is a word's part, though it is marked as special.
        self._control_ids = frozenset(self.control.ids.values()) - {tokenizer.unk_token_id}
        first = self._ids("a")[:1]
        self._adds_space = bool(first) and str(tokenizer.convert_ids_to_tokens(first[0])).startswith(SPACES)
        self._anchors = [(text, ids) for text in ANCHORS if (ids := self._anchor_ids(text))] if self._adds_space else []
        # Some put it behind each control token too, others only where a text begins.
        self._adds_after_control = self._adds_space and self._is_added_after_control()

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """Ids [T] of each text, from its beginning."""
        if not texts:
            return []
        plain = [text for text in texts if MARK not in text]
        encoded = iter(self._tokenizer(plain, add_special_tokens=False, verbose=False)["input_ids"] if plain else [])
        return [_array(self._marked_ids(text) if MARK in text else next(encoded)) for text in texts]

    def encode_after(self, prompts: Sequence[NDArray[np.int32]], texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """Ids [T] of each text as it continues the ids of its prompt."""
        if not self._adds_space:
            return self.encode(texts)
        begins = [self._begins_anew(prompt) for prompt in prompts]
        anew = iter(self.encode([text for text, is_anew in zip(texts, begins, strict=True) if is_anew]))
        return [
            next(anew) if is_anew else _array(self._marked_ids(text, continues=True))
            for text, is_anew in zip(texts, begins, strict=True)
        ]

    def decode_after(self, prompt: NDArray[np.int32], ids: NDArray[np.int32], with_control: bool = False) -> str:
        """The text of `ids` as they continue those of a prompt, without control tokens or with them spelt."""
        if not self._anchors or self._begins_anew(prompt):
            return self._decode(ids.tolist(), with_control)
        _, anchor = self._anchors[0]
        return self._decode([*anchor, *ids.tolist()], with_control).removeprefix(self._decode(anchor))

    def _begins_anew(self, prompt: NDArray[np.int32]) -> bool:
        """Whether a text behind the prompt is tokenised as one that stands alone."""
        return not len(prompt) or (self._adds_after_control and int(prompt[-1]) in self._control_ids)

    def _marked_ids(self, text: str, continues: bool = False) -> list[int]:
        """Of a text in which marked control tokens are letters."""
        ids: list[int] = []
        for piece, is_control in self.control.pieces(text):
            if is_control:
                ids.append(self.control.ids[piece])
            else:
                ids += self._letter_ids(piece, continues)
            continues = not (is_control and self._adds_after_control)
        return ids

    def _letter_ids(self, text: str, continues: bool) -> list[int]:
        """Of a text without control tokens, whatever it spells."""
        ids = self._later_ids(text) if continues else self._ids(text, split_special_tokens=True)
        if not self.control.spelt_as_ids(text, ids):
            return ids
        # A vocabulary of words may have the spelt token as one of them.
        ids = []
        for index, part in enumerate(self.control.cut(text)):
            ids += self._later_ids(part) if continues or index else self._ids(part, split_special_tokens=True)
        return ids

    def _later_ids(self, text: str) -> list[int]:
        """Of the later part of a text, without control tokens."""
        for anchor, before in self._anchors:
            ids = self._ids(anchor + text, split_special_tokens=True)
            if ids[: len(before)] == before:
                return ids[len(before) :]
        return self._ids(text, split_special_tokens=True)

    def _anchor_ids(self, text: str) -> list[int]:
        """Nothing where the vocabulary does not have it, or reads it as space."""
        ids = self._ids(text)
        return ids if self._tokenizer.unk_token_id not in ids and text in self._decode(ids) else []

    def _is_added_after_control(self) -> bool:
        token = next(iter(self.control.ids), None)
        return token is not None and self._ids(f"{token}a")[1:] == self._ids("a")

    def _ids(self, text: str, **options: Any) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False, verbose=False, **options)["input_ids"]
        return ids

    def _decode(self, ids: list[int], with_control: bool = False) -> str:
        return str(
            self._tokenizer.decode(ids, skip_special_tokens=not with_control, clean_up_tokenization_spaces=False)
        )


def _array(ids: Sequence[int]) -> NDArray[np.int32]:
    return np.asarray(ids, dtype=np.int32)
