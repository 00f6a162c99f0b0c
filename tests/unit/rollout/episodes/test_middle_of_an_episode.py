"""The middle of an episode: another version of the policy comes, a limit is reached. The policy's tokens are chosen."""

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from transformers import AutoTokenizer

from plumbob.configs.settings.programs.environments import EnvironmentSettings
from plumbob.configs.settings.workers import TransformersEngine
from plumbob.data.texts.chat_text import PLAIN_CHAT_TEMPLATE
from plumbob.data.texts.codec import TextCodec
from plumbob.models.adapter import save_adapter
from plumbob.rollout.environments import episode as episode_module
from plumbob.rollout.episodes.episode_sampler import EpisodeSampler, with_environment
from plumbob.rollout.rollout_records import NO_VERSION, Rollout
from plumbob.rollout.samplers.sampler import SamplerSpec
from plumbob.rollout.samplers.transformers_sampler import TransformersSampler
from tests.support.forced_tokens import force_tokens
from tests.support.opened_models import policy_ref
from tests.support.plain_transformers import load_plain, plain_logprobs
from tests.support.tiny_policy import EOS, TEMPERATURE, make_adapter, make_requests, write_policy

ENVIRONMENTS = Path(__file__).parents[3] / "support/echo_environments.py"
WORDS = "a red car"
NUM_TURNS = 9


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = write_policy(tmp_path_factory.mktemp("policy"), max_positions=512)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = PLAIN_CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


class EchoEpisode:
    """An episode of a policy that says the same at each turn, which is told how many letters that has.

    Attributes:
        turn: what it says, with its EOS.
        answer: what the template writes around the environment's message.
        sampler: the episodes'; its own sampler is `turns`.
    """

    def __init__(
        self,
        folder: str,
        monkeypatch: pytest.MonkeyPatch,
        max_tokens: int = 400,
        arguments: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        codec = TextCodec(AutoTokenizer.from_pretrained(folder))
        words, self.answer = codec.encode([WORDS, f"\n\nHuman: the car has {len(WORDS)} doors\n\nAssistant:"])
        self.turn = np.array([*words, EOS], np.int32)
        given = {"num_turns": NUM_TURNS} if arguments is None else arguments
        name = "Waiting" if "file" in given else "Echo"
        environment = EnvironmentSettings(source=f"{ENVIRONMENTS}:{name}", arguments=given, **settings)
        spec = SamplerSpec(
            policy_ref(folder), "rollout-0", TransformersEngine(), TEMPERATURE, max_tokens, 4, environment=environment
        )
        force_tokens(monkeypatch, [self.turn] * NUM_TURNS)
        self.turns = TransformersSampler(spec)
        sampler = with_environment(self.turns, spec)
        assert isinstance(sampler, EpisodeSampler)
        self.sampler = sampler
        (self.request,) = make_requests(1)
        sampler.submit([self.request])

    def poll_until(self, is_there: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not is_there():
            assert not self.sampler.poll() and time.monotonic() < deadline

    def writes_turn(self, number: int) -> bool:
        """Whether the policy is in the middle of that turn, of which the first is 1."""
        start = (number - 1) * (len(self.turn) + len(self.answer))
        return any(
            len(one.token_ids) > 0 and len(one.request.partial.token_ids) == start for one in self.turns.in_progress
        )

    def ended(self) -> Rollout:
        (rollout,) = self.sampler.run_to_completion()
        self.sampler.close()
        assert rollout.episode is not None and rollout.episode.failure is None
        return rollout

    def tokens(self, num_turns: int) -> NDArray[np.int32]:
        """Of so many turns, and the answers between them."""
        return np.concatenate([self.turn, *[self.answer, self.turn] * (num_turns - 1)])


def rewards(rollout: Rollout) -> list[float]:
    """Of its turns; `Echo` gives the turn's number."""
    assert rollout.episode is not None
    assert all(turn.messages for turn in rollout.episode.turns[:-1]) and not rollout.episode.turns[-1].messages
    return [turn.reward for turn in rollout.episode.turns]


def test_a_version_that_comes_in_the_middle_makes_the_next_turn(
    folder: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    playing = EchoEpisode(folder, monkeypatch, arguments={"num_turns": 3})
    playing.sampler.cancel()
    adapters = [make_adapter(folder, version, seed=version) for version in (0, 1)]
    playing.sampler.load(adapters[0])
    playing.sampler.submit([playing.request])
    playing.poll_until(lambda: playing.writes_turn(2))
    playing.sampler.load(adapters[1])
    rollout = playing.ended()
    np.testing.assert_array_equal(rollout.token_ids, playing.tokens(3))
    # The turn that was being written ends as it began; the third is the new version's.
    num, between = len(playing.turn), [NO_VERSION] * len(playing.answer)
    assert rollout.versions.tolist() == [0] * num + between + [0] * num + between + [1] * num
    assert rewards(rollout) == [1.0, 2.0, 3.0]
    expected = []
    for adapter in adapters:
        saved = tmp_path / str(adapter.version)
        save_adapter(adapter, saved)
        model = load_plain(str(saved))
        expected.append(plain_logprobs(model, playing.request.prompt_ids, rollout.token_ids, TEMPERATURE))
    written = rollout.action_mask
    by_version = np.where(rollout.versions == 1, expected[1], expected[0])
    assert np.abs(by_version - rollout.logprobs)[written].max() < 1e-4
    assert np.abs(expected[0] - expected[1])[written].max() > 1e-2, "the two versions are alike: this test cannot tell"


def test_the_limit_of_turns_in_the_middle(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    playing = EchoEpisode(folder, monkeypatch, max_turns=3)
    rollout = playing.ended()
    assert rollout.finish_reason == "stop" and rewards(rollout) == [1.0, 2.0, 3.0]
    np.testing.assert_array_equal(rollout.token_ids, playing.tokens(3))


@pytest.mark.parametrize("room", [0, 1])
def test_an_answer_that_leaves_no_room_ends_it(folder: str, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    """After two turns there is room for the second answer and no token more, or one of a third turn."""
    measured = EchoEpisode(folder, monkeypatch)
    measured.sampler.cancel()
    measured.sampler.close()
    limit = 2 * (len(measured.turn) + len(measured.answer)) + room
    playing = EchoEpisode(folder, monkeypatch, max_tokens=limit)
    rollout = playing.ended()
    assert rollout.finish_reason == "length"
    if room == 0:
        # The second turn has its reward; its answer, which nobody would read, is left out.
        assert rewards(rollout) == [1.0, 2.0]
        np.testing.assert_array_equal(rollout.token_ids, playing.tokens(2))
    else:
        # The environment was not asked about a turn that was cut within.
        assert rewards(rollout) == [1.0, 2.0, 0.0]
        np.testing.assert_array_equal(rollout.token_ids, playing.tokens(3)[:limit])
        assert len(rollout.token_ids) == limit and rollout.token_ids[-1] == playing.turn[0]


def over_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the clock of episodes it is 700 s later."""
    monkeypatch.setattr(episode_module, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + 700))


def test_time_that_ends_in_the_policys_turn_lets_it_end_and_asks_nobody(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    playing = EchoEpisode(folder, monkeypatch, episode_s=600)
    playing.poll_until(lambda: playing.writes_turn(2))
    over_time(monkeypatch)
    rollout = playing.ended()
    assert rollout.finish_reason == "stop" and rewards(rollout) == [1.0, 0.0]
    np.testing.assert_array_equal(rollout.token_ids, playing.tokens(2))


def test_time_that_ends_while_the_environment_answers_keeps_what_it_gives(
    folder: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    arguments = {"num_turns": NUM_TURNS, "file": str(tmp_path / "there")}
    playing = EchoEpisode(folder, monkeypatch, arguments=arguments, episode_s=600, timeout_s=3600)
    playing.poll_until(lambda: playing.writes_turn(2))
    playing.poll_until(lambda: not playing.turns.in_progress)
    over_time(monkeypatch)
    (tmp_path / "there").touch()
    rollout = playing.ended()
    assert rollout.finish_reason == "stop" and rewards(rollout) == [1.0, 2.0]
    np.testing.assert_array_equal(rollout.token_ids, playing.tokens(2))
