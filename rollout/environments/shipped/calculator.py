"""Arithmetic with a calculator: the policy writes a calculation, is told the result, and answers (`Calculator`).

A row has an `expression`, such as "37 * 46", and `tools` for the chat template. The environment asks the question, so
that it is a user's turn. Rows of prompts::

    python -m plumbob.rollout.environments.shipped.calculator COUNT SEED [DIGITS] > prompts.jsonl
"""

import ast
import json
import operator
import random
import re
import sys
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

MAX_LETTERS = 200
MAX_EXPONENT = 64
MAX_NUMBER = 10**30
"""Of what is calculated with: what is larger is an error."""

TOOL = {
    "type": "function",
    "function": {
        "name": "calculator",
        "description": "Calculates with whole numbers and fractions.",
        "parameters": {
            "type": "object",
            "properties": {"expression": {"type": "string", "description": 'Such as "37 * 46".'}},
            "required": ["expression"],
        },
    },
}
"""What a chat template is given as `tools`."""

_CALL = re.compile(r"calculate *\(([^\n]*)\)")
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+|/\d+)?")
_OPERATORS: dict[type[ast.AST], Any] = {
    **{ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv},
    **{ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.USub: operator.neg, ast.UAdd: operator.pos},
}


class Calculator:
    """The policy calls the tool `calculator`, or writes `calculate(37 * 46)`; any other turn is its answer.

    The last number of the answer is compared with the true result: 1 where it is that, else 0.

    Args:
        role: of the messages with results: "tool", or "user" for chat templates that know no tools.
    """

    def __init__(self, role: str = "tool") -> None:
        self._role = role

    def reset(self, row: dict[str, Any], seed: int) -> list[dict[str, str]] | None:
        """None where the row has a prompt of its own."""
        self._truth = calculated(row["expression"])
        if "prompt" in row:
            return None
        return [{"role": "user", "content": question(row["expression"])}]

    def step(self, turn: dict[str, Any]) -> dict[str, Any]:
        calls = [(call["id"], call["function"]) for call in turn.get("tool_calls", ())]
        if calls:
            return {"messages": [self._result(function, tool_call_id=id_) for id_, function in calls]}
        written = _CALL.search(turn["content"])
        if written is not None:
            return {"messages": [self._result({"name": "calculator", "arguments": {"expression": written[1]}})]}
        return {"reward": 1.0 if answer_in(turn["content"]) == self._truth else 0.0, "done": True}

    def _result(self, function: dict[str, Any], **ids: str) -> dict[str, str]:
        expression = function["arguments"].get("expression")
        if function["name"] != "calculator" or not isinstance(expression, str):
            content = "error: the tool is calculator(expression)"
        else:
            try:
                content = str(calculated(expression))
            except ValueError as error:
                content = f"error: {error}"
        return {"role": self._role, "content": content, **(ids if self._role == "tool" else {})}


def question(expression: str) -> str:
    return f"What is {expression}?"


def calculated(expression: str) -> Fraction:
    """The value, exactly: + - * / // % ** and brackets. Raises ValueError, which says what is wrong."""
    if len(expression) > MAX_LETTERS:
        raise ValueError(f"more than {MAX_LETTERS} letters")
    try:
        return _value(ast.parse(expression.strip(), mode="eval").body)
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError("this is no calculation") from error
    except ZeroDivisionError as error:
        raise ValueError("division by zero") from error


def answer_in(text: str) -> Fraction | None:
    """The last number."""
    found = _NUMBER.findall(text)
    try:
        return Fraction(found[-1].replace(",", "")) if found else None
    except (ValueError, ZeroDivisionError):
        return None


def _value(node: ast.expr) -> Fraction:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool) and abs(number) < MAX_NUMBER:
            return Fraction(str(number))
        case ast.UnaryOp(op=sign, operand=operand) if type(sign) in _OPERATORS:
            return Fraction(_OPERATORS[type(sign)](_value(operand)))
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            base, exponent = _value(left), _value(right)
            if exponent.denominator != 1 or abs(exponent) > MAX_EXPONENT:
                raise ValueError(f"an exponent is a whole number of at most {MAX_EXPONENT}")
            return _bounded(base ** int(exponent))
        case ast.BinOp(left=left, op=between, right=right) if type(between) in _OPERATORS:
            return _bounded(Fraction(_OPERATORS[type(between)](_value(left), _value(right))))
        case _:
            raise ValueError("only numbers, + - * / // % ** and brackets are known")


def _bounded(value: Fraction) -> Fraction:
    if max(abs(value.numerator), value.denominator) > MAX_NUMBER:
        raise ValueError("the number is too large")
    return value


def rows(count: int, seed: int, digits: int = 3) -> Iterator[dict[str, Any]]:
    """Different rows: products and sums of two numbers of so many digits, with the tool's description."""
    rng, low = random.Random(seed), 10 ** (digits - 1)
    made: set[str] = set()
    for _ in range(100 * count):
        if len(made) == count:
            return
        expression = f"{rng.randrange(low, 10 * low)} {rng.choice('*+-')} {rng.randrange(low, 10 * low)}"
        if expression not in made:
            made.add(expression)
            yield {"expression": expression, "tools": [TOOL]}
    raise ValueError(f"there are not {count} different rows of {digits} digits")


if __name__ == "__main__":
    for row in rows(*map(int, sys.argv[1:4])):
        print(json.dumps(row))
