"""Judges behind an endpoint, and what they say."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from plumbob.configs.settings.reward_services import LlmJudgePart
from tests.support.http_endpoint import Answer, http_endpoint


def said(content: str) -> Answer:
    usage = {"prompt_tokens": 30, "completion_tokens": 5}
    return 200, {"choices": [{"message": {"role": "assistant", "content": content}}], "usage": usage}


@contextmanager
def judging(verdict: Callable[[str], Any], **settings: Any) -> Iterator[LlmJudgePart]:
    """A judge whose verdict is a function of the question."""

    def answer(body: Any, _: Any) -> Answer:
        return said(json.dumps({"verdict": verdict(body["messages"][0]["content"])}))

    with http_endpoint(answer) as url:
        yield LlmJudgePart(url=f"{url}/v1", model="m", rubric="How polite is it?", retries=0, **settings)
