"""Sampling beside learning: how far ahead, which version made which token, what it changes, and how it fails."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from rollout.journal import JournalRow, read_journal
from rollout.records import Rollout, SampleRequest
from tests.ppo_loop import NUM_STEPS, PROMPTS_PER_STEP
from tests.ppo_loop import play as play_real
from tests.ppo_world import PROMPTS, DriverDeathError, World, play, settings
from tests.ranks import Ranks
from tests.tiny_policy import write_policy
from trainers import ahead
from trainers.checkpoint import Checkpoints
from trainers.errors import StaleRollouts
from trainers.metrics import read_metrics
from trainers.ppo import PpoActors, PpoInput, PpoState, run_ppo_asynchronous

TIMINGS = {"tokens_per_s", "sampler_idle_s"}
PATIENCE_S = 60.0

# ----------------------------------------------------------------------------------- a real learner and a real sampler


class Played:
    """What a run left in its folder."""

    def __init__(self, folder: Path, told: dict[str, Any]) -> None:
        self.lines = [dict(record.metrics) for record in read_metrics(folder)]
        self.seconds = [record.seconds for record in read_metrics(folder)]
        self.journal = list(read_journal(folder / "rollouts"))
        last = (folder / "checkpoints/latest").read_text().strip()
        self.checkpoint = {path.name: path.read_bytes() for path in (folder / "checkpoints" / last).iterdir()}
        self.begun, self.ledger, self.messages = told["begun"], told["ledger"], told["messages"]

    @property
    def untimed(self) -> list[dict[str, float]]:
        return [{name: value for name, value in line.items() if name not in TIMINGS} for line in self.lines]

    def versions(self) -> list[list[int]]:
        """Of each step: the version that made each answer; none has tokens of two."""
        found: list[list[int]] = [[] for _ in range(NUM_STEPS)]
        for step, row in self.journal:
            (version,) = set(row.versions.tolist())
            found[step - 1].append(version)
        return found


@pytest.fixture(scope="module")
def played(one_rank: Ranks, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Played]:
    model = write_policy(tmp_path_factory.mktemp("policy"))

    def run(is_asynchronous: bool, max_staleness: int = 0, pace: str = "free") -> Played:
        folder = tmp_path_factory.mktemp("run")
        return Played(folder, one_rank.run(play_real, model, folder, is_asynchronous, max_staleness, pace)[0])

    return run


@pytest.fixture(scope="module")
def synchronous(played: Callable[..., Played]) -> Played:
    found = played(False)
    assert len(found.lines) == NUM_STEPS and found.lines[-1]["kl"] != 0.0, "a policy that stands still proves nothing"
    return found


def same(one: Played, other: Played) -> None:
    """Line by line, token by token, and in the bytes that were learnt."""
    assert one.untimed == other.untimed
    assert [tokens(row) for _, row in one.journal] == [tokens(row) for _, row in other.journal]
    assert one.checkpoint["learner.safetensors"] == other.checkpoint["learner.safetensors"]


def tokens(row: JournalRow) -> list[list[Any]]:
    return [list(row.token_ids), list(row.logprobs), list(row.versions), list(row.values)]


def test_two_synchronous_runs_are_the_same(played: Callable[..., Played], synchronous: Played) -> None:
    again = played(False)
    same(again, synchronous)
    assert again.checkpoint == synchronous.checkpoint
    assert synchronous.versions() == [[step] * PROMPTS_PER_STEP for step in range(NUM_STEPS)]
    assert all((line["staleness_mean"], line["staleness_max"]) == (0, 0) for line in synchronous.lines)


def test_a_bound_of_0_gives_the_synchronous_result(played: Callable[..., Played], synchronous: Played) -> None:
    found = played(True, 0)
    same(found, synchronous)
    assert found.checkpoint == synchronous.checkpoint


def test_a_slow_sampler_is_waited_for(played: Callable[..., Played], synchronous: Played) -> None:
    # Two steps ahead are allowed, but each chunk is held back until its own step's version is there: nothing is stale.
    found = played(True, 2, "slow sampler")
    same(found, synchronous)
    assert found.begun[:3] == [(0, 0), (1, 0), (2, 1)]


def test_sampling_is_never_further_ahead_of_a_slow_learner_than_the_bound(played: Callable[..., Played]) -> None:
    found = played(True, 2, "slow learner, two ahead")
    # No step is learnt from before the two after it are sampled; the one after those waits for its version.
    assert found.begun == [(0, 0), (1, 0), (2, 0), (3, 1)]
    assert found.versions() == [[version] * PROMPTS_PER_STEP for version in (0, 0, 0, 1)]
    assert [(line["staleness_mean"], line["staleness_max"]) for line in found.lines] == [(0, 0), (1, 1), (2, 2), (2, 2)]
    counts = {version: row["trained"] for version, row in found.ledger["versions"].items()}
    assert counts == {"0": 3 * PROMPTS_PER_STEP, "1": PROMPTS_PER_STEP}
    # Old tokens are weighted: the policy that learns from them is not the one that sampled them.
    assert found.lines[0]["sampler_gap_max"] < 1e-4 < found.lines[2]["sampler_gap_max"]
    assert found.lines[2]["sampler_gap_mean"] > 0.05 and found.messages == [], "this is no fault of the sampler's"
    # The last step's sampling waited for version 1, whose commit and publishing are counted in the second line.
    assert found.lines[3]["sampler_idle_s"] >= found.seconds[1]["commit"] + found.seconds[1]["publish"]


def test_a_version_that_is_published_meanwhile_makes_the_rest(played: Callable[..., Played]) -> None:
    found = played(True, 1, "published between chunks")
    assert found.versions() == [[0, 0, 0, 0], [0, 0, 1, 1], [1, 1, 2, 2], [2, 2, 3, 3]]
    for step, line in enumerate(found.lines[1:], start=2):
        lengths = [len(row.token_ids) for at, row in found.journal if at == step]
        assert line["staleness_mean"] == pytest.approx(sum(lengths[:2]) / sum(lengths))
        assert line["staleness_max"] == 1
    # Every answer was issued while the version before its step's was the newest.
    assert {version: row["trained"] for version, row in found.ledger["versions"].items()} == {"0": 8, "1": 4, "2": 4}


# ---------------------------------------------------------------------------------------------------------- small fakes


@pytest.mark.parametrize(
    ("max_staleness", "versions"), [(0, [0, 1, 2, 3, 4, 5]), (1, [0, 0, 1, 2, 3, 4]), (9, [0, 0, 0, 0, 0, 0])]
)
def test_how_far_ahead(tmp_path: Path, max_staleness: int, versions: list[int]) -> None:
    # Learning waits until sampling is as far ahead as it may be, and the last step asks for none after it.
    world, state = play(settings(max_staleness=max_staleness), tmp_path, loop=run_ppo_asynchronous)
    assert world.versions_learnt == versions
    assert state.step == 6 and world.version == 6
    assert len(world.requests) == 12
    num_asked = min(max_staleness + 1, 6)
    assert world.diary[: 2 * num_asked + 2] == ["publish 0", *["sample with 0", "score"] * num_asked, "learn"]


def run_in(world: Any, folder: Path, max_staleness: int) -> None:
    run = settings(max_staleness=max_staleness)
    state = PpoState(run, PpoInput(PROMPTS, 0, ()))
    actors = PpoActors(world, world, world)
    run_ppo_asynchronous(run, 0, state, actors, Checkpoints(folder, 2), world)


class Deaf(World):
    """Its samplers stay at version 0, whatever they are given."""

    def load(self, first: Any) -> None:
        super().load(first)
        self.version = 0


def test_a_token_that_is_too_old_is_not_learnt_from(tmp_path: Path) -> None:
    world = Deaf(None, 6)
    with pytest.raises(StaleRollouts, match=r"version 0, but the learner is at version 2 .*max_staleness=1"):
        run_in(world, tmp_path, 1)
    assert world.diary.count("learn") == 2


class Failing(World):
    """Its samplers fail at the second step, while the first is learnt from."""

    def __init__(self) -> None:
        super().__init__(None, 6)
        self.has_failed = threading.Event()

    def sample(self, requests: Sequence[SampleRequest]) -> list[Rollout]:
        if requests[0].group_id.startswith("1-"):
            self.has_failed.set()
            raise DriverDeathError
        return super().sample(requests)

    def update(self, batch: Any, plan: Any) -> dict[str, float]:
        assert self.has_failed.wait(PATIENCE_S)
        return super().update(batch, plan)


def test_what_sampling_raises_ends_the_run_after_the_step_that_is_learnt_from(tmp_path: Path) -> None:
    world = Failing()
    with pytest.raises(DriverDeathError):
        run_in(world, tmp_path, 1)
    assert (world.diary.count("learn"), world.diary.count("commit")) == (1, 1)


class Stuck(World):
    """Learning fails at the first step, while the second is being sampled and does not come to an end."""

    def __init__(self) -> None:
        super().__init__(None, 6)
        self.is_sampling, self.may_end = threading.Event(), threading.Event()

    def sample(self, requests: Sequence[SampleRequest]) -> list[Rollout]:
        if requests[0].group_id.startswith("1-"):
            self.is_sampling.set()
            assert self.may_end.wait(PATIENCE_S)
        return super().sample(requests)

    def update(self, batch: Any, plan: Any) -> dict[str, float]:
        assert self.is_sampling.wait(PATIENCE_S)
        raise DriverDeathError


def test_what_learning_raises_does_not_wait_for_ever_and_ends_the_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "ENDING_S", 0.1)
    world = Stuck()
    with pytest.raises(DriverDeathError):
        run_in(world, tmp_path, 3)
    assert not world.may_end.is_set()
    world.may_end.set()
    for thread in threading.enumerate():
        if thread.name.startswith("sampling"):
            thread.join(PATIENCE_S)
            assert not thread.is_alive()
    # What was being sampled is not scored, and the two steps after it are not sampled.
    assert world.diary == ["publish 0", "sample with 0", "score", "sample with 0"]
