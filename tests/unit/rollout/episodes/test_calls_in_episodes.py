"""Calls of tools through whole episodes: the policy's tokens are chosen here, all else is as in a run."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plumbob.configs.settings.programs.environments import EnvironmentSettings
from plumbob.configs.settings.workers import TransformersEngine
from plumbob.data.texts.turns import write
from plumbob.rollout.environments.shipped.calculator import TOOL, question
from plumbob.rollout.episodes.episode_sampler import with_environment
from plumbob.rollout.rollout_records import NO_VERSION, Rollout, SampleRequest
from plumbob.rollout.samplers.open_sampler import open_sampler
from plumbob.rollout.samplers.sampler import BASE_VERSION, SamplerSpec, sample
from tests.support.forced_tokens import force_tokens
from tests.support.opened_models import policy_ref
from tests.support.plain_transformers import load_plain, plain_logprobs
from tests.support.public_templates import public_tokenizer
from tests.support.tiny_policy import TEMPERATURE, write_policy

CALCULATOR = "plumbob.rollout.environments.shipped.calculator:Calculator"
EXPRESSION = "37 * 46"


def qwen_call(expression: str) -> str:
    """As Qwen 3 writes it, whose marks are letters."""
    return '<tool_call>\n{"name": "calculator", "arguments": {"expression": "' + expression + '"}}\n</tool_call>'


DEEPSEEK_CALL = (
    '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>calculator\n```json\n{"expression": "37 * 46"}\n'
    "```<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
)
"""Whose marks are control tokens: no part of a turn's text."""

OWN_PARSER = '''
def calls(text):
    """`<｜tool▁sep｜>37 * 46<｜tool▁call▁end｜>`: marks of control tokens."""
    _, mark, behind = text.partition("<｜tool▁sep｜>")
    if not mark:
        return None
    expression = behind.partition("<｜tool▁call▁end｜>")[0]
    return [{"id": "mine", "function": {"name": "calculator", "arguments": {"expression": expression}}}]
'''


class CalculatorEpisode:
    """One episode of the calculator on `EXPRESSION`, in which the policy writes the given turns, ended where they are.

    Attributes:
        ids: of each turn.
    """

    def __init__(self, folder: Path, template: str, turns: list[str], **settings: Any) -> None:
        self.tokenizer = public_tokenizer(template)
        self.folder = write_policy(folder / template, tokenizer=self.tokenizer, max_positions=2048)
        self.ids = [self.encoded(turn) for turn in turns]
        prompt = write(self.tokenizer, [{"role": "user", "content": question(EXPRESSION)}], tools=[TOOL])
        row = {"prompt": question(EXPRESSION), "expression": EXPRESSION, "tools": [TOOL]}
        self.request = SampleRequest("p0", "g0", 0, 0, prompt, self.encoded(prompt), row=row)
        environment = EnvironmentSettings(source=CALCULATOR, max_turns=4, **settings)
        self._spec = SamplerSpec(
            policy_ref(self.folder), "rollout-0", TransformersEngine(), TEMPERATURE, 800, 4, environment=environment
        )

    def encoded(self, text: str) -> np.ndarray[Any, Any]:
        return np.array(self.tokenizer(text, add_special_tokens=False)["input_ids"], np.int32)

    def rollout(self, monkeypatch: pytest.MonkeyPatch) -> Rollout:
        left = force_tokens(monkeypatch, self.ids)
        sampler = with_environment(open_sampler(self._spec), self._spec)
        try:
            (rollout,) = sample(sampler, [self.request])
        finally:
            sampler.close()
        assert next(left, None) is None, "the policy was not asked for all of its turns"
        assert rollout.episode is not None and rollout.episode.failure is None and rollout.finish_reason == "stop"
        return rollout

    def check_tokens(self, rollout: Rollout, follow_ups: list[str]) -> None:
        """The policy's turns and, between them, what its template writes around the calculator's messages, masked."""
        parts = [(ids, True) for ids in self.ids]
        for place, text in enumerate(follow_ups):
            parts.insert(2 * place + 1, (self.encoded(text), False))
        np.testing.assert_array_equal(rollout.token_ids, np.concatenate([ids for ids, _ in parts]))
        mask = np.concatenate([np.full(len(ids), is_policys) for ids, is_policys in parts])
        np.testing.assert_array_equal(rollout.action_mask, mask)
        np.testing.assert_array_equal(rollout.versions, np.where(mask, BASE_VERSION, NO_VERSION))
        # What the policy read before each of its tokens is exactly these tokens, the tool's result among them.
        expected = plain_logprobs(load_plain(self.folder), self.request.prompt_ids, rollout.token_ids, TEMPERATURE)
        assert np.abs(expected - rollout.logprobs)[mask].max() < 1e-4


def told(rollout: Rollout) -> list[list[dict[str, Any]]]:
    """What the environment answered each turn but the last."""
    assert rollout.episode is not None
    return [[dict(message) for message in turn.messages] for turn in rollout.episode.turns[:-1]]


def rewards(rollout: Rollout) -> list[float]:
    assert rollout.episode is not None
    return [turn.reward for turn in rollout.episode.turns]


def test_a_call_as_qwen_writes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called, answered = f"I ask.\n{qwen_call(EXPRESSION)}<|im_end|>", "It is 1,702.<|im_end|>"
    played = CalculatorEpisode(tmp_path, "qwen3", [called, answered])
    rollout = played.rollout(monkeypatch)
    # Only what is answered to a call of its own has the call's name: the environment was given `tool_calls`.
    assert told(rollout) == [[{"role": "tool", "content": "1702", "tool_call_id": "call00000"}]]
    assert rewards(rollout) == [0.0, 1.0]  # 37 * 46 = 1702
    played.check_tokens(
        rollout,
        ["\n<|im_start|>user\n<tool_response>\n1702\n</tool_response><|im_end|>\n<|im_start|>assistant\n"],
    )


def test_two_calls_in_a_turn_and_a_third_in_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = [
        f"{qwen_call('30 * 46')}\n{qwen_call('7 * 46')}<|im_end|>",
        f"{qwen_call('1380 + 322')}<|im_end|>",
        "1702<|im_end|>",
    ]
    played = CalculatorEpisode(tmp_path, "qwen3", turns)
    rollout = played.rollout(monkeypatch)
    results = [[("1380", "call00000"), ("322", "call00001")], [("1702", "call00000")]]
    assert told(rollout) == [
        [{"role": "tool", "content": content, "tool_call_id": call} for content, call in of_turn] for of_turn in results
    ]
    assert rewards(rollout) == [0.0, 0.0, 1.0]
    opening, closing = "\n<|im_start|>user", "<|im_end|>\n<|im_start|>assistant\n"
    both = "\n<tool_response>\n1380\n</tool_response>\n<tool_response>\n322\n</tool_response>"
    played.check_tokens(
        rollout, [opening + both + closing, f"{opening}\n<tool_response>\n1702\n</tool_response>{closing}"]
    )


def test_a_call_that_control_tokens_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    played = CalculatorEpisode(
        tmp_path, "deepseekv3", [f"{DEEPSEEK_CALL}<｜end▁of▁sentence｜>", "1702<｜end▁of▁sentence｜>"]
    )
    rollout = played.rollout(monkeypatch)
    assert told(rollout) == [[{"role": "tool", "content": "1702", "tool_call_id": "call00000"}]]
    assert rewards(rollout) == [0.0, 1.0]
    outputs = "<｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>1702<｜tool▁output▁end｜><｜tool▁outputs▁end｜>"
    played.check_tokens(rollout, [outputs])


def test_a_call_that_is_malformed_is_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    played = CalculatorEpisode(tmp_path, "qwen3", [qwen_call(EXPRESSION).replace("}}", "}") + "<|im_end|>"])
    rollout = played.rollout(monkeypatch)
    assert told(rollout) == [] and rewards(rollout) == [0.0]


def test_calls_that_are_not_looked_for_are_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose last number is 46, which is not the result."""
    played = CalculatorEpisode(tmp_path, "qwen3", [f"{qwen_call(EXPRESSION)}<|im_end|>"], tool_calls="none")
    rollout = played.rollout(monkeypatch)
    assert told(rollout) == [] and rewards(rollout) == [0.0]
    played.check_tokens(rollout, [])


def test_a_users_own_parser_is_given_control_tokens_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_world.py").write_text(OWN_PARSER, encoding="utf-8")
    called = f"I ask<｜tool▁sep｜>{EXPRESSION}<｜tool▁call▁end｜><｜end▁of▁sentence｜>"
    played = CalculatorEpisode(
        tmp_path,
        "deepseekv3",
        [called, "1702<｜end▁of▁sentence｜>"],
        tool_calls=f"{tmp_path}/my_world.py:calls",
    )
    rollout = played.rollout(monkeypatch)
    assert told(rollout) == [[{"role": "tool", "content": "1702", "tool_call_id": "mine"}]]
    assert rewards(rollout) == [0.0, 1.0]
    assert rollout.episode is not None and rollout.episode.turns[0].text == f"I ask{EXPRESSION}"
