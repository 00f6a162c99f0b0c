"""Best against worst response of each prompt, by hand."""

from dataclasses import replace
from pathlib import Path

import pytest

from plumbob.core.errors import UserError
from plumbob.rollout.journal import JournalRow, write_step
from plumbob.rollout.journal_pairs import JournalPair, best_against_worst, find_journal
from plumbob.rollout.rollout_records import EpisodeRecord, EpisodeTurn
from tests.unit.rollout.test_journal import ROW


def row(prompt: str, response: str, score: float, finish_reason: str = "stop", **rewards: float) -> JournalRow:
    return replace(
        ROW, prompt_id=prompt, prompt=f"{prompt}?", response=response, score=score, rewards=rewards,
        finish_reason=finish_reason,
    )  # fmt: skip


ROWS = [
    (1, row("a", "good", 2.0, accurate=0.0)),
    (1, row("a", "middling", 0.5, accurate=0.25)),
    (1, row("a", "bad", -1.0, accurate=1.0)),
    (1, row("b", "alone", 1.0, accurate=1.0)),
    (1, row("c", "same", 1.0, accurate=1.0)),
    (1, row("c", "alike", 1.0, accurate=1.0)),
    (2, row("d", "near", 0.25, accurate=0.0)),
    (2, row("d", "far", 0.5, accurate=0.0)),
    (3, row("d", "later and best", 0.75, accurate=0.0)),
    (3, row("d", "cut and best of all", 9.0, "length", accurate=1.0)),
    (3, row("e", " ", 5.0, accurate=1.0)),
]


def test_the_best_of_all_steps_stands_against_the_worst() -> None:
    found = best_against_worst(ROWS, None, 0.0)
    assert found.pairs == (
        JournalPair("a?", "good", "bad", 3.0),
        JournalPair("d?", "later and best", "near", 0.5),
    )
    # Of b there is one, of c two of one score, of e nothing; one was cut and one says nothing.
    assert (found.num_prompts, found.num_close, found.num_unusable) == (5, 3, 2)


def test_a_margin_leaves_out_what_is_nearer() -> None:
    assert [pair.prompt for pair in best_against_worst(ROWS, None, 0.5).pairs] == ["a?", "d?"]
    found = best_against_worst(ROWS, None, 0.51)
    assert [pair.prompt for pair in found.pairs] == ["a?"] and found.num_close == 4


def test_what_an_environment_wrote_is_not_to_be_learnt() -> None:
    episode = replace(ROWS[0][1], episode=EpisodeRecord((EpisodeTurn(1, "good", 2.0),)))
    with pytest.raises(UserError, match=r"step 1, prompt a: the response is an episode.* without rollout\.environment"):
        best_against_worst([(1, episode), *ROWS], None, 0.0)


def test_a_part_of_the_reward_ranks_otherwise() -> None:
    assert best_against_worst(ROWS, "accurate", 0.0).pairs == (JournalPair("a?", "bad", "good", 1.0),)


def test_a_part_that_the_reward_has_not_is_refused_with_those_it_has() -> None:
    with pytest.raises(UserError, match=r"step 1, prompt a: the reward has no part 'polite'; its parts: accurate$"):
        best_against_worst(ROWS, "polite", 0.0)


def test_of_equal_scores_the_first_counts() -> None:
    rows = [(1, row("a", response, score)) for response, score in (("x", 1.0), ("y", 1.0), ("v", 0.0), ("w", 0.0))]
    assert best_against_worst(rows, None, 0.0).pairs == (JournalPair("a?", "x", "v", 1.0),)


def test_the_journal_of_a_run_or_of_a_pipelines_stage_is_found(tmp_path: Path) -> None:
    run, pipeline = tmp_path / "run", tmp_path / "pipeline"
    for journal in (run / "rollouts", pipeline / "ppo/rollouts"):
        write_step(journal, 1, [ROW])
        assert find_journal(tmp_path / journal.relative_to(tmp_path).parts[0]) == journal
    (tmp_path / "sft").mkdir()
    with pytest.raises(UserError, match=r"sft: the run has no journal of responses \(rollouts/\): give a run of ppo"):
        find_journal(tmp_path / "sft")
