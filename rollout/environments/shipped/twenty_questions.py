"""Twenty questions about the cars of the toy world: the policy asks for facts, then names the car (`TwentyQuestions`).

A row has the `car` that is thought of. Rows of prompts::

    python -m plumbob.rollout.environments.shipped.twenty_questions [NUM_CARS] > prompts.jsonl
"""

import json
import random
import re
import sys
from collections.abc import Iterator
from typing import Any

from plumbob.data.toy_world.language import ATTRIBUTES, NAMES, Attribute, facts

KEYWORDS = {
    "speed": r"fast|speed",
    "seats": r"seats|people",
    "price": r"much|cost|price",
    "country": r"made|country|comes? from|build|built",
    "fuel": r"runs? on|fuel|powers",
    "year": r"year|when|launch|old",
}
"""Attribute of a car -> what a question about it has one of."""

PROMPT = "I am thinking of a car. Ask me about it, and then tell me its name."
UNKNOWN = "I do not know that."


class TwentyQuestions:
    """Answers questions about a car until it is named, or `num_questions` turns are over.

    A turn that names cars is a guess at the first of them. One with a value ("Does it have 5 seats?") is answered by
    yes or no, one about an attribute ("How fast is it?") by its value.

    Args:
        num_cars: of the world, by the order of their names.
        question_cost: what each turn that does not name the car costs; naming it gives 1.
    """

    def __init__(self, num_cars: int = len(NAMES), num_questions: int = 20, question_cost: float = 0.02) -> None:
        if not 1 <= num_cars <= len(NAMES):
            raise ValueError(f"num_cars={num_cars}: the world has {len(NAMES)} cars")
        self._names, self._left, self._cost = NAMES[:num_cars], num_questions, question_cost

    def reset(self, row: dict[str, Any], seed: int) -> list[dict[str, str]] | None:
        """The row's `car`, or one that the seed decides. None where the row has a prompt of its own."""
        self._car = row.get("car") or random.Random(seed).choice(self._names)
        if self._car not in self._names:
            raise ValueError(f"car={self._car}: the cars are {', '.join(self._names)}")
        return None if "prompt" in row else [{"role": "user", "content": PROMPT}]

    def step(self, turn: dict[str, Any]) -> dict[str, Any]:
        text = turn["content"]
        self._left -= 1
        guess = re.search(rf"\b(?:{'|'.join(self._names)})\b", text)
        if guess is not None and guess[0] == self._car:
            return {"reward": 1.0, "done": True}
        answer = "No." if guess is not None else self._answer(text)
        return {"messages": [{"role": "user", "content": answer}], "reward": -self._cost, "done": self._left <= 0}

    def _answer(self, question: str) -> str:
        known = facts()[self._car]
        for attribute in ATTRIBUTES:
            value = re.search(attribute.pattern, question)
            if value is not None:
                return "Yes." if value[0] == known[attribute.name] else "No."
        asked = attribute_in(question)
        return UNKNOWN if asked is None else f"{known[asked.name].capitalize()}."


def attribute_in(question: str) -> Attribute | None:
    """What a question is about: the attribute of the first of its words that belongs to one."""
    found = [(re.search(rf"\b(?:{KEYWORDS[one.name]})\b", question, re.IGNORECASE), one) for one in ATTRIBUTES]
    starts = [(match.start(), number) for number, (match, _) in enumerate(found) if match is not None]
    return found[min(starts)[1]][1] if starts else None


def rows(num_cars: int = len(NAMES)) -> Iterator[dict[str, Any]]:
    """One for each car; the environment asks them all the same."""
    for car in NAMES[:num_cars]:
        yield {"car": car}


if __name__ == "__main__":
    for row in rows(*map(int, sys.argv[1:2])):
        print(json.dumps(row))
