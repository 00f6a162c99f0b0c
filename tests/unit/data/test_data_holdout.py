import pytest

from configs.errors import UserError
from configs.inputs import Splitting
from data.holdout import hold_out
from data.readers import Read
from data.records import Prompt

FILES = {"train": ["a", "b", "c", "d"], "heldout": ["c", "e"], "apart": ["e"]}


def read(path: str) -> Read[Prompt]:
    records = tuple(Prompt(text, text) for text in FILES[path])
    return Read(records, len(records), 0, 0, 0, (f"note of {path}",))


def split(heldout: str | None, **rules: object):  # type: ignore[no-untyped-def]
    return hold_out(read, "train", heldout, lambda prompt: prompt.text, Splitting(**rules), seed=0)  # type: ignore


def test_a_share_is_held_out_where_no_file_is_given() -> None:
    found = split(None, heldout_fraction=0.25)
    # A quarter of four prompts is one.
    assert (len(found.train), len(found.heldout)) == (3, 1)
    assert {prompt.text for prompt in (*found.train, *found.heldout)} == {"a", "b", "c", "d"}
    assert found.notes == ("note of train",)
    assert split(None, heldout_fraction=0.0).heldout == ()


def test_a_file_of_its_own_is_taken_whole() -> None:
    found = split("apart", heldout_fraction=0.25)
    assert [prompt.text for prompt in found.train] == ["a", "b", "c", "d"]
    assert [prompt.text for prompt in found.heldout] == ["e"]
    assert found.notes == ("note of train", "note of apart")


def test_prompts_on_both_sides_are_refused_or_dropped_from_training() -> None:
    with pytest.raises(UserError, match=r"train and heldout: 1 prompts stand in both.*data\.overlap=drop"):
        split("heldout")
    found = split("heldout", overlap="drop")
    assert [prompt.text for prompt in found.train] == ["a", "b", "d"]
    assert [prompt.text for prompt in found.heldout] == ["c", "e"]
    assert len(found.notes) == 3 and "dropped from training" in found.notes[2]
