"""A tokenizer's own way to read a turn, `response_template` of transformers 5, within a bound of time (TimedTemplate).

Its patterns are from outside, and texts that a policy writes may make one take for ever. transformers passes no time to
them; the package `regex`, by which it compiles them, takes one at each search.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import regex
from transformers.utils.chat_parsing import parse_response
from transformers.utils.chat_parsing.response_templates import ResponseTemplate, load_response_template

MAX_PARSE_S = 0.5
"""For all patterns of one turn; `regex` counts the seconds of the processor."""


class _TimedPattern:
    """A compiled pattern whose searches end with the turn's time; all else is the pattern's own."""

    def __init__(self, pattern: Any, time_left: Callable[[], float]) -> None:
        self._pattern, self._time_left = pattern, time_left

    def search(self, *arguments: Any, **options: Any) -> Any:
        return self._pattern.search(*arguments, timeout=self._time_left(), **options)

    def finditer(self, *arguments: Any, **options: Any) -> Iterator[Any]:
        found: Iterator[Any] = self._pattern.finditer(*arguments, timeout=self._time_left(), **options)
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pattern, name)


class TimedTemplate:
    """Raises ValueError where the template is none."""

    def __init__(self, response_template: dict[str, Any]) -> None:
        self._until = 0.0
        self._template = self._timed(load_response_template(response_template))
        # The same regions as texts: what the patterns within them are tried on.
        as_text: dict[str, Any] = {
            "content": "text",
            "content_args": {},
            "transform": None,
            "transform_each": False,
            "join": None,
        }
        fields = self._template.fields.items()
        texts = {name: replace(field, **as_text, optional=True) for name, field in fields}
        self._regions = replace(self._template, defaults={}, fields=texts)

    def message(self, text: str, prompt: str) -> dict[str, Any]:
        """The turn as a message, by the template.

        Args:
            text: of the turn, with its control tokens.
            prompt: what it continues.

        Raises:
            TimeoutError: the patterns take too long on it.
            Exception: what the template raises where it does not understand the text.
        """
        self._until = time.monotonic() + MAX_PARSE_S
        for name, found in parse_response(text, self._regions, prefix=prompt).items():
            field = self._template.fields[name]
            for region in found if isinstance(found, list) else [found]:
                self._try_within(region, field.content, field.content_args)
        message: dict[str, Any] = parse_response(text, self._template, prefix=prompt)
        return message

    def _time_left(self) -> float:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def _timed(self, template: ResponseTemplate) -> ResponseTemplate:
        def timed(pattern: Any) -> Any:
            return None if pattern is None else _TimedPattern(pattern, self._time_left)

        fields = {
            name: replace(field, open_re=timed(field.open_re), close_re=timed(field.close_re))
            for name, field in template.fields.items()
        }
        return replace(template, fields=fields, start_anchor_re=timed(template.start_anchor_re))

    def _try_within(self, text: str, parser: str, options: dict[str, Any]) -> None:
        """The patterns of a region's own parser, which are searched without a time afterwards. TimeoutError."""
        values = [text]
        if parser == "xml-inline":
            tags = regex.finditer(options["tag_pattern"], text, flags=regex.DOTALL, timeout=self._time_left())
            values = [tag.groupdict().get("value") or "" for tag in tags]
        inner = options.get("value_parser") or {}
        for value in values if inner else ():
            self._try_within(value, inner.get("name", "text"), inner.get("args", {}))
