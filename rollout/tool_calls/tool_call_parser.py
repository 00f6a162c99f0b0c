"""Calls of tools in a policy's text (`ToolCallParser`): as its tokenizer says, or as its chat template writes them."""

from typing import Any

from plumbob.core.outside import MAX_JSON_DEPTH, is_deeper
from plumbob.data.texts.tokenizer import Tokenizer
from plumbob.rollout.tool_calls.call_conventions import call_convention
from plumbob.rollout.tool_calls.call_forms import NoCall, named_call
from plumbob.rollout.tool_calls.response_template import TimedTemplate


class ToolCallParser:
    """Makes of a policy's text the turn that an environment is given. Never raises: what is malformed is text.

    By the tokenizer's `response_template` (transformers 5) where it has one; else as `call_convention` learns it. A
    text on which the template's patterns take too long has no calls.

    Attributes:
        knows_calls: whether there is a way to find any.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        own = getattr(tokenizer, "response_template", None)
        self._template = None if own is None else _timed_template(own)
        self._convention = call_convention(tokenizer) if own is None else None
        self.knows_calls = self._template is not None or self._convention is not None

    def turn_of(self, text: str, prompt: str = "") -> dict[str, Any]:
        """`{"role": "assistant", "content"}`, and `tool_calls` where all of the text's calls are well formed.

        Args:
            text: with its control tokens, since some mark calls; without the token that ends the turn.
            prompt: what the text continues, as the chat template wrote it.
        """
        found = self._by_convention(text) if self._template is None else self._by_template(self._template, text, prompt)
        if found is None:
            return {"role": "assistant", "content": text}
        content, calls = found
        shaped = [_shaped(number, call) for number, call in enumerate(calls)]
        return {"role": "assistant", "content": content, "tool_calls": shaped}

    def _by_convention(self, text: str) -> tuple[str, list[dict[str, Any]]] | None:
        if self._convention is None:
            return None
        try:
            content, calls = self._convention.calls_in(text)
        except NoCall:
            return None
        return None if is_deeper(calls, MAX_JSON_DEPTH) else (content, calls)

    def _by_template(self, template: TimedTemplate, text: str, prompt: str) -> tuple[str, list[dict[str, Any]]] | None:
        try:
            message = template.message(text, prompt)
            calls = [
                named_call(call["function"]["name"], call["function"]["arguments"]) for call in message["tool_calls"]
            ]
            content = message.get("content") or ""
        except Exception:  # It parses what a policy wrote by a template from outside: it raises what it likes.
            return None
        return (content, calls) if calls and isinstance(content, str) and not is_deeper(calls, MAX_JSON_DEPTH) else None


def _timed_template(response_template: dict[str, Any]) -> TimedTemplate | None:
    try:
        return TimedTemplate(response_template)
    except Exception:  # It is from outside: what transformers raises of it is of many kinds.
        return None


def _shaped(number: int, call: dict[str, Any]) -> dict[str, Any]:
    """As in OpenAI's API, but for the arguments, which are a dictionary, as templates expect them."""
    return {"id": f"call{number:05}", "type": "function", "function": call}
