"""What an evaluation asks of a reward model, and how it reads its pairs."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from plumbob.configs.runs import EvalRun
from plumbob.configs.settings.data import EvalDataSettings
from plumbob.configs.settings.models import EvaluatedPolicySettings
from plumbob.configs.settings.reward_parts import ModelPart
from plumbob.configs.settings.rewards import ScorerSettings
from plumbob.configs.settings.rules.reward_rules import ExactRule
from plumbob.core.errors import UserError
from plumbob.data.records import Ranking
from plumbob.driver.stages.evaluating.evaluation import run_eval
from plumbob.driver.stages.evaluating.evaluation_input import EvalInput, prepare_eval
from plumbob.reward.reward_models.dialogue_form import form_of, save_form
from plumbob.reward.scorer import Score, ScoreRequest
from tests.support.small_evaluation import FakeSession, write
from tests.support.tiny_policy import write_policy


def test_pairs_alone_need_no_calibration(tmp_path: Path, uncalibrated: str) -> None:
    pairs = write(tmp_path / "pairs.jsonl", {"prompt": "Q", "chosen": "long", "rejected": "no"})
    run = EvalRun(data=EvalDataSettings(pairs=pairs), reward=ScorerSettings(model=uncalibrated))
    session: Any = FakeSession()
    measured = run_eval(run, prepare_eval(run), session).metrics
    assert session.settings.normalize is False
    assert (measured["accuracy"], measured["mean_margin"]) == (1.0, 2.0)


def test_pairs_of_several_annotators(tmp_path: Path, uncalibrated: str) -> None:
    texts = {"prompt": "Q", "chosen": "long", "rejected": "no"}
    turned = {"prompt": "Q", "chosen": "no", "rejected": "long"}
    rows = [{**texts, "annotator": "ann"}, {**turned, "annotator": "bob"}, {**texts, "annotator": "cay"}]
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    session: Any = FakeSession()
    run = EvalRun(data=EvalDataSettings(pairs=str(file)), reward=ScorerSettings(model=uncalibrated))
    measured = run_eval(run, prepare_eval(run), session).metrics
    # The longer response scores higher: as ann and cay say, who agree with each other and not with bob.
    assert {name: found["accuracy"] for name, found in measured["annotators"].items()} == {
        "ann": 1,
        "bob": 0,
        "cay": 1,
    }
    assert measured["annotator_agreement"] == {"agreement": 1 / 3, "num_compared": 3}


def test_an_ensemble_is_measured_by_its_total(tmp_path: Path, uncalibrated: str) -> None:
    class Ensemble(FakeSession):
        def score(self, requests: list[ScoreRequest]) -> list[Score]:
            parts = {"model-0": 9.0, "model-1": 9.0, "std": 0.0}
            return [Score(2.0 * len(one.response), parts) for one in requests]

    pairs = write(tmp_path / "pairs.jsonl", {"prompt": "Q", "chosen": "long", "rejected": "no"})
    run = EvalRun(
        data=EvalDataSettings(pairs=pairs), reward=ScorerSettings(model=uncalibrated, ensemble=(uncalibrated,))
    )
    with pytest.raises(UserError, match=r"calibration\.json"):
        prepare_eval(run)
    session: Any = Ensemble()
    measured = run_eval(run, EvalInput((Ranking("Q", ("long", "no")),), None, ()), session).metrics
    assert session.settings.normalize is True
    assert (measured["accuracy"], measured["mean_margin"]) == (1.0, 4.0)
    assert "calibration_error" not in measured


def test_a_policy_s_scores_need_one(tmp_path: Path, uncalibrated: str) -> None:
    asked = write(tmp_path / "prompts.jsonl", {"prompt": "Q"})
    policy = EvaluatedPolicySettings(model=write_policy(tmp_path / "policy"))
    run = EvalRun(data=EvalDataSettings(prompts=asked), policy=policy, reward=ScorerSettings(model=uncalibrated))
    with pytest.raises(UserError, match=r"calibration\.json.*reward\.normalize=false"):
        prepare_eval(run)
    raw = run.model_copy(update={"reward": ScorerSettings(model=uncalibrated, normalize=False)})
    prepared = prepare_eval(raw).policy
    assert prepared is not None and len(prepared.prompts) == 1


def test_chat_pairs_without_a_policy_become_a_plain_transcript(tmp_path: Path, uncalibrated: str) -> None:
    turns = {name: [{"role": role, "content": name}] for name, role in (("prompt", "user"), ("chosen", "assistant"))}
    chats = write(tmp_path / "chats.jsonl", {**turns, "rejected": [{"role": "assistant", "content": "no"}]})
    data = prepare_eval(EvalRun(data=EvalDataSettings(pairs=chats), reward=ScorerSettings(model=uncalibrated)))
    assert data.pairs == (Ranking("\n\nHuman: prompt\n\nAssistant:", (" chosen", " no")),)
    (note,) = data.notes
    assert "nothing says in which form of dialogue it was trained" in note
    assert [(part.name, part.text) for part in data.rows[0].parts] == [
        ("prompt", "\n\nHuman: prompt\n\nAssistant:"),
        ("chosen", " chosen"),
        ("rejected", " no"),
    ]


def test_chat_pairs_are_written_for_the_reward_model_as_it_was_trained(tmp_path: Path, uncalibrated: str) -> None:
    scorer = Path(shutil.copytree(uncalibrated, tmp_path / "scorer"))
    save_form(form_of("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>", {}), scorer)
    turns = {name: [{"role": role, "content": name}] for name, role in (("prompt", "user"), ("chosen", "assistant"))}
    chats = write(tmp_path / "chats.jsonl", {**turns, "rejected": [{"role": "assistant", "content": "no"}]})
    data = prepare_eval(EvalRun(data=EvalDataSettings(pairs=chats), reward=ScorerSettings(model=str(scorer))))
    assert data.pairs == (Ranking("<user>prompt<assistant>", ("chosen", "no")),) and data.notes == ()


def test_pairs_are_read_by_each_model_in_its_own_form(tmp_path: Path, uncalibrated: str) -> None:
    forms = {"tagged": "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"}
    forms["spoken"] = "{% for m in messages %}{{ m.role }}: {{ m.content }}, {% endfor %}assistant:"
    parts = []
    for name, template in forms.items():
        save_form(form_of(template, {}), Path(shutil.copytree(uncalibrated, tmp_path / name)))
        parts.append(ModelPart(model=str(tmp_path / name), name=name, normalize=False))
    turns = {name: [{"role": role, "content": name}] for name, role in (("prompt", "user"), ("chosen", "assistant"))}
    chats = write(tmp_path / "chats.jsonl", {**turns, "rejected": [{"role": "assistant", "content": "no"}]})
    run = EvalRun(data=EvalDataSettings(pairs=chats), reward=ScorerSettings(parts=tuple(parts)))
    data = prepare_eval(run)
    assert data.pairs == (Ranking("<user>prompt<assistant>", ("chosen", "no")),) and data.notes == ()
    named = [(part.name, part.text) for part in data.rows[0].parts]
    assert ("as reward.parts.1.model reads it", "user: prompt, assistant:") in named

    class Reading(FakeSession):
        def score(self, requests: list[ScoreRequest]) -> list[Score]:
            asked.append([one.pair_for(str(tmp_path / name)) for one in requests for name in forms])
            return super().score(requests)

    asked: list[list[tuple[str, str]]] = []
    session: Any = Reading()
    assert run_eval(run, data, session).metrics["accuracy"] == 1.0
    assert asked == [
        [("<user>prompt<assistant>", response), ("user: prompt, assistant:", response)] for response in ("chosen", "no")
    ]


def test_pairs_have_no_rows_for_a_rule_to_read() -> None:
    with pytest.raises(ValueError, match=r"reward\.parts: exact compares with the column 'answer' of a prompt's row"):
        EvalRun(data=EvalDataSettings(pairs="pairs.jsonl"), reward=ScorerSettings(parts=(ExactRule(),)))
