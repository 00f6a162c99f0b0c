"""Chat templates that write the date: a run keeps that of its beginning, and says so."""

import json
from contextlib import nullcontext
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
from transformers import AutoTokenizer

from plumbob.configs.runs import EvalRun, PretrainRun, SftRun
from plumbob.configs.settings.data import (
    DemonstrationDataSettings,
    EvalDataSettings,
    TextDataSettings,
)
from plumbob.configs.settings.models import (
    EvaluatedPolicySettings,
    NewLlamaSettings,
    PolicySettings,
    PretrainedPolicySettings,
)
from plumbob.configs.settings.rewards import ScorerSettings
from plumbob.configs.settings.training import SftSettings
from plumbob.configs.settings.workers import RolloutSettings, StorageSettings, TransformersEngine
from plumbob.core.errors import RunFailed
from plumbob.data.texts.bounded_templates import render as render_template
from plumbob.driver import api, execution
from plumbob.driver.api import plan, resume, run
from plumbob.driver.prepared_run import PreparedRun
from plumbob.driver.stages.stage import StageContext
from plumbob.trainers.metrics.stage_result import StageResult
from tests.support.recording_listener import Watching
from tests.support.tiny_policy import write_policy
from tests.support.tiny_scorer import write_scorer

DATED = "{{ strftime_now('%Y') }}{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"


def test_a_chat_template_has_the_date_of_the_beginning_when_the_run_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "t.txt").write_text("A car has a door.")
    folder = tmp_path / "runs/mine"
    asked = PretrainRun(
        data=TextDataSettings(text=str(tmp_path / "t.txt")),
        policy=PretrainedPolicySettings(model=NewLlamaSettings()),
        name="mine",
        storage=StorageSettings(path=str(folder.parent)),
    )
    template, written = "{{ strftime_now('%d %b %Y %H:%M:%S') }}", []

    def prepared(config: Any) -> PreparedRun:
        written.append(render_template(template))

        def dies(context: StageContext) -> NoReturn:
            written.append(render_template(template))  # As the later stages of a pipeline do.
            (folder / "metrics.jsonl").write_text("{}")
            raise RunFailed("a worker died")

        return PreparedRun((), (), dies)

    listener = Watching()
    monkeypatch.setattr(execution, "controlled_run", lambda *_: nullcontext(SimpleNamespace(listener=listener)))
    monkeypatch.setattr(execution, "prepare_run", prepared)
    monkeypatch.setattr(execution, "ConnectionFile", lambda *_: nullcontext())
    opened: Any = SimpleNamespace(cluster=asked.cluster)
    with pytest.raises(RunFailed):
        run(asked, listener, opened)
    resolved = json.loads((folder / "resolved.json").read_text())
    resolved["time"] = "2024-07-26T23:59:58+0200"  # Two years ago, two hours east of Greenwich.
    (folder / "resolved.json").write_text(json.dumps(resolved))
    with pytest.raises(RunFailed):
        resume(folder, listener, opened)
    assert written[0] == written[1]
    assert written[2:] == ["26 Jul 2024 23:59:58"] * 2
    note = "the chat template writes the date: a run has that of its beginning, 2024-07-26, when it resumes too"
    assert ("pretrain", note) in listener.notes


@pytest.fixture(scope="module")
def dated_policy(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One whose chat template writes the date."""
    folder = write_policy(tmp_path_factory.mktemp("policy"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = DATED
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("is_chat", [True, False])
def test_a_plan_tells_of_a_date_that_a_text_has_from_its_chat_template(
    tmp_path: Path, dated_policy: str, is_chat: bool
) -> None:
    turns = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
    row = {"messages": turns} if is_chat else {"prompt": "Why?", "completion": "So."}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    data = DemonstrationDataSettings(demonstrations=str(tmp_path / "rows.jsonl"), heldout_fraction=0)
    asked = SftRun(data=data, policy=PolicySettings(model=dated_policy), sft=SftSettings())
    planned = plan(asked)
    assert planned.rows[0].parts[0].text == (f"{date.today().year}<user>Why?" if is_chat else "Why?")
    for notes in (planned.notes, api.check_input(asked)):  # The latter is what `submit` asks.
        assert any(note.startswith("the chat template writes the date") for note in notes) == is_chat


def test_an_evaluation_tells_of_the_date_that_its_prompts_have(
    tmp_path: Path, dated_policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({"prompt": [{"role": "user", "content": "Why?"}]}))
    asked = EvalRun(
        data=EvalDataSettings(prompts=str(tmp_path / "rows.jsonl")),
        policy=EvaluatedPolicySettings(model=dated_policy),
        reward=ScorerSettings(model=str(write_scorer(tmp_path / "scorer")), normalize=False, max_tokens=32),
        rollout=RolloutSettings(engine=TransformersEngine(), max_tokens=8),
        storage=StorageSettings(path=str(tmp_path)),
    )
    monkeypatch.setattr(api, "run_eval", lambda _, data, __: StageResult({}, data.notes))
    opened: Any = SimpleNamespace(cluster=asked.cluster, admit=lambda _: None)
    notes = api.evaluate(asked, Watching(), opened)["notes"]
    assert any(note.startswith("the chat template writes the date") for note in notes)
