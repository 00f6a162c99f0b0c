"""How likely models think sentences are: masked models by pseudo-log-likelihood, causal ones by log-likelihood."""

from collections.abc import Callable, Sequence
from difflib import SequenceMatcher
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoModelForMaskedLM

from plumbob.data.records import Demonstration
from plumbob.data.texts.codec import TextCodec
from plumbob.data.tokenization import TokenSequence, collate, encode_turns
from plumbob.models.loading import OpenedModel, OpenedPolicy, load_weights
from plumbob.models.policy import PolicyModel
from plumbob.models.tuning.roles import frozen_reference

# ------------------------------------------------------------------------------------------------------ causal models


class CausalLikelihoods:
    """Of a policy, its adapter on its base.

    Raises:
        UserError: it cannot be loaded.
    """

    def __init__(self, opened: OpenedPolicy, batch_size: int, device: str = "cpu") -> None:
        self._tokenizer, self._batch_size, self._device = opened.tokenizer, batch_size, device
        self._model: PolicyModel = frozen_reference(opened).to(device).eval()

    def of_sentences(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """log p of each text [texts], in nats: the sum over all its tokens, of which the first follows the BOS, or
        the EOS where there is none."""
        tokenizer = self._tokenizer
        start = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        sequences = []
        for ids in TextCodec(tokenizer).encode(texts):
            whole = np.concatenate([[start], ids]).astype(np.int32)
            sequences.append(TokenSequence(whole, np.arange(len(whole)) > 0))
        return self._sums(sequences)

    def of_responses(self, responses: Sequence[tuple[str, str]]) -> NDArray[np.float64]:
        """log p of a token of each (prompt, response), its end among them: the mean, in nats. [responses]"""
        sequences = encode_turns(self._tokenizer, [Demonstration(*one) for one in responses])
        return self._sums(sequences) / np.array([one.loss_mask.sum() for one in sequences])

    @torch.inference_mode()
    def _sums(self, sequences: Sequence[TokenSequence]) -> NDArray[np.float64]:
        def forward(rows: list[TokenSequence]) -> NDArray[np.float64]:
            batch = collate(rows, self._tokenizer.pad_token_id)
            ids, attended, asked = (
                torch.from_numpy(each).to(self._device)
                for each in (batch.input_ids, batch.attention_mask, batch.loss_mask)
            )
            with self._model.role("reference"):
                logprobs: Tensor = self._model(ids, attended, asked, 1.0)
            found: NDArray[np.float64] = logprobs.double().sum(dim=1).cpu().numpy()
            return found

        return in_batches(sequences, lambda one: len(one.ids), self._batch_size, forward)


def in_batches(
    rows: Sequence[Any], length: Callable[[Any], int], batch_size: int, forward: Callable[[list[Any]], NDArray[Any]]
) -> NDArray[np.float64]:
    """What `forward` finds of each row [rows], of rows of like length at a time."""
    order = sorted(range(len(rows)), key=lambda index: length(rows[index]))
    found = np.zeros(len(rows))
    for start in range(0, len(order), batch_size):
        indices = order[start : start + batch_size]
        found[indices] = forward([rows[index] for index in indices])
    return found


# ------------------------------------------------------------------------------------------------------ masked models


def masked_pair_likelihoods(
    opened: OpenedModel, pairs: Sequence[tuple[str, str]], batch_size: int, device: str = "cpu"
) -> NDArray[np.float64]:
    """Pseudo-log-likelihood of both texts of each pair [pairs, 2], of the tokens that the two share.

    sum_i log p(u_i | all other tokens of the text), over the tokens u that both texts have (difflib's alignment), each
    masked by itself and the special tokens at both ends left out: the metric of CrowS-Pairs (Nangia et al. 2020, arXiv
    2010.00133, section 3).

    Raises:
        UserError: the model cannot be loaded, or has no head that predicts masked words.
    """
    model = load_weights(AutoModelForMaskedLM, opened.ref, opened.source.base, dtype=torch.float32).to(device).eval()
    tokenizer = opened.tokenizer
    rows: list[tuple[list[int], int]] = []
    owners: list[tuple[int, int]] = []
    for index, pair in enumerate(pairs):
        sides = [list(tokenizer(text)["input_ids"]) for text in pair]
        for side, columns in enumerate(shared_columns(*sides)):
            rows += [(sides[side], column) for column in columns[1:-1]]
            owners += [(index, side)] * len(columns[1:-1])
    forward = _masked_forward(model, tokenizer, device)
    logprobs = in_batches(rows, lambda row: len(row[0]), batch_size, forward)
    found = np.zeros((len(pairs), 2))
    np.add.at(found, tuple(np.array(owners, np.int64).reshape(-1, 2).T), logprobs)
    return found


def shared_columns(first: Sequence[int], second: Sequence[int]) -> tuple[list[int], list[int]]:
    """Where each of two texts has the tokens that both have, aligned."""
    blocks = SequenceMatcher(None, first, second).get_matching_blocks()
    return (
        [block.a + step for block in blocks for step in range(block.size)],
        [block.b + step for block in blocks for step in range(block.size)],
    )


def _masked_forward(
    model: Any, tokenizer: Any, device: str
) -> Callable[[list[tuple[list[int], int]]], NDArray[np.float64]]:
    """log p of the token at a column of each text, that token masked."""

    @torch.inference_mode()
    def forward(rows: list[tuple[list[int], int]]) -> NDArray[np.float64]:
        width = max(len(ids) for ids, _ in rows)
        input_ids = torch.full((len(rows), width), tokenizer.pad_token_id)
        attention_mask = torch.zeros_like(input_ids)
        for row, (ids, column) in enumerate(rows):
            input_ids[row, : len(ids)] = torch.tensor(ids)
            input_ids[row, column] = tokenizer.mask_token_id
            attention_mask[row, : len(ids)] = 1
        logits = model(input_ids=input_ids.to(device), attention_mask=attention_mask.to(device)).logits
        columns = torch.tensor([column for _, column in rows], device=device)
        wanted = torch.tensor([ids[column] for ids, column in rows], device=device)
        at_mask = logits[torch.arange(len(rows), device=device), columns].double().log_softmax(dim=-1)
        found: NDArray[np.float64] = at_mask.gather(1, wanted[:, None]).squeeze(1).cpu().numpy()
        return found

    return forward
