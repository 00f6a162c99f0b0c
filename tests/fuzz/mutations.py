"""Small changes to text, bytes and JSON, drawn from a generator: the same one draws the same change."""

import copy
import random
from typing import Any

VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1.5,
        2**31,
        2**63,
        2**64,
        10**12,
        10**310,
        -(10**40),
        1e308,
        float("nan"),
        float("inf"),
    ),
    *("", "x", "~nosuchuser/a", "package:a.b/c", "\ud83d", "\0", "x" * 300, "../..", "{{ 1 / 0 }}", "1" * 5000),
    *([], {}, [[]], [None], {"": ""}, {"kind": "x"}, {"a": {"b": [1, {"c": None}]}}, [1, "a"]),
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{{ 'a' * 10000000 }}",
    "{% include 'a' %}",
)
TOKENS = (
    b"&a ",
    b"*a",
    b"!!int ",
    b"!!python/object:os ",
    b"0x_",
    b"[" * 100,
    b"{",
    b"\0",
    b"\xff",
    b"- ",
    b": ",
    b"\n",
)


def mutated_bytes(rng: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.randint(1, 6)):
        at = rng.randint(0, len(changed))
        match rng.randrange(6):
            case 0:
                changed[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                del changed[at : at + rng.randint(1, 16)]
            case 2:
                changed[at:at] = rng.choice(TOKENS)
            case 3:
                changed[at : at + 4] = rng.choice((2**31 - 1, 2**30, 0, 2**32 - 1)).to_bytes(4, "little")
            case 4:
                changed[at:at] = changed[: rng.randint(0, min(len(changed), 64))]
            case _:
                del changed[at + 1 if rng.random() < 0.1 else len(changed) :]
    return bytes(changed)


def mutated_json(rng: random.Random, value: Any) -> Any:
    """With one or two of its parts replaced, taken away or put in twice."""
    changed = copy.deepcopy(value)
    for _ in range(rng.randint(1, 2)):
        changed = _changed(rng, changed)
    return changed


def _changed(rng: random.Random, value: Any) -> Any:
    if isinstance(value, dict | list) and value and rng.random() < 0.9:
        key = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
        match rng.randrange(6):
            case 0:
                del value[key]
            case 1 if isinstance(value, dict):
                value[str(rng.choice(VALUES))[:400]] = rng.choice(VALUES)
            case _:
                value[key] = _changed(rng, value[key])
        return value
    if rng.random() < 0.02:
        for _ in range(2000):
            value = [value]
            if rng.random() < 0.002:
                break
        return value if _depth(value) < 900 else "deep"
    return copy.deepcopy(rng.choice(VALUES))


def _depth(value: Any) -> int:
    depth = 0
    while isinstance(value, list) and value:
        value, depth = value[0], depth + 1
    return depth


def mutated_yaml(rng: random.Random, text: str) -> bytes:
    """Lines taken away, doubled, given another value or another depth; then, at times, bytes."""
    lines = text.splitlines()
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(lines))
        key, colon, _ = lines[at].partition(":")
        match rng.randrange(5):
            case 0 if len(lines) > 1:
                del lines[at]
            case 1:
                lines.insert(at, lines[at])
            case 2:
                lines[at] = " " * rng.randint(0, 6) + lines[at].strip()
            case 3:
                lines[at] = f"{key}: {rng.choice(('&a [*a]', '0x_', '!!int x', '1' * 5000, '[' * 900, '*b', '{a: 1}'))}"
            case _ if colon:
                lines[at] = f"{key}: {str(rng.choice(VALUES)).encode(errors='replace').decode()}"
            case _:
                pass
    content = "\n".join(lines).encode()
    return mutated_bytes(rng, content) if rng.random() < 0.3 else content
