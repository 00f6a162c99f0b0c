"""Every number in the settings has a bound that makes sense, and every name is one that a file can have."""

import annotated_types
import pytest

from plumbob.configs.base import Settings
from plumbob.configs.load_run import load_eval, load_run
from plumbob.configs.runs import RUN_KINDS
from plumbob.configs.schema import element_groups_of, groups_of
from plumbob.core.errors import UserError


def numbers(annotation: object, metadata: tuple[object, ...]) -> list[tuple[type, tuple[object, ...]]]:
    """The int and float members of a field's type, each with the marks on it."""
    if annotation in (int, float):
        return [(annotation, metadata)]  # type: ignore[list-item]
    marks = metadata + tuple(getattr(annotation, "__metadata__", ()))
    arguments = getattr(annotation, "__args__", ())
    return [found for one in arguments for found in numbers(one, marks)]


def bounds(marks: tuple[object, ...]) -> tuple[bool, bool]:
    """Whether there is one below, and one above."""
    flat = [one for mark in marks for one in (mark, *getattr(mark, "metadata", ()))]
    return (
        any(isinstance(one, annotated_types.Ge | annotated_types.Gt) for one in flat),
        any(isinstance(one, annotated_types.Le | annotated_types.Lt) for one in flat),
    )


def all_groups() -> list[type[Settings]]:
    found: dict[type[Settings], None] = {}
    waiting: list[type[Settings]] = list(RUN_KINDS.values())
    while waiting:
        group = waiting.pop()
        if group not in found:
            found[group] = None
            for field in group.model_fields.values():
                waiting += groups_of(field.annotation) + element_groups_of(field.annotation)
    return list(found)


@pytest.mark.parametrize("group", all_groups())
def test_each_number_has_a_bound_below_and_above(group: type[Settings]) -> None:
    unbounded = {
        name
        for name, field in group.model_fields.items()
        for _, marks in numbers(field.annotation, tuple(field.metadata))
        if bounds(marks) != (True, True)
    }
    assert unbounded == set()


def test_the_walk_finds_numbers_wherever_they_are() -> None:
    class Unbounded(Settings):
        plain: int = 0
        optional: float | None = None
        several: tuple[int, ...] = ()
        text: str | bool = ""

    found = {name: numbers(field.annotation, tuple(field.metadata)) for name, field in Unbounded.model_fields.items()}
    assert {name: [kind for kind, _ in each] for name, each in found.items()} == {
        "plain": [int],
        "optional": [float],
        "several": [int],
        "text": [],
    }


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (f"seed={2**64}", "seed: expected a number less than 9.22337203685478e+18, found 18446744073709551616"),
        ("seed=-1", "seed: expected a number that is at least 0, found -1"),
        ("data.toy.num_pairs=1000000000000", "data.toy.num_pairs: expected a number that is at most 1,000,000"),
        ("policy.tuning.rank=1000000000", "policy.tuning.rank: expected a number that is at most 65,536"),
        ("learner.num_threads=1000000000000", "learner.num_threads: expected a number that is at most 4,096"),
        (
            "policy.model.hidden_size=1000000000",
            "policy.model.hidden_size: expected a number that is at most 1,0",
        ),
        ("learner.memory_gib=1e300", "learner.memory_gib: expected a number that is at most 1,000,000"),
        ("online.learning_rate=1e400", "online.learning_rate: expected a finite number, found inf"),
        ("storage.path=", "storage.path: expected text, found null"),
        ("storage.path=''", "storage.path: expected a name that is not empty, found the text ''"),
        ("storage.path='  '", "storage.path: expected a name that is not empty"),
        (
            f"storage.path={'x' * 300}",
            "storage.path: expected a path of at most 4095 bytes, each part",
        ),
        ("storage.path='~nosuchuser/a'", "storage.path: expected a path below the home of a user that there is"),
        ('storage.path="a\\0b"', "storage.path: expected a name without the character NUL"),
        (f"name={'x' * 300}", "name: expected at most 200 bytes"),
        (f"name=0x{'f' * 5000}", "name: expected text, found a number of more than a thousand digits"),
        (f"seed=0x{'f' * 5000}", "seed: "),
    ],
)
def test_what_no_run_can_have_is_refused_by_its_key(override: str, expected: str) -> None:
    with pytest.raises(UserError) as refused:
        load_run("toy", [override])
    assert f"command line: {expected}" in str(refused.value)
    assert len(str(refused.value)) < 1000


@pytest.mark.parametrize("key", ["policy.model", "reward.model", "data.prompts"])
@pytest.mark.parametrize("value", ["x" * 300, "~nosuchuser/a", '"a\\0b"', "''", "/".join("x" * 50)])
def test_names_of_models_and_files(key: str, value: str) -> None:
    given = {"policy.model": "a", "reward.model": "b", "data.prompts": "c"} | {key: value}
    if value == "/".join("x" * 50):
        load_eval([f"{name}={value}" for name, value in given.items()])
        return
    with pytest.raises(UserError, match=rf"{key}: expected a"):
        load_eval([f"{name}={value}" for name, value in given.items()])
