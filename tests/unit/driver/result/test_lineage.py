"""Where a policy comes from, of the folders of two runs in a row."""

import json
from pathlib import Path

from plumbob.driver.result.lineage import lineage_of
from tests.support.libraries import write_sft_run

BY = {"user": "mira", "host": "head.internal", "pid": 7}


def events(run: Path, *told: dict[str, object]) -> None:
    (run / "events.jsonl").write_text(
        "".join(json.dumps({"time": "2026-12-01T10:00:00Z", **each}) + "\n" for each in told)
    )


def test_each_stage_stands_with_what_it_read_and_who_decided(base: str, tmp_path: Path) -> None:
    first = write_sft_run(tmp_path / "first", base)
    second = write_sft_run(tmp_path / "second", base, {"policy.model": first / "policy", "seed": 4})
    events(
        first,
        {"event": "started", "by": BY, "name": "first"},
        {"event": "saved", "by": BY, "step": 3},
        {"event": "steered", "by": {**BY, "user": "jo"}, "what": "stop at /home/mira/plan.txt"},
        {"event": "failed", "by": BY, "why": "the disk is full"},
    )
    lineage = lineage_of(second / "policy")
    newest, oldest = lineage["stages"]
    assert [(each["run"], each["stage"], each["seed"]) for each in (newest, oldest)] == [
        ("second", "sft", 4),
        ("first", "sft", 0),
    ]
    assert lineage["began_from"] == Path(base).name
    (rows,) = oldest["inputs"]
    digests = json.loads((first / "inputs.json").read_text())
    assert (rows["setting"], rows["file"]) == ("data.demonstrations", "rows.jsonl") and rows[
        "digest"
    ] in digests.values()
    assert set(oldest["packages"]) >= {"torch", "transformers", "peft"}
    when = "2026-12-01T10:00:00Z"
    assert oldest["decisions"] == [
        {"time": when, "event": "started", "by": "mira"},
        {"time": when, "event": "steered", "by": "jo", "what": "left out: it names a place"},
        {"time": when, "event": "failed", "by": "mira", "why": "the disk is full"},
    ]
    assert newest["decisions"] == []
    # Nothing of the machine: neither folders nor hosts.
    assert str(tmp_path) not in json.dumps(lineage) and "head.internal" not in json.dumps(lineage)


def test_a_policy_that_no_run_wrote_has_none(base: str) -> None:
    assert lineage_of(Path(base)) == {"policy": Path(base).name, "stages": [], "began_from": None}


def test_files_of_one_setting_and_models_that_are_called_alike_stand_apart(base: str, tmp_path: Path) -> None:
    run = write_sft_run(tmp_path / "one", base)
    files = {f"data.mixture={tmp_path}/{part}/rows.jsonl": f"digest of {part}" for part in "ab"}
    (run / "inputs.json").write_text(json.dumps(files))
    models = {f"{tmp_path}/{part}/policy": {"config.json": part} for part in "ab"} | {"team/base": {}}
    (run / "models.json").write_text(json.dumps(models))
    (run / "events.jsonl").write_text("no JSON\n")
    (stage,) = lineage_of(run / "policy")["stages"]
    assert stage["inputs"] == [
        {"setting": "data.mixture", "file": "rows.jsonl", "digest": f"digest of {part}"} for part in "ab"
    ]
    assert [(each["model"], each["files"]) for each in stage["models"]] == [
        *[("policy", {"config.json": part}) for part in "ab"],
        ("team/base", {}),
    ]
    assert stage["decisions"] == "missing: events.jsonl is not as a run writes it"
    assert str(tmp_path) not in json.dumps(stage["inputs"]) + json.dumps(stage["models"])
