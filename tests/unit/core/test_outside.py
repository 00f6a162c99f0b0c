"""Whatever is raised at what comes from outside becomes one user error; what is ours, and Ctrl-C, passes."""

import ast
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from plumbob.core.errors import RunStopped, UserError
from plumbob.core.outside import MAX_REASON, from_outside, read_json_object
from tests.support.source_tree import modules, text

OPENERS = {"from_pretrained", "from_config", "from_peft_type", "safe_open", "load_file"}
"""What reads a model's files, or builds by them."""

OURS = {
    "trainers.learner.checkpoint_shards": "a run's own checkpoints, which have checksums and their own message",
    "models.merging.merged_model": "a model that it has written itself, which it reads back",
    "models.tuning.hosting": "an adapter that the learner publishes",
    "verify.rows.whole_system": "the table's own worlds",
}


@pytest.mark.parametrize("error", [KeyError("a"), ZeroDivisionError("by zero"), MemoryError(), OSError(13, "Denied")])
def test_no_type_of_error_is_expected(error: Exception) -> None:
    message = r"^policy\.model=x: cannot be read: .+; copy it again$"
    with pytest.raises(UserError, match=message), from_outside("policy.model=x: cannot be read", "copy it again"):
        raise error


def test_a_panic_of_a_library_in_rust_is_no_exception_and_is_told_all_the_same() -> None:
    """The tokenizers library's own: with this vocabulary it unwraps what is not there."""
    panic = type("PanicException", (BaseException,), {})
    with pytest.raises(UserError, match="x: called `Option::unwrap"), from_outside("x"):
        raise panic("called `Option::unwrap()` on a `None` value")
    with pytest.raises(UserError, match="x: "), from_outside("x"):
        Tokenizer.from_str("{")


@pytest.mark.parametrize("error", [UserError("a"), RunStopped("b"), KeyboardInterrupt(), SystemExit(3)])
def test_what_is_ours_or_ends_the_process_passes(error: BaseException) -> None:
    with pytest.raises(type(error)) as raised, from_outside("x"):
        raise error
    assert raised.value is error


def test_a_reason_is_one_line_of_bounded_length() -> None:
    with pytest.raises(UserError) as raised, from_outside("x"):
        raise ValueError("a" * 10_000 + "\nsecond")
    assert str(raised.value) == f"x: {'a' * MAX_REASON}..."


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"[1]", "expected a JSON object, found a list"),
        (b"{", "Expecting property name"),
        (b"\xff\xfe", "can't decode"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"a": 1' + b"0" * 5000 + b"}", "integer string conversion"),
    ],
)
def test_json_that_is_no_object(content: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match=f"cannot be read: .*{reason}.*; write it again"):
        read_json_object(tmp_path / "a.json", "a: cannot be read", "write it again")


def unguarded(source: str) -> list[str]:
    """Calls of openers that stand in no `with from_outside(...)`."""
    found = []

    def visit(node: ast.AST, guarded: bool) -> None:
        match node:
            case ast.With(items=items):
                guarded = guarded or any("from_outside(" in ast.unparse(item) for item in items)
            case ast.Call(func=ast.Attribute(attr=name) | ast.Name(id=name)) if name in OPENERS and not guarded:
                found.append(f"line {node.lineno}: {name}")
        for child in ast.iter_child_nodes(node):
            visit(child, guarded)

    visit(ast.parse(source), False)
    return found


@pytest.mark.parametrize("module", [module for module in modules() if module not in OURS])
def test_a_model_is_opened_only_where_whatever_is_raised_becomes_a_message(module: str) -> None:
    assert unguarded(text(module)) == []


def test_an_opener_outside_is_found() -> None:
    assert unguarded("with open(a):\n    AutoConfig.from_pretrained(b)") == ["line 2: from_pretrained"]
    assert unguarded("with from_outside('a'), x:\n    safe_open(b)") == []
