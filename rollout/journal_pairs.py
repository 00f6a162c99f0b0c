"""Preference pairs out of a journal: of each prompt the best response against the worst, for DPO on a policy's own."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from plumbob.core.errors import UserError
from plumbob.rollout.journal import JOURNAL_FOLDER, JournalRow
from plumbob.rollout.journal_files import step_files


class JournalPair(NamedTuple):
    """A row of a pairs file. Attributes: margin: by how much the chosen response scored higher, above 0."""

    prompt: str
    chosen: str
    rejected: str
    margin: float


@dataclass(frozen=True)
class JournalPairs:
    """What a journal gives.

    Attributes:
        pairs: one a prompt at most, in the order in which prompts were first met.
        num_prompts: that the rows are about.
        num_unusable: responses that were cut at the length limit, say nothing, or a part of the reward failed on. A
            loss on pairs learns the end of a response too, which the first do not have.
        num_close: prompts whose best response is no further above the worst than was asked for; those that have but one
            response to compare count too.
    """

    pairs: tuple[JournalPair, ...]
    num_prompts: int
    num_unusable: int
    num_close: int


class _Ranked(NamedTuple):
    response: str
    score: float


def best_against_worst(rows: Iterable[tuple[int, JournalRow]], part: str | None, least_margin: float) -> JournalPairs:
    """The best and the worst response that each prompt got in all steps given; of equal ones the first.

    Pairs of a policy's own samples, ranked by a reward, as in iterative DPO (Xu et al. 2023, arXiv 2312.16682; Xiong et
    al. 2024, arXiv 2312.11456).

    Args:
        rows: (step, row), read once.
        part: of `JournalRow.rewards` the one that ranks; None ranks by the total score.
        least_margin: by which the best must be above the worst; at 0 any difference will do.

    Raises:
        UserError: a response has no such part, or is an episode.
    """
    prompts: dict[str, str] = {}
    best: dict[str, _Ranked] = {}
    worst: dict[str, _Ranked] = {}
    num_unusable = 0
    for step, row in rows:
        prompts.setdefault(row.prompt_id, row.prompt)
        if row.episode is not None:
            raise UserError(
                f"step {step}, prompt {row.prompt_id}: the response is an episode, and what its environment wrote is "
                f"not the policy's to learn: pairs are made of runs without rollout.environment"
            )
        if row.finish_reason != "stop" or not row.response.strip() or row.failures:
            num_unusable += 1
            continue
        ranked = _Ranked(row.response, _score(step, row, part))
        if ranked.score > best.setdefault(row.prompt_id, ranked).score:
            best[row.prompt_id] = ranked
        if ranked.score < worst.setdefault(row.prompt_id, ranked).score:
            worst[row.prompt_id] = ranked
    pairs = []
    for prompt_id, prompt in prompts.items():
        if prompt_id in best:
            margin = best[prompt_id].score - worst[prompt_id].score
            if margin > 0 and margin >= least_margin:
                pairs.append(JournalPair(prompt, best[prompt_id].response, worst[prompt_id].response, margin))
    return JournalPairs(tuple(pairs), len(prompts), num_unusable, len(prompts) - len(pairs))


def find_journal(folder: Path) -> Path:
    """The journal of a run, or of the stage of a pipeline that has one. UserError where there is none."""
    for journal in (folder / JOURNAL_FOLDER, *sorted(folder.glob(f"*/{JOURNAL_FOLDER}"))):
        if step_files(journal):
            return journal
    raise UserError(
        f"{folder}: the run has no journal of responses ({JOURNAL_FOLDER}/): give a run of ppo or a pipeline, of which "
        "at least one step is done"
    )


def _score(step: int, row: JournalRow, part: str | None) -> float:
    if part is None:
        return row.score
    if part not in row.rewards:
        known = ", ".join(row.rewards) or "none: rank by the total score instead"
        raise UserError(f"step {step}, prompt {row.prompt_id}: the reward has no part '{part}'; its parts: {known}")
    return row.rewards[part]
