"""Sampling beside learning with a real learner and a real sampler: which version made which token, what it changes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from plumbob.rollout.journal import JournalRow
from tests.support.learner_ranks import Ranks
from tests.support.online_steps import NUM_STEPS, PROMPTS_PER_STEP, play
from tests.support.small_run import Left
from tests.support.tiny_policy import write_policy


@dataclass(frozen=True)
class Played(Left):
    """The folder of a run, how its sampling began, its ledger, and what was said."""

    begun: list[tuple[int, int]]
    ledger: dict[str, Any]
    messages: list[str]

    @property
    def lines(self) -> list[dict[str, float]]:
        return [line["metrics"] for line in self.metrics]

    @property
    def checkpoint(self) -> dict[str, bytes]:
        """The last one's files."""
        return {path.name: path.read_bytes() for path in self.last_checkpoint.iterdir()}

    @property
    def versions(self) -> list[list[int]]:
        """Of each step: the version that made each response; none has tokens of two."""
        found: list[list[int]] = [[] for _ in range(NUM_STEPS)]
        for step, row in self.journal:
            (version,) = set(row.versions.tolist())
            found[step - 1].append(version)
        return found


@pytest.fixture(scope="module")
def played(one_rank: Ranks, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Played]:
    model = write_policy(tmp_path_factory.mktemp("policy"))

    def run(is_asynchronous: bool, max_staleness: int = 0, pace: str = "free", **changes: Any) -> Played:
        folder = tmp_path_factory.mktemp("run")
        return Played(folder, **one_rank.run(play, model, folder, is_asynchronous, max_staleness, pace, changes)[0])

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
    assert one.checkpoint["learner-0.safetensors"] == other.checkpoint["learner-0.safetensors"]


def tokens(row: JournalRow) -> list[list[Any]]:
    return [list(row.token_ids), list(row.logprobs), list(row.versions), list(row.values)]


def test_two_synchronous_runs_are_the_same(played: Callable[..., Played], synchronous: Played) -> None:
    again = played(False)
    same(again, synchronous)
    assert again.checkpoint == synchronous.checkpoint
    assert synchronous.versions == [[step] * PROMPTS_PER_STEP for step in range(NUM_STEPS)]
    assert all((line["staleness_mean"], line["staleness_max"]) == (0, 0) for line in synchronous.lines)


def test_a_bound_of_0_gives_the_synchronous_result(played: Callable[..., Played], synchronous: Played) -> None:
    found = played(True, 0)
    same(found, synchronous)
    assert found.checkpoint == synchronous.checkpoint


def test_a_slow_sampler_is_waited_for(played: Callable[..., Played]) -> None:
    # Two steps ahead are allowed, but each chunk is held back until its own step's version is there: nothing is stale.
    found = played(True, 2, "slow sampler")
    same(found, played(False, old_logprobs="learner"))  # As a run does in which responses may be stale.
    assert found.begun[:3] == [(0, 0), (1, 0), (2, 1)]


def test_sampling_is_never_further_ahead_of_a_slow_learner_than_the_bound(played: Callable[..., Played]) -> None:
    found = played(True, 2, "slow learner, two ahead")
    # No step is learnt from before the two after it are sampled; the one after those waits for its version.
    assert found.begun == [(0, 0), (1, 0), (2, 0), (3, 1)]
    assert found.versions == [[version] * PROMPTS_PER_STEP for version in (0, 0, 0, 1)]
    assert [(line["staleness_mean"], line["staleness_max"]) for line in found.lines] == [(0, 0), (1, 1), (2, 2), (2, 2)]
    counts = {version: row["trained"] for version, row in found.ledger["versions"].items()}
    assert counts == {"0": 3 * PROMPTS_PER_STEP, "1": PROMPTS_PER_STEP}
    # Old tokens are weighted: the policy that learns from them is not the one that sampled them.
    assert found.lines[0]["sampler_gap_max"] < 1e-4 < found.lines[2]["sampler_gap_max"]
    assert found.lines[2]["sampler_gap_mean"] > 0.05 and found.messages == [], "this is no fault of the sampler's"
    # The last step's sampling waited for version 1, whose commit and publishing are counted in the second line.
    seconds = found.metrics[1]["seconds"]
    assert found.lines[3]["sampler_idle_s"] >= seconds["commit"] + seconds["publish"]


def test_a_version_that_is_published_meanwhile_makes_the_rest(played: Callable[..., Played]) -> None:
    found = played(True, 1, "published between chunks")
    assert found.versions == [[0, 0, 0, 0], [0, 0, 1, 1], [1, 1, 2, 2], [2, 2, 3, 3]]
    for step, line in enumerate(found.lines[1:], start=2):
        lengths = [len(row.token_ids) for at, row in found.journal if at == step]
        assert line["staleness_mean"] == pytest.approx(sum(lengths[:2]) / sum(lengths))
        assert line["staleness_max"] == 1
    # Every response was issued while the version before its step's was the newest.
    assert {version: row["trained"] for version, row in found.ledger["versions"].items()} == {"0": 8, "1": 4, "2": 4}
