"""Runs small enough for a test: settings, and what a run left behind."""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from plumbob.cluster.calls import wait_until
from plumbob.cluster.connection import joined_briefly
from plumbob.cluster.nodes import hosts
from plumbob.cluster.session import Session
from plumbob.configs.load_run import load_eval, load_run
from plumbob.configs.runs import AnyRun, EvalRun
from plumbob.configs.settings.workers import ClusterSettings
from plumbob.console.cli import main
from plumbob.console.display import PlainConsole
from plumbob.driver.api import evaluate, resume, run
from plumbob.rollout.journal import JournalRow, read_journal
from plumbob.trainers.learner.checkpoint_shards import open_shards
from plumbob.trainers.metrics.heldout_pairs import HELDOUT_PAIRS_FILE, read_pairs
from plumbob.trainers.metrics.step_record import Listener

LLAMA = {
    "vocab_size": 320,
    "hidden_size": 64,
    "num_layers": 2,
    "num_heads": 2,
    "intermediate_size": 96,
    "max_positions": 128,
}
BERT = LLAMA
LENGTHS = {"data.max_prompt_tokens": 64, "data.max_response_tokens": 64}
TEMPERATURE = 0.7
FREED_S = 120.0
TIMINGS = ("tokens_per_s", "sampler_idle_s")
WORKERS = {
    "learner.num_cpus": 0.25,
    "learner.autocast": "false",
}
ROLLOUT = {
    "rollout.num_cpus": 0.25,
    "rollout.temperature": TEMPERATURE,
    "rollout.max_tokens": 10,
    "reward.num_cpus": 0.25,
    "reward.max_tokens": 64,
}
TRANSFORMERS = {"rollout.engine.kind": "transformers"}
PPO = {
    **{"online.num_steps": 3, "online.prompts_per_step": 8, "online.minibatch_size": 4, "online.learning_rate": 1e-3},
    # A controller that moves at every step, so that a resumed run must have kept its coefficient.
    **{"online.kl.kind": "adaptive", "online.kl.target": 0.5, "online.kl.horizon": 20},
}
PIPELINE: dict[str, object] = {
    **{f"policy.model.{name}": size for name, size in LLAMA.items()},
    **{f"reward.model.{name}": size for name, size in BERT.items()},
    **{
        "data.toy.num_cars": 2,
        "data.toy.num_texts": 300,
        "data.toy.num_demonstrations": 80,
    },
    **{"data.toy.num_pairs": 64, "data.toy.num_heldout_pairs": 24},
    **{"pretrain.num_epochs": 1, "pretrain.block_tokens": 64, "pretrain.learning_rate": 1e-2},
    **{"pretrain_encoder.num_epochs": 1, "pretrain_encoder.block_tokens": 64},
    **{"sft.num_epochs": 1, "sft.batch_size": 16, "reward_training.num_epochs": 1, "dpo.batch_size": 16},
    **{"online.num_steps": 2, "online.prompts_per_step": 8, "online.minibatch_size": 8, "online.num_epochs": 1},
    **{"evaluation.num_prompts": 8, "calibration_prompts": 8, "evaluation.num_shown": 3},
    **{"rollout.num_threads": 1, "reward.num_threads": 1, "learner.num_threads": 1},
}
"""Of `toy`: every stage once with a few steps."""


@dataclass(frozen=True)
class Left:
    """The folder of a run or of one stage of a pipeline."""

    folder: Path

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """One object a step: the lines of `metrics.jsonl`."""
        return [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]

    @property
    def untimed(self) -> list[dict[str, Any]]:
        """The lines of `metrics.jsonl` without what a clock said."""
        return [
            {
                "step": line["step"],
                "metrics": {name: value for name, value in line["metrics"].items() if name not in TIMINGS},
            }
            for line in self.metrics
        ]

    @property
    def summary(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.folder / "summary.json").read_text())
        return content

    @property
    def journal(self) -> list[tuple[int, JournalRow]]:
        return list(read_journal(self.folder / "rollouts"))

    @property
    def heldout_pairs(self) -> list[dict[str, Any]]:
        return read_pairs(self.folder / HELDOUT_PAIRS_FILE).to_pylist()

    @property
    def last_checkpoint(self) -> Path:
        return self.folder / "checkpoints" / (self.folder / "checkpoints/latest").read_text().strip()

    @property
    def policy(self) -> str:
        return str(self.folder / "policy")


def tensors_of(checkpoint: Path) -> dict[str, Tensor]:
    """The learner's state, by name."""
    with open_shards(checkpoint) as tensors:
        return dict(tensors)


def settings(*groups: Mapping[str, object]) -> list[str]:
    """Overrides as the command line takes them; a later group's value replaces an earlier one's.

    The toy's prompts are made from few templates, so that those of its files are nearly one another's.
    """
    merged: dict[str, object] = {}
    for group in groups:
        merged |= group
    if any(key.startswith("data.heldout_") and key != "data.heldout_fraction" for key in merged):
        merged.setdefault("data.checks.near_duplicates", "report")
    return [f"{key}={value}" for key, value in merged.items()]


def model_settings(key: str, sizes: Mapping[str, int]) -> dict[str, object]:
    return {f"{key}.{name}": size for name, size in sizes.items()}


def text_settings(world: Path) -> dict[str, object]:
    """A world's text, to measure what is retained by and to be replayed."""
    blocks = {"text": world / "text.jsonl", "block_tokens": 64}
    return {f"{name}.{key}": value for name in ("retention", "replay") for key, value in blocks.items()}


def run_to_end(storage: Path, name: str, kind: str, *groups: Mapping[str, object]) -> Left:
    """`plumbob run KIND ...` in this process, which must succeed."""
    overrides = settings({"storage.path": storage, "name": name}, *groups)
    assert main(["run", kind, *overrides]) == 0
    return Left(storage / name)


def are_free() -> bool:
    """Whether nobody has a CPU of the Ray that was joined: it takes them back in its own time."""
    return all(left.free.cpus == whole.free.cpus for left, whole in zip(hosts(True), hosts(False), strict=True))


class Stages:
    """Runs and evaluations on one Ray. Their workers stay for the next, as starting some takes seconds.

    Args:
        address: of the Ray.
    """

    def __init__(self, storage: Path, address: str) -> None:
        self.storage, self.address = storage, address
        self._session: Session | None = None
        self._listener = PlainConsole(io.StringIO())

    @property
    def cluster(self) -> dict[str, object]:
        return {"cluster.address": self.address, "storage.path": self.storage}

    @property
    def session(self) -> Session:
        if self._session is None:
            self._session = Session(ClusterSettings(address=self.address), self.storage / "logs", self._listener)
            self._session.__enter__()
        return self._session

    def __call__(self, name: str, kind: str, *groups: Mapping[str, object], listener: Listener | None = None) -> Left:
        """As `plumbob run KIND ...`, which must succeed."""
        return self.run(name, load_run(kind, settings(self.cluster, WORKERS, *groups)), listener)

    def run(self, name: str, config: AnyRun, listener: Listener | None = None) -> Left:
        """A run that is configured already, but for its name."""
        return Left(run(config.model_copy(update={"name": name}), listener or self._listener, self.session).folder)

    def resume(self, left: Left, *overrides: str, listener: Listener | None = None) -> Left:
        """As `plumbob resume`, which must succeed."""
        return Left(resume(left.folder, listener or self._listener, self.session, overrides).folder)

    def evaluate(self, *overrides: str) -> dict[str, Any]:
        """As `plumbob eval --json`."""
        config = load_eval(overrides)
        assert isinstance(config, EvalRun)
        figures: dict[str, Any] = json.loads(json.dumps(evaluate(config, self._listener, self.session)))
        return figures

    def close(self) -> None:
        """End the workers and leave the Ray, whose CPUs are all free then: for what connects by itself."""
        if self._session is not None:
            self._session.__exit__()
            self._session = None
            with joined_briefly(self.address):
                assert wait_until(are_free, FREED_S)
