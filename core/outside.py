"""What comes from outside: whatever a library raises at a hostile or damaged file becomes one message to the user."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from plumbob.core.errors import RunFailed, UserError, first_line

MAX_REASON = 300
"""Letters of a library's reason that a message repeats: some repeat their whole input."""

MAX_JSON_BYTES = 64 * 2**20
"""Of a file that is one JSON object, such as a config or an index of weights."""

MAX_JSON_DEPTH = 64
"""Of lists and objects in one another within a value: what walks over it calls itself as often."""


@contextmanager
def from_outside(what: str, fix: str = "") -> Iterator[None]:
    """Around a library that reads what others wrote: no type of error is expected of it.

    A panic of the libraries written in Rust (tokenizers, safetensors) is no Exception, but is one of these too.

    Args:
        what: setting, file and what cannot be done with it: the beginning of the message.
        fix: the end of the message.

    Raises:
        UserError: whatever was raised inside, by the first line of what it says. Our own errors pass as they are.
    """
    try:
        yield
    except (UserError, RunFailed):
        raise
    except Exception as error:
        raise _refusal(what, error, fix) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise _refusal(what, error, fix) from error


def read_json_object(path: Path, what: str, fix: str = "") -> dict[str, Any]:
    """The JSON object in a file. Raises UserError, as `from_outside`, when it cannot be read or holds another thing."""
    with from_outside(what, fix):
        if path.stat().st_size > MAX_JSON_BYTES:
            raise ValueError(f"{path.name} has more than {MAX_JSON_BYTES // 2**20} MiB")
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"{path.name}: expected a JSON object, found a {type(content).__name__}")
        return content


def is_deeper(value: object, depth: int) -> bool:
    """Whether lists and objects lie in one another more than `depth` times."""
    match value:
        case dict():
            return depth == 0 or any(is_deeper(field, depth - 1) for field in value.values())
        case list():
            return depth == 0 or any(is_deeper(item, depth - 1) for item in value)
        case _:
            return False


def reason_of(error: BaseException) -> str:
    """The first line of what an error says, cut to a length that a message can hold."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply, or names itself"
    reason = first_line(error)
    if isinstance(error, LookupError | TypeError | AttributeError):  # Whose texts alone say little.
        reason = f"{type(error).__name__}: {reason}"
    return reason if len(reason) <= MAX_REASON else f"{reason[:MAX_REASON]}..."


def _refusal(what: str, error: BaseException, fix: str) -> UserError:
    return UserError(f"{what}: {reason_of(error)}" + (f"; {fix}" if fix else ""))
