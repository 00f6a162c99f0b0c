"""Folders as finished runs leave them, as far as a report is made of them: by hand, without training anything."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from plumbob.rollout.journal import JOURNAL_FOLDER, JournalRow, write_step

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>"
LONG_WORD = "Donaudampfschifffahrtsgesellschaft" * 12

OFFLINE = {"loss": 0.7, "accuracy": 0.6, "margin": 0.4, "policy_grad_norm": 2.0, "learning_rate": 1e-5}
ONLINE = {
    **{"num_answers": 64.0, "num_empty": 0.0, "num_tokens": 980.0, "reward": 0.1, "reward_std": 0.9, "kl": 0.4},
    **{"return_mean": 0.1, "missing_eos_share": 0.02, "answer_tokens_mean": 15.2, "sampler_gap_mean": 1e-6},
    **{"sampler_gap_max": 8.6e-6, "importance_cut_share": 0.0, "explained_variance": 0.2, "policy_loss": -0.01},
    **{"clipped_share": 0.07, "update_kl": 0.01, "kl_coefficient": 0.05, "learning_rate": 1e-3, "entropy": 1.3},
    **{"policy_grad_norm": 0.4, "value_grad_norm": 1.2, "value_loss": 0.8, "repeated_share": 0.1},
    **{"gold_reward": -0.2, "staleness_mean": 0.0, "staleness_max": 0.0, "sampler_gap_fresh": 1e-6},
    **{"sampler_idle_s": 0.4, "tokens_per_s": 3456.0},
}
PHASES: Mapping[str, tuple[str, ...]] = {"ppo": ("publish", "sample", "score", "logprobs", "learn", "commit")}
"""Of the stages that have others than `OFFLINE_PHASES`."""

OFFLINE_PHASES = ("data", "learn", "evaluate", "save")

PIPELINE: Mapping[str, dict[str, Any]] = {
    "pretrain": {"heldout_loss": 0.601},
    "pretrain-encoder": {"heldout_loss": 0.736, "heldout_accuracy": 0.773},
    "sft": {"heldout_loss": 0.509, "gold_score": -0.032, "reward": -0.072, "answer_tokens": 9.435},
    "reward": {"heldout_loss": 0.384, "heldout_accuracy": 0.804, "noise_ceiling": 0.842},
    "ppo": {
        **{"gold_score": 1.498, "gold_gain_ci95": [1.295, 1.765], "reward": 1.169, "win_rate": 0.803},
        **{"win_rate_ci95": [0.77, 0.836], "answer_tokens": 15.528, "kl": 2.703, "max_sampler_gap": 8.6e-6},
        "retention": {"perplexity_before": 12.25, "perplexity_after": 14.7},
        "monitors": [{"name": "kl", "step": 7, "message": "KL 9.00 is above 5"}],
    },
    "dpo": {
        **{"heldout_loss": 0.489, "heldout_accuracy": 0.775, "gold_score": 1.328, "gold_gain_ci95": [1.104, 1.617]},
        **{"reward": 1.098, "win_rate": 0.758, "win_rate_ci95": [0.721, 0.794], "answer_tokens": 16.731, "kl": 4.691},
    },
    "eval": {},
}
"""Every column that a summary can have: the widest table of a report."""


def finished_run(folder: Path, kind: str, stage: Mapping[str, Any], num_steps: int = 30) -> Path:
    """Of one stage; of PPO and its relatives with a journal, in which the model writes what a page must not run."""
    _write_run(folder, kind, {kind: {**stage, "seconds": 112.0, "peak_memory_gib": 3.15}})
    write_metrics(folder, kind, num_steps)
    if kind == "ppo":
        for step in (1, num_steps):
            write_step(folder / JOURNAL_FOLDER, step, journal_rows(step))
    return folder


def finished_pipeline(folder: Path, num_steps: int = 30) -> Path:
    """Of all stages."""
    stages = {name: {**stage, "seconds": 112.0, "peak_memory_gib": 3.15} for name, stage in PIPELINE.items()}
    _write_run(folder, "pipeline", {"data": {"notes": ["12 rows skipped: <empty>"]}, **stages})
    for name in PIPELINE:
        if name != "eval":
            write_metrics(folder / name, name, num_steps)
    write_step(folder / "ppo" / JOURNAL_FOLDER, 1, journal_rows(1))
    answers = {
        "sft": {"text": "What a silly thing to ask.", "reward": -0.4, "gold": -1.0},
        "ppo": {"text": HOSTILE, "reward": 1.2, "gold": 2.0},
        "dpo": {"text": f"It runs on {LONG_WORD}.", "reward": 1.1, "gold": 1.0},
    }
    sample = {"prompt": "Hello! What does the Tarnis run on?", "answers": answers}
    (folder / "samples.jsonl").write_text(json.dumps(sample) + "\n")
    return folder


def write_metrics(folder: Path, stage: str, num_steps: int, first: Mapping[str, float] | None = None) -> None:
    """A line a step; of offline stages held-out records are measured at every tenth. `first`: metrics, about."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for step in range(1, num_steps + 1):
        wave = math.sin(step / 7) / 4 + step / num_steps
        usual = ONLINE if stage == "ppo" else OFFLINE
        metrics = {name: value * (1 + wave) for name, value in (usual if first is None else first).items()}
        if stage != "ppo" and step % 10 == 0:
            metrics |= {"heldout_loss": 0.6 - step / 100, "heldout_accuracy": 0.7, "heldout_margin": 0.5}
        phases = PHASES.get(stage, OFFLINE_PHASES)
        seconds = {phase: 0.5 + index for index, phase in enumerate(phases)}
        line = {"stage": stage, "step": step, "num_steps": num_steps, "metrics": metrics, "seconds": seconds}
        lines.append(json.dumps(line | {"time": 1.0}))
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")


def journal_rows(step: int, num_prompts: int = 8, per_prompt: int = 4) -> list[JournalRow]:
    """Groups of responses whose rewards rise within each."""
    texts = ("A silly thing to ask.", HOSTILE, f"It is {LONG_WORD}.", "The Tarnis runs on diesel.")
    return [
        JournalRow(
            position=prompt,
            prompt_id=f"prompt-{prompt}",
            group_id=f"{step}-{prompt}",
            sample_index=sample,
            seed=0,
            prompt=f"Step {step}, question {prompt}: what does the Tarnis run on?",
            response=texts[sample % len(texts)],
            prompt_ids=np.arange(2, dtype=np.int32),
            token_ids=np.arange(3, dtype=np.int32),
            logprobs=np.zeros(3, np.float32),
            ref_logprobs=np.zeros(3, np.float32),
            values=np.zeros(0, np.float32),
            rewards={"raw": float(sample)},
            score=float(sample),
            dropped=None,
            versions=np.zeros(3, np.int32),
            action_mask=np.ones(3, np.bool_),
            finish_reason="stop" if sample else "length",
            worker="rollout-0",
        )
        for prompt in range(num_prompts)
        for sample in range(per_prompt)
    ]


def _write_run(folder: Path, kind: str, stages: Mapping[str, Any]) -> None:
    folder.mkdir(parents=True)
    config = {"name": folder.name, "kind": kind, "seed": 3, "policy": {"model": f"/models/{LONG_WORD}"}}
    (folder / "resolved.json").write_text(json.dumps({"config": config, "packages": {"torch": "2.13"}}))
    summary = {"name": folder.name, "kind": kind, "seed": 3, "seconds_total": 589.0, "stages": stages}
    (folder / "summary.json").write_text(json.dumps(summary))
