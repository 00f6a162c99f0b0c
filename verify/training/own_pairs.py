"""Pairs of a policy's own responses: drawn groups, as rows of a journal, paired as `plumbob pairs` does."""

from collections.abc import Iterable, Iterator

import numpy as np

from plumbob.rollout.journal import JournalRow
from plumbob.rollout.journal_pairs import best_against_worst
from plumbob.verify.optima.response_tree import Array
from plumbob.verify.world.tiny_world import TinyWorld

RANKING = "task"
"""The part of the reward that ranks; the total has another beside it."""
Pair = tuple[int, int, int]
"""(prompt, chosen, rejected)."""


def drawn_rows(
    world: TinyWorld, policy: Array, task: Array, total: Array, num_groups: int, group_size: int, seed: int
) -> Iterator[tuple[int, JournalRow]]:
    """Independent responses in groups, each with a prompt's name of its own, as rows of a file have that differ.

    Args:
        policy: log-probs of the responses, [P, K].
        task: of the part `RANKING`, [P, K].
        total: the scores, [P, K].
        num_groups: of each prompt.
    """
    random = np.random.default_rng(seed)
    for prompt, logprobs in enumerate(policy):
        probs = np.exp(logprobs) / np.exp(logprobs).sum()
        drawn = random.choice(len(probs), (num_groups, group_size), p=probs)
        for (group, index), response in np.ndenumerate(drawn):
            scores = float(task[prompt, response]), float(total[prompt, response])
            yield 1, _row(world, prompt, int(response), f"{prompt}-{group}", index, scores)


def own_pairs(world: TinyWorld, rows: Iterable[tuple[int, JournalRow]]) -> list[Pair]:
    """The best against the worst of each group, in an order that is mixed but the same at every time."""
    prompts = {world.prompt_text(prompt): prompt for prompt in range(len(world.prompts))}
    responses = {world.response_text(response): response for response in range(len(world.tree.responses))}
    found = best_against_worst(rows, RANKING, 0.0).pairs
    pairs = [(prompts[pair.prompt], responses[pair.chosen], responses[pair.rejected]) for pair in found]
    return [pairs[place] for place in np.random.default_rng(0).permutation(len(pairs))]


def _row(
    world: TinyWorld, prompt: int, response: int, name: str, index: int, scores: tuple[float, float]
) -> JournalRow:
    ids = np.array(world.tree.responses[response], np.int32)
    task, total = scores
    zeros = np.zeros(len(ids), np.float32)
    return JournalRow(
        position=0,
        prompt_id=name,
        group_id=name,
        sample_index=index,
        seed=0,
        prompt=world.prompt_text(prompt),
        response=world.response_text(response),
        prompt_ids=np.array(world.prompts[prompt], np.int32),
        token_ids=ids,
        logprobs=zeros,
        ref_logprobs=zeros,
        values=np.empty(0, np.float32),
        rewards={RANKING: task, "other": total - task},
        score=total,
        dropped=None,
        versions=np.zeros(len(ids), np.int32),
        action_mask=np.ones(len(ids), np.bool_),
        finish_reason="stop" if world.tree.ends[response] else "length",
        worker="-",
    )
