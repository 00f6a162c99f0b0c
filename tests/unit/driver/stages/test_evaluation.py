"""What an evaluation asks of a reward model, and how it reads its pairs."""

import json
from pathlib import Path
from typing import Any

import pytest

from plumbob.configs.runs import EvalRun
from plumbob.configs.settings.data import EvalDataSettings
from plumbob.configs.settings.models import REWARD_MODEL, EvaluatedPolicySettings, ModelRef, NewBertSettings
from plumbob.configs.settings.rewards import ScorerSettings
from plumbob.core.errors import UserError
from plumbob.data.records import Ranking
from plumbob.driver.stages.evaluation import EvalInput, prepare_eval, run_eval
from plumbob.models.from_scratch import build_bert
from plumbob.reward.bert_model import new_reward_model
from plumbob.reward.scorer import Score
from tests.support.tiny_policy import write_policy


@pytest.fixture(scope="module")
def uncalibrated(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A reward model without a calibration, as any tool may have trained it."""
    encoder, folder = tmp_path_factory.mktemp("encoder"), tmp_path_factory.mktemp("raw")
    sizes = {"hidden_size": 32, "num_heads": 1, "num_layers": 1, "intermediate_size": 32, "vocab_size": 60}
    build_bert(NewBertSettings(max_positions=256, **sizes), ["good bad"], encoder, seed=0)
    made = new_reward_model(ModelRef(str(encoder), REWARD_MODEL))
    made.model.save_pretrained(folder)
    made.tokenizer.save_pretrained(folder)
    return str(folder)


def write(path: Path, row: dict[str, Any]) -> str:
    path.write_text(json.dumps(row) + "\n")
    return str(path)


class FakeSession:
    """Scores a response by its length, and keeps the settings that it was asked with."""

    def scorers(self, settings: ScorerSettings) -> "FakeSession":
        self.settings = settings
        return self

    def score(self, texts: list[tuple[str, str]]) -> list[Score]:
        return [Score(0.0, {"raw": float(len(response))}) for _, response in texts]


def test_pairs_alone_need_no_calibration(tmp_path: Path, uncalibrated: str) -> None:
    pairs = write(tmp_path / "pairs.jsonl", {"prompt": "Q", "chosen": "long", "rejected": "no"})
    run = EvalRun(data=EvalDataSettings(pairs=pairs), reward=ScorerSettings(model=uncalibrated))
    session: Any = FakeSession()
    figures = run_eval(run, prepare_eval(run), session)
    assert session.settings.normalize is False
    assert (figures["accuracy"], figures["mean_margin"]) == (1.0, 2.0)


def test_pairs_of_several_annotators(tmp_path: Path, uncalibrated: str) -> None:
    texts = {"prompt": "Q", "chosen": "long", "rejected": "no"}
    turned = {"prompt": "Q", "chosen": "no", "rejected": "long"}
    rows = [{**texts, "annotator": "ann"}, {**turned, "annotator": "bob"}, {**texts, "annotator": "cay"}]
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    session: Any = FakeSession()
    run = EvalRun(data=EvalDataSettings(pairs=str(file)), reward=ScorerSettings(model=uncalibrated))
    figures = run_eval(run, prepare_eval(run), session)
    # The longer response scores higher: as ann and cay say, who agree with each other and not with bob.
    assert {name: found["accuracy"] for name, found in figures["annotators"].items()} == {"ann": 1, "bob": 0, "cay": 1}
    assert figures["annotator_agreement"] == {"agreement": 1 / 3, "num_compared": 3}


def test_an_ensemble_is_measured_by_its_total(tmp_path: Path, uncalibrated: str) -> None:
    class Ensemble(FakeSession):
        def score(self, texts: list[tuple[str, str]]) -> list[Score]:
            return [Score(2.0 * len(response), {"model-0": 9.0, "model-1": 9.0, "std": 0.0}) for _, response in texts]

    pairs = write(tmp_path / "pairs.jsonl", {"prompt": "Q", "chosen": "long", "rejected": "no"})
    run = EvalRun(
        data=EvalDataSettings(pairs=pairs), reward=ScorerSettings(model=uncalibrated, ensemble=(uncalibrated,))
    )
    with pytest.raises(UserError, match=r"calibration\.json"):
        prepare_eval(run)
    session: Any = Ensemble()
    figures = run_eval(run, EvalInput((Ranking("Q", ("long", "no")),), (), 0, ()), session)
    assert session.settings.normalize is True
    assert (figures["accuracy"], figures["mean_margin"]) == (1.0, 4.0)
    assert "calibration_error" not in figures


def test_a_policy_s_scores_need_one(tmp_path: Path, uncalibrated: str) -> None:
    asked = write(tmp_path / "prompts.jsonl", {"prompt": "Q"})
    policy = EvaluatedPolicySettings(model=write_policy(tmp_path / "policy"))
    run = EvalRun(data=EvalDataSettings(prompts=asked), policy=policy, reward=ScorerSettings(model=uncalibrated))
    with pytest.raises(UserError, match=r"calibration\.json.*reward\.normalize=false"):
        prepare_eval(run)
    raw = run.model_copy(update={"reward": ScorerSettings(model=uncalibrated, normalize=False)})
    assert len(prepare_eval(raw).prompts) == 1


def test_chat_pairs_without_a_policy_become_a_plain_transcript(tmp_path: Path, uncalibrated: str) -> None:
    turns = {name: [{"role": role, "content": name}] for name, role in (("prompt", "user"), ("chosen", "assistant"))}
    chats = write(tmp_path / "chats.jsonl", {**turns, "rejected": [{"role": "assistant", "content": "no"}]})
    data = prepare_eval(EvalRun(data=EvalDataSettings(pairs=chats), reward=ScorerSettings(model=uncalibrated)))
    assert data == EvalInput((Ranking("\n\nHuman: prompt\n\nAssistant:", ("chosen", "no")),), (), 0, ())
