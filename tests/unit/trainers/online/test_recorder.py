"""What a step leaves behind: its rows of the journal."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from plumbob.configs.settings.algorithms import Distillation, Estimator, Gae, Rloo
from plumbob.configs.settings.training import OnlineSettings
from plumbob.reward.scorer import Score
from plumbob.rollout.journal import JournalRow
from plumbob.rollout.rollout_records import EpisodeRecord, EpisodeTurn, Rollout, SampleRequest
from plumbob.trainers.online.collection.collector import StepResponses
from plumbob.trainers.online.experience import LogprobsAndValues, TeacherLogprobs, make_experience
from plumbob.trainers.online.measure_step import episode_metrics
from plumbob.trainers.online.objective import train_rows
from plumbob.trainers.online.part_rewards import CombinedScores
from plumbob.trainers.online.recorder import step_notes
from plumbob.trainers.online.step_metrics import ExperienceStats
from plumbob.trainers.online.token_journal.journal_rows import StepUpdate, journal_rows
from plumbob.trainers.online.trajectories import collate_rollouts


def rollout(place: int, prompt: list[int], response: list[int]) -> Rollout:
    request = SampleRequest(f"p{place}", f"g{place}", 0, 9, "q", np.array(prompt, np.int32))
    ids = np.array(response, np.int32)
    return Rollout(request, "stop", "a", ids, -ids / 10, ids * 0 + 4, ids > 0, "rollout-0")


def scored(total: float) -> Score:
    return Score(total, {"bert": total, "length": 0.5})


GRID = torch.arange(12.0).reshape(3, 4)
RESPONSES = StepResponses(
    rollouts=(rollout(0, [5, 6], [7]), rollout(1, [5], [6, 7, 2]), rollout(2, [5], [])),
    scores=(scored(1.0), scored(2.0), scored(3.0)),
    dropped=((rollout(3, [5], [6, 2]), scored(4.0)),),
    num_rounds=2,
    num_flat=0,
    positions={"g0": 10, "g1": 11, "g2": 12, "g3": 13},
)


def rows_of(computed: LogprobsAndValues, estimator: Estimator) -> list[JournalRow]:
    """Of `RESPONSES`, after an update that measured no tokens."""
    trajectories, scores = collate_rollouts(RESPONSES.rollouts, 0), torch.tensor([1.0, 2.0, 3.0])
    made = make_experience(trajectories, scores, computed, OnlineSettings(estimator=estimator), 0.1, 4, 8)
    learnt = train_rows(estimator, made.experience, computed, trajectories.groups)
    return journal_rows(
        RESPONSES, computed, StepUpdate(made.experience, CombinedScores(scores, {}), made.earned, learnt, {})
    )


def test_rows_of_the_journal_line_up_with_their_tokens() -> None:
    rows = rows_of(LogprobsAndValues(GRID, GRID + 100, GRID + 200), Gae())
    # Row 0's response is column 2; row 1's are columns 1 to 3; row 2 has none; row 3 was dropped before any forward.
    assert [row.ref_logprobs.tolist() for row in rows] == [[102.0], [105.0, 106.0, 107.0], [], []]
    assert [row.values.tolist() for row in rows] == [[202.0], [205.0, 206.0, 207.0], [], []]
    assert [row.logprobs.tolist() for row in rows] == [
        pytest.approx(expected) for expected in ([-0.7], [-0.6, -0.7, -0.2], [], [-0.6, -0.2])
    ]
    assert [(row.prompt_id, row.score, row.rewards["bert"]) for row in rows] == [
        ("p0", 1, 1),
        ("p1", 2, 2),
        ("p2", 3, 3),
        ("p3", 4, 4),
    ]
    assert [row.dropped for row in rows] == [None, None, None, "flat"]
    assert [row.position for row in rows] == [10, 11, 12, 13]
    assert all(len(row.versions) == len(row.token_ids) == len(row.action_mask) for row in rows)


def test_a_step_says_what_nothing_was_learnt_from() -> None:
    stats = ExperienceStats(
        **{field.name: 0 for field in fields(ExperienceStats)} | {"num_empty": 2, "missing_eos_share": 1.0}
    )
    left_out = list(step_notes(RESPONSES, stats, OnlineSettings(mask_truncated=True)))
    assert [note.partition(",")[0] for note in left_out] == [
        "2 responses are empty and carry no signal",
        "no response ended",
    ]
    assert len(list(step_notes(RESPONSES, stats, OnlineSettings()))) == 1
    one_ended = replace(stats, missing_eos_share=0.99)
    assert len(list(step_notes(RESPONSES, one_ended, OnlineSettings(mask_truncated=True)))) == 1
    (flat,) = step_notes(
        replace(RESPONSES, num_flat=3), replace(stats, num_empty=0), OnlineSettings(prompts_per_step=8)
    )
    assert flat.startswith("after 2 rounds, 3 of 8 prompts still have responses that the scorer rewards alike")


def test_a_step_says_where_an_environment_failed() -> None:
    """Also in a group that was left out; the reason's kind is what it says up to a colon."""
    turn = (EpisodeTurn(0, "a", 0.0),)
    told = [EpisodeRecord(turn), EpisodeRecord(turn, "time-out: step took"), EpisodeRecord(turn, "KeyError: 'x'")]
    kept, *others = (replace(RESPONSES.rollouts[0], episode=episode) for episode in told)
    dropped = tuple((rollout, RESPONSES.scores[0]) for rollout in others)
    responses = replace(RESPONSES, rollouts=(kept,), scores=RESPONSES.scores[:1], dropped=dropped)
    stats = ExperienceStats(**{field.name: 0 for field in fields(ExperienceStats)})
    assert list(step_notes(responses, stats, OnlineSettings())) == [
        "the environment failed in 2 of 3 episodes (1 x time-out, 1 x KeyError), in the first of them for "
        "time-out: step took"
    ]
    assert episode_metrics(responses) == {"episode_turns": 1.0, "environment_failures": 2.0}
    assert episode_metrics(RESPONSES) == {}


def test_what_teachers_said_of_each_token_is_in_the_journal() -> None:
    graded = TeacherLogprobs(torch.tensor([0, 1, 0]), GRID + 300)
    rows = rows_of(LogprobsAndValues(GRID, GRID + 100, None, graded=graded), Distillation(form="sampled"))
    assert [row.teacher_logprobs.tolist() for row in rows] == [[302.0], [305.0, 306.0, 307.0], [], []]
    assert [row.ref_logprobs.tolist() for row in rows] == [[102.0], [105.0, 106.0, 107.0], [], []]


def test_without_a_critic_the_journal_has_no_values() -> None:
    rows = rows_of(LogprobsAndValues(GRID, GRID + 100, None), Rloo())
    assert [row.values.tolist() for row in rows] == [[], [], [], []]
    assert rows[1].ref_logprobs.tolist() == [105.0, 106.0, 107.0]
