"""What does the work of a run, whatever its kind: the name under which its one stage is known."""

from pathlib import Path
from typing import Any

import pytest

from plumbob.configs.load_run import load_run
from plumbob.configs.runs import OnlineRun
from plumbob.configs.settings.algorithms import Grpo
from plumbob.configs.settings.data import PromptDataSettings
from plumbob.configs.settings.models import AlignedPolicySettings
from plumbob.configs.settings.rewards import ScorerSettings
from plumbob.configs.settings.training import OnlineSettings
from plumbob.driver import prepared_run
from plumbob.driver.prepared_run import prepare_run, stage_of
from plumbob.driver.stages.stage import PreparedStage, StageContext
from plumbob.trainers.metrics.sinks.jsonl import JsonlSink
from plumbob.trainers.metrics.stage_result import StageResult
from plumbob.trainers.metrics.step_record import StepRecord
from tests.support.recording_listener import Watching

GRPO = OnlineRun(
    data=PromptDataSettings(prompts="unused"),
    policy=AlignedPolicySettings(model="unused"),
    reward=ScorerSettings(model="unused"),
    online=OnlineSettings(estimator=Grpo(), samples_per_prompt=2),
)


def test_a_resumed_run_keeps_the_name_that_its_metrics_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert stage_of(GRPO, tmp_path) == "grpo"
    sink = JsonlSink(tmp_path)
    sink.append(StepRecord("ppo", 1, 9, {"kl": 0.5}, {}), now=1.0)
    sink.append(StepRecord("grpo", 2, 9, {"kl": 0.5}, {}), now=2.0)  # Resumed once by a version that gave it two.
    sink.close(False)
    assert stage_of(GRPO, tmp_path) == "ppo"
    monkeypatch.setattr(prepared_run, "prepare", lambda _: PreparedStage((), lambda context: StageResult({"kl": 1.0})))
    nothing: Any = None
    memory: Any = type("Memory", (), {"take": lambda self: 0.25})()
    context = StageContext(nothing, nothing, tmp_path, Watching(), memory, stage_of(GRPO, tmp_path))
    assert list(prepare_run(GRPO)(context).stages) == ["ppo"]


def test_a_pipeline_says_what_its_check_of_bias_will_do() -> None:
    small = [f"data.toy.num_{name}=20" for name in ("texts", "demonstrations", "pairs", "heldout_pairs")]
    prepared = prepare_run(load_run("toy", [*small, "bias.max_difference=0.1", "bias.past_bound=refuse"]))
    (note,) = (note for note in prepared.notes if note.startswith("bias: "))
    # 816 pairs of texts.
    assert (
        "scores 1,632 texts" in note
        and "above bias.max_difference=0.1 that is larger than the noise is refused" in note
    )
