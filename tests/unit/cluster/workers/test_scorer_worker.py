"""What a session asks its scorers for, and what a scorer makes of it: whatever the reward is, and named as it was."""

import multiprocessing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

import plumbob.reward.open_scorer
from plumbob.cluster.fleet.pool_registry import PoolRegistry
from plumbob.cluster.resources import ResourceNeed, scorer_need
from plumbob.cluster.session import BATCHES_PER_CALL, Session
from plumbob.cluster.workers.same_versions import installed
from plumbob.cluster.workers.scorer_worker import ScorerWorker
from plumbob.cluster.workers.shared_storage import StorageProbe
from plumbob.configs.settings.models import ModelRef
from plumbob.configs.settings.rewards import GoldRewardSettings, ScorerSettings
from plumbob.configs.settings.workers import ClusterSettings
from plumbob.core.errors import UserError
from plumbob.reward.rules.callable_rule import RuleScorer
from plumbob.reward.scorer import Opening, Score
from tests.support.recording_listener import Watching
from tests.support.score_requests import score_requests
from tests.support.tiny_scorer import write_scorer


@dataclass(frozen=True)
class LengthReward:
    """A reward that the project does not have."""

    kind: ClassVar[str] = "letters"
    models: ClassVar[tuple[ModelRef, ...]] = ()
    batch_size: int = 7
    is_calibrated: ClassVar[bool] = False
    keeps_answers: ClassVar[bool] = False


class LengthRewardSettings(ScorerSettings):
    model: str = ""

    @property
    def reward(self) -> Any:
        return LengthReward()


class Handle:
    """An actor's handle that keeps what it is called with."""

    def __init__(self) -> None:
        self.open, self.given = self, []

    def remote(self, *arguments: Any) -> None:
        self.given += arguments


def asked_for(settings: ScorerSettings, monkeypatch: pytest.MonkeyPatch, folder: Path) -> tuple[Any, ResourceNeed, int]:
    """What a session sends its scorers, the group that it starts, and how many responses it sends at a time."""
    opened: list[Any] = []
    monkeypatch.setattr(PoolRegistry, "get_or_open", lambda self, *given: opened.append(given))
    group: Any = Session(ClusterSettings(), folder, Watching()).start_scorers(settings)
    ((need, _, kind, model, opening),) = opened
    handle: Any = Handle()
    opening.call(type("Actor", (), {"handle": handle}))
    assert kind is ScorerWorker and tuple(handle.given) == model
    return model[0], need, group._chunk_size


def in_worker(folder: Path, body: Callable[[ScorerWorker], str]) -> str:
    """What `body` finds in a process of its own: what a worker prints goes to its log."""
    mark, found = StorageProbe(folder).write(), folder / "found"

    def run() -> None:
        found.write_text(body(ScorerWorker(folder / "scorer-1.log", 1, installed(), mark)))

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join(120)
    assert process.exitcode == 0
    return found.read_text()


@pytest.mark.parametrize("settings", [ScorerSettings, GoldRewardSettings])
def test_a_model_that_a_worker_cannot_load_is_named_by_its_setting(
    settings: type[ScorerSettings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_scorer(tmp_path / "rm")
    (folder / "model.safetensors").write_bytes(b"cut")
    reward, need, _ = asked_for(settings(model=str(folder), normalize=False), monkeypatch, tmp_path)
    assert need == scorer_need(settings(model="other"))

    def refusal(worker: ScorerWorker) -> str:
        with pytest.raises(UserError) as refused:
            worker.open(reward)
        return str(refused.value)

    assert in_worker(tmp_path, refusal).startswith(f"{settings.section}.model={folder}: model.safetensors is damaged")


def test_a_new_reward_needs_its_module_and_no_change_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reward, _, at_a_time = asked_for(LengthRewardSettings(), monkeypatch, tmp_path)
    assert (reward, at_a_time) == (LengthReward(), 7 * BATCHES_PER_CALL)

    def refusal(worker: ScorerWorker) -> str:
        with pytest.raises(KeyError) as refused:
            worker.open(reward)
        return str(refused.value)

    assert in_worker(tmp_path, refusal) == "'letters'"  # There is no module of that kind yet.

    def opening(given: LengthReward, folder: Path | None) -> Opening:
        return Opening(lambda: None, lambda device: RuleScorer(lambda prompt, response: float(len(response))))

    monkeypatch.setattr(plumbob.reward.open_scorer, "_opening", opening)

    def score(worker: ScorerWorker) -> str:
        worker.open(reward)
        return repr(worker.score(score_requests([("q", "abc"), ("q", "")])))

    assert in_worker(tmp_path, score) == repr([Score(3.0, {}), Score(0.0, {})])
