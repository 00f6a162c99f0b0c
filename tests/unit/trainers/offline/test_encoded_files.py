"""Stages that learn from a mixture of files: what is read, said and shown, and in which order it is taken."""

import json
from pathlib import Path

import pytest

from plumbob.configs.runs import DpoRun, SftRun
from plumbob.configs.settings.data import DemonstrationDataSettings, TokenizedPairDataSettings
from plumbob.configs.settings.models import AlignedPolicySettings, PolicySettings
from plumbob.configs.settings.training import SftSettings
from plumbob.core.errors import UserError
from plumbob.data.record_digest import Inputs
from plumbob.trainers.offline.dpo import prepare_dpo
from plumbob.trainers.offline.input_digests import inputs_of
from plumbob.trainers.offline.sft import prepare_sft
from tests.support.tiny_policy import write_policy


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_policy(tmp_path_factory.mktemp("policy"))


def write(path: Path, letters: str) -> str:
    """A row for each letter, which is the response."""
    path.write_text("".join(f"{json.dumps({'prompt': f'{letter}?', 'completion': letter})}\n" for letter in letters))
    return str(path)


def run_of(policy: str, mixture: dict[str, float], **data: object) -> SftRun:
    settings = DemonstrationDataSettings(mixture=mixture, **{"heldout_fraction": 0, **data})  # type: ignore[arg-type]
    return SftRun(data=settings, policy=PolicySettings(model=policy), sft=SftSettings(batch_size=2))


def test_files_in_shares_are_noted_and_shown(tmp_path: Path, policy: str) -> None:
    large, small = write(tmp_path / "large.jsonl", "abcdef"), write(tmp_path / "small.jsonl", "xy")
    data = prepare_sft(run_of(policy, {large: 1, small: 1}))
    assert data.mixture is not None
    assert (data.mixture.sizes, data.mixture.weights, data.mixture.num_slots) == ((6, 2), (1, 1), (4, 4))
    assert data.notes == (
        f"data.mixture: 4 of the 8 records of an epoch (50.0%) are of {large}: each of its 6 is used 0.667 times.",
        f"data.mixture: 4 of the 8 records of an epoch (50.0%) are of {small}: each of its 2 is used 2 times.",
    )
    shown = [(row.setting, row.num_records, [part.text for part in row.parts]) for row in data.rows]
    assert shown == [
        (f"data.mixture={large}", 6, ["a?", "a<eos>"]),
        (f"data.mixture={small}", 2, ["x?", "x<eos>"]),
    ]


def test_each_file_is_known_again_by_itself(tmp_path: Path, policy: str) -> None:
    files = [write(tmp_path / "one.jsonl", "abcd"), write(tmp_path / "two.jsonl", "uvwx")]
    run = run_of(policy, dict.fromkeys(files, 1.0), heldout_fraction=0.25)

    def read() -> Inputs:
        data = prepare_sft(run)
        assert (len(data.train), len(data.heldout)) == (6, 2)
        return inputs_of(run.data, "demonstrations", data.train, data.heldout, mixture=data.mixture)

    began = read()
    read().check(began.digests)
    for file in files:
        before = Path(file).read_text()
        Path(file).write_text(before.replace('"completion": "', '"completion": "z'))
        with pytest.raises(UserError, match=rf"^data\.mixture={file}[:,].*the records are not those"):
            read().check(began.digests)
        Path(file).write_text(before)


def test_what_is_wrong_with_a_file_of_several_names_it(tmp_path: Path, policy: str) -> None:
    good, absent = write(tmp_path / "good.jsonl", "abcdefgh"), str(tmp_path / "absent.jsonl")
    with pytest.raises(UserError) as refused:
        prepare_sft(run_of(policy, {good: 1, absent: 1}))
    assert str(refused.value).startswith(f"{absent}: does not exist. Expected a file, a folder or a glob")
    long = write(tmp_path / "long.jsonl", "z")
    Path(long).write_text('{"prompt": "a very long question", "completion": "z"}\n')
    with pytest.raises(UserError, match=rf"^{long}: no demonstrations are left to use.*data\.max_prompt_tokens=4"):
        prepare_sft(run_of(policy, {good: 1, long: 1}, max_prompt_tokens=4))
    Path(long).write_text(
        '{"prompt": "a very long question", "completion": "z"}\n{"prompt": "z?", "completion": "z"}\n'
    )
    notes = prepare_sft(run_of(policy, {good: 1, long: 1}, max_prompt_tokens=4)).notes
    assert notes[0].startswith(f"{long}: 1 of 2 demonstrations dropped")
    with pytest.raises(UserError, match=rf"the weight 0\.01 of {long}, of 1\.01 in all, gives it none of the 10"):
        prepare_sft(run_of(policy, {good: 1, long: 0.01}))


def test_pairs_of_several_files(tmp_path: Path, policy: str) -> None:
    def pairs(name: str, letters: str) -> str:
        path = tmp_path / f"{name}.jsonl"
        rows = ({"prompt": f"{letter}?", "chosen": letter, "rejected": "no"} for letter in letters)
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        return str(path)

    one, two, apart = pairs("one", "abc"), pairs("two", "z"), pairs("apart", "q")
    data = TokenizedPairDataSettings(mixture={one: 1, two: 3}, heldout_pairs=apart)
    found = prepare_dpo(DpoRun(data=data, policy=AlignedPolicySettings(model=policy)))
    assert found.mixture is not None and found.mixture.num_slots == (1, 3)
    assert [row.setting for row in found.rows] == [f"data.mixture={one}", f"data.mixture={two}"]
    assert len(found.train) == 4 and len(found.heldout) == 1
