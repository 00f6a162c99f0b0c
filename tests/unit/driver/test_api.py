"""What a run is given before it starts, and what a failed one is told."""

import errno
import json
import re
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
import ray

from plumbob.configs.paths import with_absolute_paths
from plumbob.configs.resolved_copy import write_resolved
from plumbob.configs.runs import EvalRun, PipelineRun, PpoRun, PretrainRun
from plumbob.configs.settings.data import (
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
    LoraTuning,
    NewBertSettings,
    NewLlamaSettings,
    PipelinePolicySettings,
    PretrainedPolicySettings,
)
from plumbob.configs.settings.rewards import JudgeSettings, PipelineScorerSettings, ScorerSettings
from plumbob.configs.settings.workers import RolloutSettings, StorageSettings
from plumbob.core.disk_errors import StorageFailed
from plumbob.core.errors import NotFinite, RunFailed, UserError
from plumbob.driver import api
from plumbob.driver.api import how_to_go_on, plan, resume, run, run_or_resume, telling_how_to_go_on
from plumbob.driver.run_folder.inputs import MODELS_FILE, check_models, note_models
from plumbob.driver.stages.prepare import StageContext
from plumbob.reward.scorer import ScoreError
from plumbob.trainers.learner.checkpoint import Checkpoints, Files, on_disk
from tests.support.folder_names import names
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
    ppo = PpoRun(
        data=PromptDataSettings(prompts="p"),
        policy=AlignedPolicySettings(model="policy"),
        reward=ScorerSettings(model="scorer"),
        judge=JudgeSettings(model="./scorer"),
        retention=RetentionSettings(text="kept.txt"),
        replay=ReplaySettings(text="again.txt"),
    )
    whole = with_absolute_paths(ppo)
    assert whole.judge is not None and whole.judge.model == str(tmp_path / "scorer")
    assert whole.retention is not None and whole.retention.text == str(tmp_path / "kept.txt")
    assert whole.replay is not None and whole.replay.text == str(tmp_path / "again.txt")


def test_a_plan_refuses_what_the_run_would() -> None:
    run = PipelineRun(
        data=PipelineDataSettings(
            toy=ToyWorldSettings(num_texts=200, num_demonstrations=20, num_pairs=20, num_heldout_pairs=20)
        ),
        policy=PipelinePolicySettings(model=NewLlamaSettings(max_positions=1024)),
        reward=PipelineScorerSettings(model=NewBertSettings()),
    )
    # One worker of each role, of half a CPU each.
    assert plan(run).needed.cpus == 1.5
    wrong = PipelinePolicySettings(model=NewLlamaSettings(max_positions=1024), tuning=LoraTuning(targets=("nope",)))
    with pytest.raises(UserError, match=r"policy\.tuning\.targets: nope is no module in the new policy\.model"):
        plan(run.model_copy(update={"policy": wrong}))
    with pytest.raises(UserError, match=r"storage\.path: /proc/runs cannot"):
        plan(run.model_copy(update={"storage": StorageSettings(path="/proc/runs")}))


def write_nothing(folder: Path) -> Files:
    (folder / "w").touch()
    return on_disk(folder, ["w"])


def checkpointed(folder: Path, *steps: int) -> Path:
    """A run's folder with checkpoints of these steps."""
    for step in steps:
        Checkpoints(folder / "checkpoints", 9).commit(step, write_nothing, {})
    return folder


def test_a_failed_run_is_told_to_resume_only_where_that_can_help(tmp_path: Path) -> None:
    assert "no checkpoint had been made" in how_to_go_on(tmp_path, RunFailed("a worker died"))
    checkpointed(tmp_path, 2, 3)
    last = f"the last good checkpoint is {tmp_path / 'checkpoints/step-000003'}; "
    assert how_to_go_on(tmp_path, RunFailed("a worker died")) == f"{last}go on with: plumbob resume {tmp_path}"
    for error in (NotFinite("the policy's loss is nan"), ScoreError("a score is not finite")):
        advice = how_to_go_on(tmp_path, error)
        assert "step-000003" in advice and "lower learning_rate" in advice and "plumbob resume" not in advice
    # `latest` names one that is damaged by now.
    (tmp_path / "checkpoints/step-000003/w").write_text("other")
    assert "step-000002; go on" in how_to_go_on(tmp_path, RunFailed("a worker died"))
    (tmp_path / "checkpoints/step-000002/w").unlink()
    assert f"no checkpoint in {tmp_path / 'checkpoints'} is whole" in how_to_go_on(tmp_path, RunFailed("it died"))


def test_a_full_disk_ends_a_run_with_one_message(tmp_path: Path) -> None:
    checkpointed(tmp_path, 4)
    for error in (
        OSError(errno.ENOSPC, "full", "metrics.jsonl"),
        StorageFailed("metrics.jsonl: No space left on device"),
    ):
        with pytest.raises(StorageFailed) as failed, telling_how_to_go_on(tmp_path):
            raise error
        what, what_next = str(failed.value).splitlines()
        assert re.fullmatch(rf"metrics\.jsonl: No space left on device; [0-9,]+\.\d MiB are free in {tmp_path}", what)
        assert what_next == (
            f"the last good checkpoint is {tmp_path / 'checkpoints/step-000004'}; when the disk can be written again, "
            f"go on with: plumbob resume {tmp_path}"
        )
    with pytest.raises(ConnectionResetError), telling_how_to_go_on(tmp_path):
        raise ConnectionResetError(errno.ECONNRESET, "reset")


def test_a_run_that_may_have_begun_goes_on_with_the_settings_that_it_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray was started"))
    monkeypatch.chdir(tmp_path)
    asked = PpoRun(
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
    run = PpoRun(
        data=PromptDataSettings(prompts="p"),
        policy=AlignedPolicySettings(model="policy"),
        reward=ScorerSettings(model="scorer"),
        name="mine",
    )
    write_resolved(run, tmp_path)
    before = (tmp_path / "resolved.json").read_text()
    with pytest.raises(UserError, match=r"^ppo\.clip_range: cannot change when a run resumes"):
        resume(tmp_path, Watching(), overrides=["ppo.clip_range=0.1"])
    assert (tmp_path / "resolved.json").read_text() == before


def test_a_run_does_not_go_on_with_another_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as a reward model that was trained anew into the same folder."""
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray was started"))
    policy, scorers = write_policy(tmp_path / "policy"), [tmp_path / name for name in ("one", "two")]
    for folder in scorers:
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"weights")
    asked = PpoRun(
        data=PromptDataSettings(prompts="/p"),
        policy=AlignedPolicySettings(model=policy),
        reward=ScorerSettings(model=str(scorers[0]), ensemble=(str(scorers[1]),)),
        name="mine",
    )
    write_resolved(asked, tmp_path)
    note_models(asked, tmp_path)
    assert set(json.loads((tmp_path / MODELS_FILE).read_text())) == {policy, *map(str, scorers)}
    check_models(asked, tmp_path)
    (scorers[1] / "model.safetensors").write_bytes(b"others!")
    (scorers[0] / "calibration.json").write_text("{}")  # Is new, and no other model.
    note_models(asked, tmp_path)  # Those that it began with stay.
    monkeypatch.setattr(api, "_prepare", lambda config: pytest.fail)
    with pytest.raises(
        UserError, match=rf"^reward\.ensemble={scorers[1]}: this is not the model .*: model\.safetensors ch"
    ):
        resume(tmp_path, Watching())
    (tmp_path / MODELS_FILE).write_text("{")
    with pytest.raises(UserError, match=r"models\.json: expected digests as JSON"):
        resume(tmp_path, Watching())


def test_an_ended_run_that_is_at_work_again_has_not_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its result is being replaced: the summary would say of a part that it is whole."""
    asked = PretrainRun(
        data=TextDataSettings(text="/t"),
        policy=PretrainedPolicySettings(model=NewLlamaSettings()),
        name="mine",
        storage=StorageSettings(path="/runs"),
    )
    write_resolved(asked, tmp_path)
    (tmp_path / "summary.json").write_text("{}\n")

    def dies(scene: StageContext) -> NoReturn:
        assert names(tmp_path) == ["driver.lock", "models.json", "resolved.json"]
        raise RunFailed("a worker died")

    opened: Any = SimpleNamespace(running=lambda *_: nullcontext(), cluster=asked.cluster)
    monkeypatch.setattr(api, "_prepare", lambda config: dies)
    monkeypatch.setattr(api, "ConnectionFile", lambda *_: nullcontext())
    with pytest.raises(RunFailed, match="a worker died"):
        resume(tmp_path, Watching(), opened)
    assert names(tmp_path) == ["models.json", "resolved.json"]
