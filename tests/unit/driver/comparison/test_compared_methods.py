"""Which methods are compared, and how a user writes his own."""

import pytest

from plumbob.core.errors import UserError
from plumbob.driver.comparison.compared_methods import METHODS, ComparedMethod, chosen_methods


def test_all_unless_some_are_named() -> None:
    assert chosen_methods([], []) == METHODS
    assert [method.name for method in chosen_methods(["full", "lora"], [])] == ["full", "lora"]


def test_one_of_the_users_own_stands_alone_or_behind_those_that_are_named() -> None:
    own = ComparedMethod("lora-32", ("policy.tuning.rank=32", "sft.learning_rate=1e-4"))
    text = "lora-32: policy.tuning.rank=32 sft.learning_rate=1e-4"
    assert chosen_methods([], [text]) == (own,)
    assert chosen_methods(["lora"], [text])[-1] == own


@pytest.mark.parametrize(
    ("names", "own", "wanted"),
    [
        (["qlor"], [], "--methods qlor: did you mean qlora?"),
        ([], ["policy.tuning.rank=32"], "expected a name and settings"),
        ([], ["a/b: policy.tuning.rank=32"], "expected a name and settings"),
        ([], ["wide:"], "expected a name and settings"),
        (["lora"], ["lora: policy.tuning.rank=32"], "there is a method of that name already"),
    ],
)
def test_what_is_no_method(names: list[str], own: list[str], wanted: str) -> None:
    with pytest.raises(UserError, match=wanted):
        chosen_methods(names, own)
