"""Evaluations of tiny models, and a session that samples and scores without Ray."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plumbob.configs.runs import EvalRun
from plumbob.configs.settings.data import EvalDataSettings
from plumbob.configs.settings.models import EvaluatedPolicySettings
from plumbob.configs.settings.rewards import ScorerSettings
from plumbob.configs.settings.workers import RolloutSettings, TransformersEngine
from plumbob.models.adapter import Adapter
from plumbob.reward.scorer import Score, ScoreRequest
from plumbob.rollout.rollout_records import Rollout, SampleRequest
from plumbob.rollout.samplers.sampler import SamplerSpec


def write(path: Path, row: dict[str, Any]) -> str:
    path.write_text(json.dumps(row) + "\n")
    return str(path)


class FakeSamplers:
    """Gives every prompt the response "yes", and counts the batches and what is loaded before them."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def serve_base(self) -> None:
        self.done.append("base")

    def load_adapters(self, adapters: Sequence[Adapter]) -> None:
        self.done.append(f"hold {len(adapters)}")

    def load(self, adapter: Adapter) -> None:
        self.done.append("adapter")

    def sample(self, requests: Sequence[SampleRequest]) -> list[Rollout]:
        self.done.append("sample")
        ids = np.array([5, 1], np.int32)
        return [
            Rollout(request, "stop", "yes", ids, np.zeros(2, np.float32), ids, np.ones(2, np.bool_), "w")
            for request in requests
        ]


class FakeSession:
    """Scores a response by its length, keeps the settings that it was asked with, and counts what it starts."""

    def __init__(self) -> None:
        self.rollouts, self.num_learner_groups = FakeSamplers(), 0

    def start_scorers(self, settings: ScorerSettings) -> "FakeSession":
        self.settings = settings
        return self

    def start_samplers(self, spec: SamplerSpec, rollout: RolloutSettings) -> "FakeSamplers":
        return self.rollouts

    def start_learners(self, run: EvalRun) -> "FakeSession":
        self.num_learner_groups += 1
        return self

    def compute(self, batch: Any, role: str, function: Any) -> NDArray[np.float32]:
        return np.zeros(batch.input_ids.shape, np.float32)

    def score(self, requests: list[ScoreRequest]) -> list[Score]:
        return [Score(0.0, {"raw": float(len(one.response))}) for one in requests]


def evaluation(tmp_path: Path, uncalibrated: str, policy: str, baseline: str | None = None) -> EvalRun:
    asked = tmp_path / "prompts.jsonl"
    asked.write_text('{"prompt": "Q"}\n{"prompt": "Why"}\n')
    return EvalRun(
        data=EvalDataSettings(prompts=str(asked)),
        policy=EvaluatedPolicySettings(model=policy, baseline=baseline),
        reward=ScorerSettings(model=uncalibrated, normalize=False),
        rollout=RolloutSettings(engine=TransformersEngine()),
    )


def beside(run: EvalRun, *others: str) -> EvalRun:
    assert run.policy is not None
    return run.model_copy(update={"policy": run.policy.model_copy(update={"also": others})})
