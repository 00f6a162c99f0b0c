"""A pipeline that is resumed between two stages: on the rows that it began with, and on no others."""

import json
import os
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from plumbob.configs.runs import PipelineRun
from plumbob.configs.settings.data import PipelineDataSettings
from plumbob.configs.settings.models import NewBertSettings, NewLlamaSettings, PipelinePolicySettings
from plumbob.configs.settings.rewards import PipelineScorerSettings
from plumbob.configs.settings.workers import StorageSettings
from plumbob.core.errors import RunFailed, UserError
from plumbob.driver import execution
from plumbob.driver.api import resume, run
from plumbob.driver.pipeline import pipeline
from plumbob.driver.stages.stage import StageContext
from plumbob.trainers.metrics.stage_result import StageResult, StageSummary
from tests.support.recording_listener import Watching

STAGES = ["pretrain", "pretrain-encoder", "sft", "reward", "ppo", "dpo", "eval"]
PAIRS = [
    {"prompt": f"Car {number}?", "chosen": f" red {number}", "rejected": f" blue {number}"} for number in range(60)
]


def write(path: Path, pairs: list[dict[str, str]]) -> None:
    path.write_text("".join(f"{json.dumps(pair)}\n" for pair in pairs))


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


class Workers:
    """In the place of a Ray: a stage has what it learns from when it runs, and dies where it is told to."""

    def __init__(self, dies_in: str) -> None:
        self.dies_in, self.ran = dies_in, list[str]()

    def run_stage(self, body: Any, context: StageContext) -> StageSummary:
        name = context.stage
        if name == self.dies_in:
            raise RunFailed("a worker died")
        self.ran.append(name)
        return StageSummary(StageResult({}, policies={} if name == "eval" else None), seconds=1.0, peak_memory_gib=1.0)


def test_a_pipeline_resumes_on_the_rows_that_it_began_with_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, folder = tmp_path / "pairs.jsonl", tmp_path / "runs/mine"
    write(file, PAIRS)
    config = PipelineRun(
        name="mine",
        storage=StorageSettings(path=str(tmp_path / "runs")),
        data=PipelineDataSettings(pairs=str(file), heldout_fraction=0.2, max_prompt_tokens=64, max_response_tokens=64),
        policy=PipelinePolicySettings(model=NewLlamaSettings()),
        reward=PipelineScorerSettings(model=NewBertSettings()),
    )
    workers = Workers("reward")
    session: Any = SimpleNamespace(cluster=config.cluster)
    control = SimpleNamespace(listener=Watching())
    monkeypatch.setattr(execution, "controlled_run", lambda *_: nullcontext(control))
    monkeypatch.setattr(pipeline, "run_stage", workers.run_stage)
    monkeypatch.setattr(execution, "ConnectionFile", lambda *_: nullcontext())
    with pytest.raises(RunFailed, match="a worker died"):
        run(config, Watching(), session)
    assert workers.ran == STAGES[:3]
    split = contents(folder / "data")

    # A held-out prompt would become a training prompt of the stages that are left, and the other way round.
    write(file, [*PAIRS, *({**pair, "prompt": f"New {pair['prompt']}"} for pair in PAIRS[:20])])
    with pytest.raises(UserError) as refused:
        resume(folder, Watching(), session)
    assert str(refused.value) == (
        f"data.pairs={file}: the records are not those that the run began with: a run is resumed on the same files, "
        f"limits, tokenizer, seed and version of Plumbob. Put them back, or start a new run"
    )
    assert workers.ran == STAGES[:3] and contents(folder / "data") == split
    assert (folder / "resolved.json").exists() and not (folder / "reward").exists()

    workers.dies_in = ""
    write(file, PAIRS)
    os.utime(file, (1, 1))
    resume(folder, Watching(), session)
    assert workers.ran == STAGES and contents(folder / "data") == split
