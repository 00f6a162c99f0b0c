"""Workers killed in the middle of a run: it continues by itself, and ends with the bytes of one that lost none."""

import io
import os
import signal
from pathlib import Path

import pytest
from ray._private.state import actors

from plumbob.console.display import PlainConsole
from plumbob.driver.run_folder.folder import EVENTS_FILE
from plumbob.models.adapter import WEIGHTS_FILE
from plumbob.trainers.metrics.json_lines import read_json_lines
from plumbob.trainers.metrics.step_record import StepRecord
from tests.support.small_run import Left, Stages

pytestmark = pytest.mark.slow


CHANGES = ("lost", "replaced")


class Killing(PlainConsole):
    """Kills the workers of some classes as steps end, and keeps what is said. `when`: step -> classes."""

    def __init__(self, when: dict[int, list[str]]) -> None:
        super().__init__(io.StringIO())
        self._when = when
        self.said_so: list[str] = []

    def notify(self, stage: str, message: str) -> None:
        self.said_so.append(message)

    def stepped(self, record: StepRecord) -> None:
        # A step that a lost learner makes again kills nobody a second time.
        for kind in self._when.pop(record.step, []):
            for process in [each for each in actors().values() if each["ActorClassName"] == kind and each["Pid"]]:
                if process["State"] == "ALIVE":
                    os.kill(process["Pid"], signal.SIGKILL)


@pytest.fixture(scope="module")
def bereft(stage: Stages, ppo_settings: dict[str, object]) -> tuple[Left, Killing]:
    """PPO of three steps that loses its sampler and its scorer after the first, and its learner after the second."""
    listener = Killing({1: ["RolloutWorker", "ScorerWorker"], 2: ["LearnerWorker"]})
    return stage("ppo-bereft", "ppo", ppo_settings, listener=listener), listener


def test_a_run_that_lost_every_worker_ends_with_the_same_bytes(
    bereft: tuple[Left, Killing], ppo_from_adapter: Left
) -> None:
    left, _ = bereft
    weights = [(Path(each.policy) / WEIGHTS_FILE).read_bytes() for each in (left, ppo_from_adapter)]
    assert weights[0] == weights[1]
    assert left.untimed == ppo_from_adapter.untimed


def test_each_loss_is_reported(bereft: tuple[Left, Killing]) -> None:
    replaced = [message for message in bereft[1].said_so if "it is replaced" in message]
    assert len(replaced) == 3
    for role in ("rollout", "scorer", "learner"):
        assert sum(message.startswith(f"{role}-") and " died while " in message for message in replaced) == 1, role
    events = read_json_lines(bereft[0].folder / EVENTS_FILE)
    told = [(each["event"], each.get("slot", each.get("worker"))) for each in events if each["event"] in CHANGES]
    assert sorted(slot for event, slot in told if event == "lost") == ["learners", "rollout 0", "scorer 0"]
    assert sorted(worker.partition("-")[0] for event, worker in told if event == "replaced") == [
        "learner",
        "rollout",
        "scorer",
    ]


def test_every_prompt_was_learnt_from_once(bereft: tuple[Left, Killing], ppo_from_adapter: Left) -> None:
    journals = [
        [(step, row.prompt_id, row.sample_index, row.token_ids.tolist()) for step, row in left.journal]
        for left in (bereft[0], ppo_from_adapter)
    ]
    assert journals[0] == journals[1]
    assert len(journals[0]) == len({key[:3] for key in journals[0]}) == 24
