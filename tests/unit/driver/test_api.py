"""What a run is given before it starts."""

import json
from pathlib import Path
from typing import Any

import pytest
import ray

from plumbob.cluster.session import Session
from plumbob.configs.load_run import load_run
from plumbob.configs.paths import named_inputs, with_absolute_paths
from plumbob.configs.resolved_copy import write_resolved
from plumbob.configs.runs import EvalRun, OnlineRun, PipelineRun, PretrainRun, SftRun
from plumbob.configs.settings.data import (
    DemonstrationDataSettings,
    EvalDataSettings,
    PipelineDataSettings,
    PromptDataSettings,
    ReplaySettings,
    RetentionSettings,
    TextDataSettings,
    ToyWorldSettings,
)
from plumbob.configs.settings.models import (
    AlignedPolicySettings,
    EvaluatedPolicySettings,
    NewBertSettings,
    NewLlamaSettings,
    PipelinePolicySettings,
    PolicySettings,
    PretrainedPolicySettings,
)
from plumbob.configs.settings.rewards import GoldRewardSettings, PipelineScorerSettings, ScorerSettings
from plumbob.configs.settings.training import SftSettings
from plumbob.configs.settings.tuning.adapters import LoraTuning
from plumbob.configs.settings.workers import ClusterSettings, RolloutSettings, StorageSettings
from plumbob.console.cli import main
from plumbob.core.errors import UserError
from plumbob.driver import execution
from plumbob.driver.api import plan, resume, run, run_or_resume
from plumbob.driver.run_folder.inputs import MODELS_FILE, check_models, new_digests, write_digests
from tests.support.recording_listener import Watching
from tests.support.tiny_policy import write_policy


def test_folders_of_models_and_files_become_absolute_and_hub_names_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("policy", "scorer"):
        (tmp_path / name).mkdir()
    run = EvalRun(
        data=EvalDataSettings(prompts="policy"),
        policy=EvaluatedPolicySettings(model="./policy", baseline="team/base"),
        reward=ScorerSettings(model="scorer", ensemble=("./policy", "team/other")),
    )
    found = with_absolute_paths(run)
    assert found.policy is not None
    assert (found.policy.model, found.policy.baseline) == (str(tmp_path / "policy"), "team/base")
    assert found.reward.model == str(tmp_path / "scorer")
    assert found.reward.ensemble == (str(tmp_path / "policy"), "team/other")
    assert found.data.prompts == str(tmp_path / "policy") and found.data.pairs is None
    patterns = TextDataSettings(text="parts/*.jsonl", heldout_text="~/t.txt")
    data = with_absolute_paths(
        PretrainRun(data=patterns, policy=PretrainedPolicySettings(model=NewLlamaSettings()))
    ).data
    assert (data.text, data.heldout_text) == (str(tmp_path / "parts/*.jsonl"), str(Path.home() / "t.txt"))
    new = PretrainRun(data=TextDataSettings(text="/t"), policy=PretrainedPolicySettings(model=NewLlamaSettings()))
    assert with_absolute_paths(new) == new
    online = OnlineRun(
        data=PromptDataSettings(prompts="p"),
        policy=AlignedPolicySettings(model="policy"),
        reward=ScorerSettings(model="scorer"),
        gold_reward=GoldRewardSettings(model="./scorer"),
        retention=RetentionSettings(text="kept.txt"),
        replay=ReplaySettings(text="again.txt"),
    )
    whole = with_absolute_paths(online)
    assert whole.gold_reward is not None and whole.gold_reward.model == str(tmp_path / "scorer")
    assert whole.retention is not None and whole.retention.text == str(tmp_path / "kept.txt")
    assert whole.replay is not None and whole.replay.text == str(tmp_path / "again.txt")


def test_a_plan_says_what_is_left_out_of_the_input(tmp_path: Path) -> None:
    rows = [{"prompt": f"{n}?", "chosen": " a", "rejected": " b", "id": n} for n in range(8)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    planned = plan(
        PipelineRun(
            data=PipelineDataSettings(pairs=str(tmp_path / "pairs.jsonl"), heldout_fraction=0.5),
            policy=PipelinePolicySettings(model=NewLlamaSettings(max_positions=1024)),
            reward=PipelineScorerSettings(model=NewBertSettings()),
        )
    )
    note = f"{tmp_path}/pairs.jsonl: 1 of 4 columns is not used: id."
    assert note in planned.notes and planned.as_dict()["notes"] == list(planned.notes)
    assert f"note     {note}" in planned.lines()


def test_a_plan_shows_one_row_of_each_input(tmp_path: Path) -> None:
    """Of a policy that is made from scratch there are no tokens yet."""
    rows = [{"prompt": "Why?", "chosen": " a", "rejected": " b"}, {"prompt": "How?", "chosen": " c", "rejected": " d"}]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    planned = plan(
        PipelineRun(
            data=PipelineDataSettings(pairs=str(tmp_path / "pairs.jsonl"), heldout_fraction=0.5),
            policy=PipelinePolicySettings(model=NewLlamaSettings(max_positions=1024)),
            reward=PipelineScorerSettings(model=NewBertSettings()),
        )
    )
    asked, chosen, rejected = next(
        (row["prompt"], row["chosen"], row["rejected"])
        for row in rows
        if row["prompt"] == planned.rows[1].parts[0].text
    )
    assert planned.as_dict()["rows"] == [
        {"setting": setting, "num_records": 1, "parts": tuple(part(*one) for one in parts)}
        for setting, parts in (
            ("data.text", [("text", asked + chosen, True)]),
            ("data.demonstrations", [("prompt", asked, False), ("response", chosen, True)]),
            ("data.pairs", [("prompt", asked, False), ("chosen", chosen, True), ("rejected", rejected, True)]),
            ("data.prompts", [("prompt", asked, False)]),
        )
    ]


def part(name: str, text: str, is_learnt: bool) -> dict[str, Any]:
    return {"name": name, "text": text, "is_learnt": is_learnt, "num_tokens": None}


def test_a_plan_refuses_what_the_run_would() -> None:
    run = PipelineRun(
        data=PipelineDataSettings(
            toy=ToyWorldSettings(num_texts=200, num_demonstrations=20, num_pairs=20, num_heldout_pairs=20)
        ),
        policy=PipelinePolicySettings(model=NewLlamaSettings(max_positions=1024)),
        reward=PipelineScorerSettings(model=NewBertSettings()),
    )
    # One worker of each role, of half a CPU each.
    planned = plan(run)
    assert (planned.needed.cpus, planned.notes) == (1.5, ())
    assert set(planned.as_dict()["expected_memory_gib"]["roles"]) == {"learner", "rollout", "scorer"}
    assert any(line.startswith("memory   in all about ") for line in planned.lines())
    wrong = PipelinePolicySettings(model=NewLlamaSettings(max_positions=1024), tuning=LoraTuning(targets=("nope",)))
    with pytest.raises(UserError, match=r"policy\.tuning\.targets: nope is no module in the new policy\.model"):
        plan(run.model_copy(update={"policy": wrong}))
    vast = NewLlamaSettings(hidden_size=131_072, num_layers=8, intermediate_size=524_288, max_positions=1024)
    with pytest.raises(UserError, match=r"one worker of role learner takes .* GiB for its weights and their optimizer"):
        plan(run.model_copy(update={"policy": PipelinePolicySettings(model=vast)}))
    with pytest.raises(UserError, match=r"storage\.path: /proc/runs cannot"):
        plan(run.model_copy(update={"storage": StorageSettings(path="/proc/runs")}))


def test_a_session_on_another_ray_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise it would run where nobody asked it to, and its settings would say something else."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "who?", "completion": "me"}\n')
    asked = SftRun(
        name="mine",
        data=DemonstrationDataSettings(demonstrations=str(rows), heldout_fraction=0),
        policy=PolicySettings(model=write_policy(tmp_path / "policy")),
        sft=SftSettings(batch_size=1),
        storage=StorageSettings(path=str(tmp_path / "runs")),
        cluster=ClusterSettings(address="10.0.0.1:6379"),
    )
    session = Session(ClusterSettings(address="10.0.0.2:6379"), tmp_path / "logs", Watching())
    with pytest.raises(UserError) as refused:
        run(asked, Watching(), session)
    assert str(refused.value) == (
        "cluster.address=10.0.0.1:6379: the session that the run was given has cluster.address=10.0.0.2:6379; give the "
        "run the settings of its session, or no session"
    )
    assert not (tmp_path / "runs").exists()
    patient = asked.model_copy(update={"cluster": ClusterSettings(address="10.0.0.2:6379", call_timeout_s=9)})
    with pytest.raises(
        UserError, match=r"^cluster\.call_timeout_s=9\.0: the session .* has cluster\.call_timeout_s=1800"
    ):
        run(patient, Watching(), session)


def test_a_run_that_may_have_begun_resumes_with_the_settings_that_it_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray was started"))
    monkeypatch.chdir(tmp_path)
    asked = OnlineRun(
        data=PromptDataSettings(prompts="prompts.jsonl"),
        policy=AlignedPolicySettings(model="/missing"),
        reward=ScorerSettings(model="/missing"),
        name="mine",
        storage=StorageSettings(path=str(tmp_path)),
    )
    # Whoever gets as far as reading the input is told that it is not there.
    missing = r"^reward\.model=/missing: "
    with pytest.raises(UserError, match=missing):
        run_or_resume(asked, Watching())
    assert not (tmp_path / "mine").exists()
    write_resolved(with_absolute_paths(asked), tmp_path / "mine")
    # Another way to write the same, and another number of workers, change nothing that is computed.
    monkeypatch.chdir(tmp_path.parent)
    same = asked.model_copy(update={"data": PromptDataSettings(prompts=f"{tmp_path.name}/prompts.jsonl")})
    more = same.model_copy(
        update={"rollout": RolloutSettings(num_workers=3), "storage": StorageSettings(path=tmp_path.name)}
    )
    with pytest.raises(UserError, match=missing):
        run_or_resume(more, Watching())
    with pytest.raises(UserError, match=r"^rollout\.temperature: cannot change when a run resumes"):
        run_or_resume(more.model_copy(update={"rollout": RolloutSettings(temperature=0.5)}), Watching())
    with pytest.raises(UserError, match="there is a run already"):
        run(same, Watching())


def test_a_resume_that_would_change_the_result_starts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray was started"))
    run = OnlineRun(
        data=PromptDataSettings(prompts="p"),
        policy=AlignedPolicySettings(model="policy"),
        reward=ScorerSettings(model="scorer"),
        name="mine",
    )
    write_resolved(run, tmp_path)
    before = (tmp_path / "resolved.json").read_text()
    with pytest.raises(UserError, match=r"^online\.policy_loss\.clip_range: cannot change when a run resumes"):
        resume(tmp_path, Watching(), overrides=["online.policy_loss.clip_range=0.1"])
    assert (tmp_path / "resolved.json").read_text() == before


def test_a_folder_below_the_home_of_nobody_is_one_message() -> None:
    with pytest.raises(UserError, match=r"^~nosuchuser/run: cannot be looked at: .*; give the folder of a run$"):
        resume(Path("~nosuchuser/run"), Watching())


def test_a_run_does_not_resume_with_another_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as a reward model that was trained anew into the same folder."""
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray was started"))
    (tmp_path / "p.txt").write_text("Who?")
    policy, scorers = write_policy(tmp_path / "policy"), [tmp_path / name for name in ("one", "two")]
    for folder in scorers:
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"weights")
    asked = OnlineRun(
        data=PromptDataSettings(prompts=str(tmp_path / "p.txt")),
        policy=AlignedPolicySettings(model=policy),
        reward=ScorerSettings(model=str(scorers[0]), ensemble=(str(scorers[1]),)),
        name="mine",
    )
    write_resolved(asked, tmp_path)
    write_digests(new_digests(named_inputs(asked), tmp_path), tmp_path)
    assert set(json.loads((tmp_path / MODELS_FILE).read_text())) == {policy, *map(str, scorers)}
    check_models(named_inputs(asked), tmp_path)
    (scorers[1] / "model.safetensors").write_bytes(b"others!")
    (scorers[0] / "calibration.json").write_text("{}")  # Is new, and no other model.
    assert new_digests(named_inputs(asked), tmp_path) == {}  # Those that it began with stay.
    monkeypatch.setattr(execution, "prepare_run", lambda config: pytest.fail)
    with pytest.raises(
        UserError, match=rf"^reward\.ensemble={scorers[1]}: this is not the model .*: model\.safetensors ch"
    ):
        resume(tmp_path, Watching())
    (tmp_path / MODELS_FILE).write_text("{")
    with pytest.raises(UserError, match=r"models\.json: expected digests as JSON"):
        resume(tmp_path, Watching())


def test_to_resume_a_finished_run_changes_nothing_and_ends_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not even its input has to be there."""
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray was started"))
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "mine"
    given = ["pretrain", f"data.text={tmp_path}/gone.txt", "name=mine", f"storage.path={tmp_path}"]
    write_resolved(with_absolute_paths(load_run(given[0], given[1:])), folder)
    summary = {"name": "mine", "kind": "pretrain", "seconds_total": 3.0, "stages": {"pretrain": {"loss": 2.5}}}
    (folder / "summary.json").write_text(json.dumps(summary))
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    for command in (["resume", str(folder)], ["run", *given, "--resume"]):
        assert main(command) == 0
        said = capsys.readouterr().out
        assert said.startswith(f"{folder}: this run is finished: there is nothing to resume, and nothing was changed\n")
        assert main([*command, "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["event"], told["was_finished"], told["summary"]) == ("run_ended", True, summary)
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()} == before
