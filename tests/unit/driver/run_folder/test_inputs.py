"""A run resumes on the rows that it began with, and on no others."""

import hashlib
import json
from pathlib import Path

import pytest

from plumbob.configs.base import IsFunction
from plumbob.configs.paths import named_inputs
from plumbob.configs.resolved_copy import read_begun, write_resolved
from plumbob.configs.runs import OnlineRun, PretrainRun, Run, SftRun
from plumbob.configs.schema import marked_texts
from plumbob.configs.settings.data import (
    DemonstrationDataSettings,
    PromptDataSettings,
    ReplaySettings,
    RetentionSettings,
    TextDataSettings,
)
from plumbob.configs.settings.models import (
    AlignedPolicySettings,
    NewLlamaSettings,
    PolicySettings,
    PretrainedPolicySettings,
)
from plumbob.configs.settings.programs.reward_programs import FunctionPart
from plumbob.configs.settings.rewards import ScorerSettings
from plumbob.core.errors import UserError
from plumbob.core.programs.function_source import changed_sources, source_digests
from plumbob.driver.run_folder.inputs import INPUTS_FILE, check_rows, check_sources, new_digests, write_digests

ROWS = [{"text": f"car {number} has a door", "source": "toy", "id": number} for number in range(200)]


def write(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def run_on(path: Path) -> PretrainRun:
    policy = PretrainedPolicySettings(model=NewLlamaSettings())
    return PretrainRun(data=TextDataSettings(text=str(path)), policy=policy)


def begin(config: Run, folder: Path) -> None:
    folder.mkdir()
    write_digests(new_digests(named_inputs(config), folder), folder)


def test_a_changed_row_is_refused_with_its_setting_file_and_fix(tmp_path: Path) -> None:
    file, folder = tmp_path / "text.jsonl", tmp_path / "run"
    write(file, ROWS)
    begin(run_on(file), folder)
    write(file, [dict(reversed(row.items())) for row in ROWS])
    check_rows(named_inputs(run_on(file)), folder)
    for rows in ([*ROWS[:-1], ROWS[-1] | {"text": "other"}], ROWS[:-1], [*ROWS, ROWS[0]], ROWS[::-1]):
        write(file, rows)
        with pytest.raises(UserError) as refused:
            check_rows(named_inputs(run_on(file)), folder)
        assert str(refused.value) == (
            f"data.text={file}: the records are not those that the run began with: a run is resumed on the same files, "
            f"limits, tokenizer, seed and version of Plumbob. Put them back, or start a new run"
        )


def test_every_file_of_a_run_counts(tmp_path: Path) -> None:
    files = {name: tmp_path / f"{name}.txt" for name in ("asked", "heldout", "kept", "again")}
    for name, file in files.items():
        file.write_text(name)
    config = OnlineRun(
        data=PromptDataSettings(prompts=str(files["asked"]), heldout_prompts=str(files["heldout"])),
        policy=AlignedPolicySettings(model="team/policy"),
        reward=ScorerSettings(model="team/reward"),
        retention=RetentionSettings(text=str(files["kept"])),
        replay=ReplaySettings(text=str(files["again"])),
    )
    folder = tmp_path / "run"
    folder.mkdir()
    digests = new_digests(named_inputs(config), folder)[INPUTS_FILE]
    settings = ["data.prompts", "data.heldout_prompts", "retention.text", "replay.text"]
    assert sorted(digests) == sorted(settings) and len(set(digests.values())) == 4
    (folder / INPUTS_FILE).write_text(json.dumps(digests))
    for setting, file in zip(settings, files.values(), strict=True):
        before = file.read_text()
        file.write_text(f"{before}\n\nmore")
        with pytest.raises(UserError, match=rf"^{setting}={file}: the records are not those"):
            check_rows(named_inputs(config), folder)
        file.write_text(before)
    check_rows(named_inputs(config), folder)


def test_each_file_of_a_mixture_counts(tmp_path: Path) -> None:
    files = [tmp_path / f"{name}.jsonl" for name in ("one", "two")]
    for file in files:
        write(file, [{"prompt": file.stem, "completion": "c"}])
    data = DemonstrationDataSettings(mixture={str(file): 1.0 for file in files})
    config = SftRun(data=data, policy=PolicySettings(model="team/policy"))
    begin(config, tmp_path / "run")
    assert sorted(json.loads((tmp_path / "run" / INPUTS_FILE).read_text())) == [
        f"data.mixture={path}" for path in files
    ]
    for file in files:
        before = file.read_text()
        write(file, [{"prompt": file.stem, "completion": "other"}])
        with pytest.raises(UserError, match=rf"^data\.mixture={file}: the records are not those"):
            check_rows(named_inputs(config), tmp_path / "run")
        file.write_text(before)
    check_rows(named_inputs(config), tmp_path / "run")


def test_a_run_that_was_begun_before_there_were_digests_resumes_and_keeps_them(tmp_path: Path) -> None:
    file, folder = tmp_path / "text.jsonl", tmp_path / "run"
    write(file, ROWS)
    folder.mkdir()
    check_rows(named_inputs(run_on(file)), folder)
    write_digests(new_digests(named_inputs(run_on(file)), folder), folder)
    assert new_digests(named_inputs(run_on(file)), folder) == {}
    (folder / INPUTS_FILE).write_text("{")
    with pytest.raises(
        UserError, match=r"inputs\.json: expected digests as JSON: .*; delete it to resume with the rows"
    ):
        check_rows(named_inputs(run_on(file)), folder)


def compared(config: OnlineRun, folder: Path) -> None:
    named = named_inputs(config)
    check_sources(named, changed_sources(source_digests(named.functions), read_begun(folder).sources))


def test_a_changed_reward_function_is_refused(tmp_path: Path) -> None:
    file, folder = tmp_path / "my_reward.py", tmp_path / "run"
    file.write_text("def score(prompt, response): return 1.0")
    config = OnlineRun(
        data=PromptDataSettings(prompts="unused"),
        policy=AlignedPolicySettings(model="team/policy"),
        reward=ScorerSettings(parts=(FunctionPart(function=f"{file}:score"),)),
    )
    compared(config, folder)  # Nothing has begun there.
    write_resolved(config, folder, None, source_digests(marked_texts(config, IsFunction)))
    sources = json.loads((folder / "resolved.json").read_text())["sources"]
    assert sources == {f"{file}:score": hashlib.sha256(file.read_bytes()).hexdigest()}
    compared(config, folder)
    file.write_text("def score(prompt, response): return 2.0")
    with pytest.raises(UserError) as refused:
        compared(config, folder)
    assert str(refused.value) == (
        f"reward.parts.0.function={file}:score: {file} is not the source that the run began with, and may do "
        f"otherwise. Put it back, or start a new run"
    )
    write_resolved(config, folder)
    assert json.loads((folder / "resolved.json").read_text())["sources"] == sources
    file.unlink()
    with pytest.raises(UserError, match="there is no such file"):
        compared(config, folder)
