"""What an environment gives, checked to the last value: nothing that its process sends is believed."""

import json
import math
from typing import Any

from plumbob.core.outside import MAX_JSON_DEPTH, is_deeper
from plumbob.core.programs.users_code import MAX_FLOAT32
from plumbob.data.reading.messages import messages_in
from plumbob.data.records import RowError
from plumbob.data.texts.chat_text import Message
from plumbob.rollout.environments.environment_protocol import EnvironmentFailed, EnvironmentReply

KEYS = ("messages", "reward", "done")


def reply_of(given: Any) -> EnvironmentReply:
    """Of what `step` gave. Raises EnvironmentFailed."""
    if not isinstance(given, dict):
        raise EnvironmentFailed(f"wrong type: step gave a {type(given).__name__}, and a reply is a dictionary")
    unknown = next((key for key in given if key not in KEYS), None)
    if unknown is not None:
        raise EnvironmentFailed(f"wrong reply: step gave {unknown[:80]!r}; a reply has {', '.join(KEYS)}")
    is_done = given.get("done", False)
    if not isinstance(is_done, bool):
        raise EnvironmentFailed(f"wrong type: done is a {type(is_done).__name__}, and should be True or False")
    messages = _messages("step", given.get("messages"))
    if any(message["role"] == "assistant" for message in messages):
        raise EnvironmentFailed("wrong reply: step gave a message of the assistant's, which the policy alone writes")
    if not messages and not is_done:
        raise EnvironmentFailed("wrong reply: step gave no messages and did not end the episode")
    return EnvironmentReply(tuple(messages), _reward(given.get("reward", 0.0)), is_done)


def opening_of(given: Any) -> list[Message] | None:
    """Of what `reset` gave. Raises EnvironmentFailed."""
    if given is None:
        return None
    messages = _messages("reset", given)
    if not messages or messages[-1]["role"] == "assistant":
        raise EnvironmentFailed("wrong reply: reset gave no messages, or one of the assistant's as the last")
    return messages


def _messages(method: str, given: Any) -> list[Message]:
    if given is None or given == []:
        return []
    if is_deeper(given, MAX_JSON_DEPTH):
        raise EnvironmentFailed(f"wrong messages: those of {method} are nested more than {MAX_JSON_DEPTH} deep")
    try:
        json.dumps(given, ensure_ascii=False).encode()
        messages = messages_in(f"messages of {method}", given)
    except UnicodeEncodeError as error:
        raise EnvironmentFailed(f"wrong messages: those of {method} hold what is no Unicode text") from error
    except RowError as error:
        raise EnvironmentFailed(f"wrong messages: {error}") from error
    if not all(isinstance(message.get("tool_call_id", ""), str) for message in messages):
        raise EnvironmentFailed(f"wrong messages: a tool_call_id of {method} is no text")
    return messages


def _reward(given: Any) -> float:
    if not isinstance(given, int | float):
        raise EnvironmentFailed(f"wrong type: reward is a {type(given).__name__}, and should be a number")
    try:
        reward = float(given)
    except OverflowError:
        reward = math.inf
    if not abs(reward) <= MAX_FLOAT32:
        raise EnvironmentFailed(f"not finite: the reward is {reward}")
    return reward
