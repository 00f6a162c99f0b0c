import pytest
from hypothesis import given
from hypothesis import strategies as st

from plumbob.configs.settings.data import SplittingSettings
from plumbob.configs.settings.stewardship.data_checks import DataCheckSettings
from plumbob.core.errors import UserError
from plumbob.data.reading.row_sorting import ReadRecords
from plumbob.data.records import PreferencePair, Prompt
from plumbob.data.splitting import check_overlap, hold_out, hold_out_each, split_by_prompt

FILES = {"train": ["a", "b", "c", "d"], "heldout": ["c", "e"], "apart": ["e"]}


def read(path: str) -> ReadRecords[Prompt]:
    records = tuple(Prompt(text, text) for text in FILES[path])
    return ReadRecords(records, len(records), 0, 0, 0, (f"note of {path}",))


def split(heldout: str | None, **rules: object):  # type: ignore[no-untyped-def]
    return hold_out(read, "train", heldout, lambda prompt: prompt.text, SplittingSettings(**rules), seed=0)  # type: ignore


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


def test_of_several_files_a_prompt_is_on_one_side_in_all() -> None:
    files = {"one": ["a", "b", "c", "d"], "two": ["c", "d", "e"]}

    def read_file(path: str) -> ReadRecords[tuple[str, str]]:
        return ReadRecords(tuple((path, text) for text in files[path]), len(files[path]), 0, 0, 0, (f"of {path}",))

    rules = SplittingSettings(heldout_fraction=0.4)
    found = hold_out_each(read_file, ("one", "two"), None, lambda record: record[1], rules, seed=1)
    # Two fifths of five prompts.
    apart = {text for _, text in found.heldout}
    assert len(apart) == 2 and found.notes == ("of one", "of two")
    for path, records in zip(files, found.train, strict=True):
        assert [text for _, text in records] == [text for text in files[path] if text not in apart]
        assert {name for name, _ in records} == {path}
    assert sorted(found.heldout) == sorted((path, text) for path in files for text in files[path] if text in apart)
    files["two"] = sorted(apart)
    with pytest.raises(UserError, match=r"^two: all its prompts are held out, .*data\.heldout_fraction=0\.4"):
        hold_out_each(read_file, ("one", "two"), None, lambda record: record[1], rules, seed=1)
    overlap = SplittingSettings(overlap="drop")
    files |= {"two": ["x", "c"], "apart": ["c"]}
    beside = hold_out_each(read_file, ("one", "two"), "apart", lambda record: record[1], overlap, seed=1)
    assert [[text for _, text in records] for records in beside.train] == [["a", "b", "d"], ["x"]]
    assert beside.heldout == (("apart", "c"),) and len(beside.notes) == 5


def pair(prompt: str, chosen: str = "a") -> PreferencePair:
    return PreferencePair(prompt, chosen, "b")


def prompt_of(record: PreferencePair) -> str:
    return record.prompt


@given(
    names=st.lists(st.integers(0, 12), min_size=2, max_size=40),
    fraction=st.floats(0, 0.9),
    seed=st.integers(0, 5),
    shuffle=st.randoms(),
)
def test_no_prompt_is_on_both_sides_and_order_does_not_matter(names, fraction, seed, shuffle) -> None:  # type: ignore
    records = [pair(str(name), str(place)) for place, name in enumerate(names)]
    train, heldout = split_by_prompt(records, prompt_of, fraction, seed)
    apart = {record.prompt for record in heldout}
    assert apart.isdisjoint(record.prompt for record in train)
    assert sorted([*train, *heldout], key=lambda r: int(r.chosen)) == records
    assert train
    assert bool(heldout) == (fraction > 0 and len(set(names)) > 1)
    again = list(records)
    shuffle.shuffle(again)
    assert {record.prompt for record in split_by_prompt(again, prompt_of, fraction, seed)[1]} == apart


def test_the_share_is_of_prompts_and_the_seed_chooses_them() -> None:
    records = [pair(str(number % 100)) for number in range(1000)]
    sides = [split_by_prompt(records, prompt_of, 0.2, seed) for seed in (0, 1)]
    # 20 of 100 prompts with 10 records each.
    assert [len(heldout) for _, heldout in sides] == [200, 200]
    assert sides[0][1] != sides[1][1]


def test_overlap_is_refused_or_dropped_from_training() -> None:
    train = [pair("x"), pair("y"), pair("x", "c"), pair("z")]
    heldout = [pair("x", "d"), pair("y"), pair("w")]
    what = "data.pairs and data.heldout_pairs"
    found = r"data\.pairs and data\.heldout_pairs: 2 prompts stand in both, in 3 of 4 training records, such as 'x'"
    with pytest.raises(UserError, match=found + r".*data\.overlap=drop"):
        check_overlap(train, heldout, prompt_of, SplittingSettings(), what)
    kept, (note,) = check_overlap(train, heldout, prompt_of, SplittingSettings(overlap="drop"), what)
    assert kept == [pair("z")]
    assert "2 prompts stand in both" in note and "dropped from training" in note
    with pytest.raises(UserError, match="leaves nothing to train on"):
        check_overlap(train[:2], heldout, prompt_of, SplittingSettings(overlap="drop"), what)


def test_sides_without_a_common_prompt_pass_without_a_note() -> None:
    assert check_overlap([pair("x")], [pair("y")], prompt_of, SplittingSettings(), "both") == ([pair("x")], ())


LONG = "tell me in a few plain words why the sea is salty and whether the rivers that feed it are salty too"
"""Twenty-one words: nineteen shingles. One other last word leaves 18 of 20 alike."""


def test_a_prompt_that_is_nearly_held_out_is_refused_or_dropped_as_one_that_is() -> None:
    train, heldout = [pair("x"), pair(LONG.replace("too", "also"))], [pair(LONG), pair("y")]
    with pytest.raises(UserError, match=r"both: 1 prompts of 1 of 2 .* nearly .*data\.checks\.near_duplicates=drop"):
        check_overlap(train, heldout, prompt_of, SplittingSettings(), "both")
    drop = SplittingSettings(checks=DataCheckSettings(near_duplicates="drop"))
    kept, (note,) = check_overlap(train, heldout, prompt_of, drop, "both")
    assert kept == train[:1] and "dropped from training" in note


def test_of_a_share_that_is_held_out_what_is_nearly_there_is_dropped() -> None:
    texts = [f"{LONG} {ending}" for ending in ("a", "b")] + ["c", "d"]
    FILES["near"] = texts
    for seed in range(4):
        found = hold_out(read, "near", None, lambda prompt: prompt.text, SplittingSettings(heldout_fraction=0.3), seed)
        (held,) = (prompt.text for prompt in found.heldout)
        kept = [prompt.text for prompt in found.train]
        near = [text for text in texts[:2] if text != held] if held in texts[:2] else []
        assert kept == [text for text in texts if text != held and text not in near]
        assert len(found.notes) == 1 + bool(near)
