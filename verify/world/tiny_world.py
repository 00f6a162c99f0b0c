"""The tiny world that is verified on: a real Llama and its tokenizer over the whole vocabulary of a response tree."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from plumbob.models.adapter import ModelRole
from plumbob.trainers.online.objective import TrajectoryBatch, forward_actions
from plumbob.verify.optima.response_tree import EOS, Array, ResponseTree

LETTERS = "abcdefghijklmnopqrstuvwxyz"
EOS_TEXT = "</s>"
HEAD_DIM = 32
"""The narrowest that vLLM serves on a CPU."""

Compute = Callable[[TrajectoryBatch, ModelRole | None, Callable[..., Any]], NDArray[np.float32]]
"""Asks a learner for something of each row: `trainers.learner.learner.Learner.compute`, or that of all ranks."""


@dataclass(frozen=True)
class TinyWorld:
    """One tree of responses below several prompts, as token ids and as text.

    Attributes:
        prompts: token ids of each prompt; none of them begins another.
    """

    tree: ResponseTree
    prompts: tuple[tuple[int, ...], ...]

    def prompt_text(self, prompt: int) -> str:
        return text_of_ids(self.prompts[prompt])

    def response_text(self, response: int) -> str:
        """The response without its EOS; no two responses have the same text."""
        return text_of_ids(self.tree.responses[response])

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """(prompt, response) of every row of a table [P, K], in its order."""
        return tuple((p, k) for p in range(len(self.prompts)) for k in range(len(self.tree.responses)))


def text_of_ids(ids: tuple[int, ...]) -> str:
    return "".join(LETTERS[token - 1] for token in ids if token != EOS)


def write_model(folder: Path, world: TinyWorld, seed: int, spread: float = 0.1) -> Path:
    """Save a random two-layer, 64 wide Llama and a tokenizer of one letter a token.

    Args:
        spread: standard deviation of the initial weights; the larger, the further from uniform.
    """
    config = LlamaConfig(
        vocab_size=world.tree.vocab_size,
        hidden_size=2 * HEAD_DIM,
        intermediate_size=4 * HEAD_DIM,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=16,
        initializer_range=spread,
        bos_token_id=None,
        eos_token_id=EOS,
        pad_token_id=EOS,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        LlamaForCausalLM(config).save_pretrained(folder)
    _tokenizer(world.tree.vocab_size).save_pretrained(folder)
    return folder


def _tokenizer(vocab_size: int) -> PreTrainedTokenizerFast:
    vocabulary = {EOS_TEXT: EOS} | {LETTERS[token - 1]: token for token in range(1, vocab_size)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=EOS_TEXT))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=EOS_TEXT, pad_token=EOS_TEXT, clean_up_tokenization_spaces=False
    )


def every_response(world: TinyWorld) -> TrajectoryBatch:
    """Every response after every prompt: a batch of P * K rows, in the order of a table [P, K]."""
    width = max(map(len, world.prompts)) + world.tree.depth
    ids = torch.full((len(world.pairs), width), EOS)
    attention = torch.zeros(len(world.pairs), width, dtype=torch.bool)
    actions = attention.clone()
    for row, (p, k) in enumerate(world.pairs):
        prompt, response = world.prompts[p], world.tree.responses[k]
        end = len(prompt) + len(response)
        ids[row, :end] = torch.tensor(prompt + response)
        attention[row, :end] = True
        actions[row, len(prompt) : end] = True
    return TrajectoryBatch(ids, attention, actions, 1.0)


def response_logprobs(world: TinyWorld, compute: Compute, role: ModelRole) -> Array:
    """log pi(y | x) of every response in float64, [P, K], normalised.

    Raises:
        AssertionError: the probabilities of all the responses do not sum to 1 within 1e-5.
    """
    tokens = compute(every_response(world), role, forward_actions).astype(np.float64)
    found = tokens.sum(axis=1).reshape(len(world.prompts), len(world.tree.responses))
    total = np.log(np.exp(found).sum(axis=1, keepdims=True))
    assert np.abs(total).max() < 1e-5, f"the responses' probabilities sum to {np.exp(total).ravel()}, not to 1"
    normalised: Array = found - total
    return normalised


def state_values(world: TinyWorld, compute: Compute) -> Array:
    """The critic's value of every state, [P, S]: before each next token, whatever that token is."""
    values = compute(every_response(world), "value", forward_actions).astype(np.float64)
    table = np.zeros((len(world.prompts), len(world.tree.states)))
    state_index = {state: index for index, state in enumerate(world.tree.states)}
    for row, (p, k) in enumerate(world.pairs):
        start = len(world.prompts[p])
        for t in range(len(world.tree.responses[k])):
            table[p, state_index[world.tree.responses[k][:t]]] = values[row, start + t]
    return table
