"""Distillation in the online loop by hand: advantages, metrics, each response's teacher, and what is refused."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from plumbob.configs.load_run import load_run
from plumbob.configs.runs import OnlineRun
from plumbob.configs.settings.algorithms import Distillation, FixedKl, ShapingSettings
from plumbob.configs.settings.training import OnlineSettings
from plumbob.core.errors import NotFinite, UserError
from plumbob.data.prompts import EncodedPrompt
from plumbob.models.loading import open_policy
from plumbob.reward.scorer import ScoreRequest, Unrewarded
from plumbob.trainers.distillation.teachers import prepare_teachers, teacher_metrics, teacher_numbers
from plumbob.trainers.online.experience import LogprobsAndValues, TeacherLogprobs, make_experience
from plumbob.trainers.online.objective import online_loss_terms
from plumbob.trainers.online.part_rewards import with_totals
from plumbob.trainers.online.trajectories import collate_rollouts
from tests.support.ragged_batches import NAN, ragged
from tests.support.tiny_policy import write_policy
from tests.support.tiny_scorer import write_scorer

COMPUTED = LogprobsAndValues(
    logprobs=torch.tensor([[NAN, NAN, -1.0, -0.5, NAN], [NAN, -2.0, NAN, NAN, -1.0], [NAN] * 5]),
    ref_logprobs=torch.tensor([[NAN, NAN, -1.5, -0.25, NAN], [NAN, -1.0, NAN, NAN, -3.0], [NAN] * 5]),
    values=None,
    graded=TeacherLogprobs(
        torch.tensor([1, 0, 0]),
        torch.tensor([[NAN, NAN, -3.0, -0.25, NAN], [NAN, -0.5, NAN, NAN, -2.0], [NAN] * 5]),
    ),
)


def settings(estimator: Distillation, **changes: Any) -> OnlineSettings:
    return OnlineSettings(estimator=estimator, kl=FixedKl(coefficient=0.0), shaping=ShapingSettings(), **changes)


def experience_of(online: OnlineSettings, computed: LogprobsAndValues = COMPUTED) -> tuple[Any, Any]:
    scores = torch.tensor([3.0, 7.0, 1.0])
    return make_experience(collate_rollouts(ragged(), pad_id=0), scores, computed, online, 0.0, 3, 64)[:2]


@pytest.mark.parametrize(
    ("gamma", "advantages"),
    [
        # log teacher - log policy: -2 and 0.25; 1.5 and -1. What was scored, or cut, has no part.
        (0.0, [[0, 0, -2.0, 0.25, 0], [0, 1.5, 0, 0, -1.0], [0] * 5]),
        # With half of what follows, across the tool's text: -2 + 0.125; 1.5 - 0.5.
        (0.5, [[0, 0, -1.875, 0.25, 0], [0, 1.0, 0, 0, -1.0], [0] * 5]),
        (1.0, [[0, 0, -1.75, 0.25, 0], [0, 0.5, 0, 0, -1.0], [0] * 5]),
    ],
)
def test_a_sampled_token_is_graded_by_its_log_ratio(gamma: float, advantages: list[list[float]]) -> None:
    experience, stats = experience_of(settings(Distillation(form="sampled", gamma=gamma)))
    torch.testing.assert_close(experience.advantages, torch.tensor(advantages))
    assert experience.teachers is None and experience.critic is None and experience.kl is None
    # Of whole responses: -1.75 and 0.5.
    assert stats.return_mean == pytest.approx(-0.625)
    assert stats.kl_mean == pytest.approx((0.25 + 1.0) / 2)


def test_the_full_form_says_which_teacher_each_row_has() -> None:
    experience, _ = experience_of(settings(Distillation()))
    assert experience.teachers.tolist() == [1, 0, 0]
    taken = experience.rows(np.array([2, 0]))
    assert taken.teachers.tolist() == [0, 1] and taken.input_ids.shape == (2, 4)


def test_cut_responses_are_left_out_of_either_form() -> None:
    for form in ("full", "sampled"):
        experience, _ = experience_of(settings(Distillation(form=form), mask_truncated=True))
        assert experience.action_mask.sum(dim=1).tolist() == [2, 0, 0]
        assert experience.advantages[1].abs().sum() == 0


def test_a_teachers_number_that_is_not_finite_is_told_by_its_row() -> None:
    graded = TeacherLogprobs(torch.tensor([0, 0, 0]), torch.full((3, 5), NAN))
    with pytest.raises(NotFinite, match=r"teacher_logprobs: not finite in row 0, 1 of the batch of 3"):
        experience_of(settings(Distillation()), replace(COMPUTED, graded=graded))


def test_the_full_forms_pass_by_hand() -> None:
    # KL of 0.5, 0.25; 2, 1. Tokens weigh the same: the mean of four. Responses do: (0.375 + 1.5) / 2.
    kl = torch.tensor([[9.0, 9.0, 0.5, 0.25, 9.0], [9.0, 2.0, 9.0, 9.0, 1.0], [9.0] * 5])
    for mean, total, count in (("token", 3.75, 4.0), ("response", 1.875, 2.0)):
        online = settings(Distillation(), loss_mean=mean)
        (whole,) = online_loss_terms(online, 0.7)
        experience, _ = experience_of(online)
        given: list[Any] = []

        def forward(*inputs: Any, given: list[Any] = given) -> torch.Tensor:
            given.extend(inputs)
            return kl

        sums = whole.loss_sum(forward, experience)
        assert (whole.role, whole.count(experience), float(sums.loss)) == ("policy", count, pytest.approx(total))
        assert given[3] == 0.7 and given[4].tolist() == [1, 0, 0]
        assert set(sums.statistics) == {"policy_loss"}


TEACHERS = "teachers=[{model: a, name: maths}, {model: b, name: '7'}]"
GIVEN = ("policy.model=m", "data.prompts=p")


def routed(*overrides: str) -> OnlineRun:
    run = load_run("distill", [*GIVEN, TEACHERS, "teachers_by=subject", *overrides])
    assert isinstance(run, OnlineRun)
    return run


def test_the_column_of_a_prompts_row_names_its_teacher() -> None:
    rollouts = [replace(one, request=replace(one.request, prompt_id=f"p{row}")) for row, one in enumerate(ragged())]
    rows: Mapping[str, Mapping[str, Any]] = {
        "p0": {"subject": 7},
        "p1": {"subject": "maths", "x": 1},
        "p2": {"subject": "7"},
    }
    numbers = teacher_numbers(routed(), rollouts, rows)
    assert numbers is not None and numbers.tolist() == [1, 0, 1] and numbers.dtype == torch.int64
    one = load_run("distill", [*GIVEN, "teachers=[{model: a}]"])
    rewarded = load_run("rloo", [*GIVEN, "reward.model=r"])
    assert isinstance(one, OnlineRun) and isinstance(rewarded, OnlineRun)
    alone = teacher_numbers(one, rollouts, {})
    assert alone is not None and alone.tolist() == [0, 0, 0] and teacher_numbers(rewarded, rollouts, {}) is None


def test_metrics_by_teacher_by_hand() -> None:
    # log policy - log teacher of maths: 1 and 3; of 7: -2. Row 2 has no token.
    log_ratios = torch.tensor([[1.0, 3.0], [-2.0, 9.0], [9.0, 9.0]])
    mask = torch.tensor([[True, True], [True, False], [False, False]])
    found = teacher_metrics(routed(), log_ratios, mask, torch.tensor([0, 1, 1]))
    assert found == pytest.approx({"teacher_kl": 2 / 3, "teacher_kl/maths": 2.0, "teacher_kl/7": -2.0})
    # A teacher that graded nothing in the step has no number; one teacher alone has the one.
    assert teacher_metrics(routed(), log_ratios, mask, torch.tensor([0, 0, 1])).keys() == {
        "teacher_kl",
        "teacher_kl/maths",
    }
    one = load_run("distill", [*GIVEN, "teachers=[{model: a}]"])
    assert isinstance(one, OnlineRun)
    assert teacher_metrics(one, log_ratios, mask, torch.tensor([0, 0, 0])).keys() == {"teacher_kl"}


def test_without_a_reward_none_is_measured() -> None:
    requests = [ScoreRequest("p", "a"), ScoreRequest("p", "b")]
    scores = Unrewarded().score(requests)
    assert [(score.total, score.parts) for score in scores] == [(0.0, {}), (0.0, {})]
    _, stats = experience_of(settings(Distillation()))
    has_action = torch.tensor([True, True, False])
    found = with_totals(routed(), stats, [*scores, *scores[:1]], has_action)
    assert (found.score_mean, found.score_std) == (None, None)
    measured = with_totals(routed("reward.model=r"), stats, [*scores, *scores[:1]], has_action)
    assert (measured.score_mean, measured.score_std) == (0.0, 0.0)


# ---------------------------------------------------------------------------------------------- before anything starts


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models")
    write_policy(path / "policy")
    write_policy(path / "teacher")
    return path


def prepared(folder: Path, teachers: str, *overrides: str, rows: tuple[Mapping[str, Any], ...] = ({},)) -> Any:
    run = load_run("distill", [f"policy.model={folder}/policy", "data.prompts=p.jsonl", teachers, *overrides])
    assert isinstance(run, OnlineRun)
    ids = np.array([5, 6], np.int32)
    prompts = [EncodedPrompt(f"p{number}", f"prompt {number}", ids, row) for number, row in enumerate(rows)]
    return prepare_teachers(run, open_policy(run.policy.ref), prompts)


def test_a_teacher_with_the_policys_tokens_is_taken(folder: Path) -> None:
    assert prepared(folder, f"teachers=[{{model: {folder}/teacher}}]") == ()


def test_a_teacher_with_other_tokens_is_refused(folder: Path, tmp_path: Path) -> None:
    write_policy(tmp_path / "other")
    file = tmp_path / "other" / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    words = tokenizer["model"]["vocab"]
    words["b"], words["c"] = words["c"], words["b"]
    file.write_text(json.dumps(tokenizer))
    with pytest.raises(UserError) as caught:
        prepared(folder, f"teachers=[{{model: {tmp_path}/other}}]")
    message = str(caught.value)
    assert message.startswith(f"teachers.0.model={tmp_path}/other: a teacher grades the policy's own tokens, and 2 of")
    assert f"{words['b']} in the teacher" in message or f"{words['c']} in the teacher" in message


def test_a_teacher_that_cannot_read_so_much_is_refused(folder: Path) -> None:
    teachers = f"teachers=[{{model: {folder}/teacher}}]"
    with pytest.raises(UserError, match=r"^teachers\.0\.model=.*teacher: .*the model has 256 positions"):
        prepared(folder, teachers, "rollout.max_tokens=255")


def test_an_encoder_is_no_teacher(folder: Path) -> None:
    write_scorer(folder / "scorer")
    with pytest.raises(UserError, match=r"^teachers\.0\.model=.*is not a causal language model"):
        prepared(folder, f"teachers=[{{model: {folder}/scorer}}]")


def test_a_prompt_without_a_teacher_is_refused(folder: Path) -> None:
    teachers = f"teachers=[{{model: {folder}/teacher, name: maths}}, {{model: {folder}/policy, name: prose}}]"
    rows = ({"subject": "maths"}, {"subject": "law"}, {})
    with pytest.raises(UserError) as caught:
        prepared(folder, teachers, "teachers_by=subject", rows=rows)
    assert str(caught.value).endswith(
        "2 of 3 prompts have no teacher: teachers_by=subject is 'law' of 'prompt 1', and the teachers are called "
        "maths, prose; fix these rows, or give a teacher of that name"
    )
    assert prepared(folder, teachers, "teachers_by=subject", rows=rows[:1]) == ()
