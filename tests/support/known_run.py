"""A run folder whose every number is written by hand: what a page shows of it is known."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Tokenizer, decoders
from tokenizers.models import WordLevel

from plumbob.rollout.journal import JOURNAL_FOLDER, JournalRow, write_step
from plumbob.rollout.rollout_records import NO_VERSION, EpisodeRecord, EpisodeTurn
from plumbob.rollout.shaping_record import ShapingRecord, ShapingStep

KNOWN_RUN = "known"
WORDS = ("</s>", "Diesel", " it", " is", "\n", "  ", "<b>", "\u202e", "\x00", ".")
"""The whole vocabulary, by its ids."""

MANY_TOKENS = 2_000
LONG_WORD = "a" * 100_000
HOSTILE = '<script>document.title = "run"</script><img src=x onerror="document.title = 1">\u202ecod.exe\x07'

NUMBERS = {
    "logprobs": [-0.5, -1.25, -0.25, -2.0],
    "learner_logprobs": [-0.5, -1.3125, -0.25, -2.0],
    "ref_logprobs": [-0.75, -1.0, -0.25, -3.0],
    "entropies": [0.125, 1.0, 2.0, 0.5],
    "advantages": [0.5, -0.5, 1.5, -1.25],
    "values": [0.5, 0.25, 0.75, 1.0],
    "returns": [1.875, 2.0, 2.0, 2.0],
    "token_rewards": [-0.125, 0.0, 0.0, 2.0],
    "ratios": [1.0, 1.5, 0.75, 1.0],
}
"""Of the first response, token by token. With gamma 1 its TD errors are r + V' - V = -0.375, 0.5, 0.25, 1.0; its KL
is log pi of the learner - log pi_ref = 0.25, -0.3125, 0, 1; its gap to the sampler is 0.0625 at the second token, whose
ratio is the one that is clipped.
"""

SHAPING = ShapingRecord(
    (
        ShapingStep("model", "part", 3.0),
        ShapingStep("brief", "part", -0.5),
        ShapingStep("scale", "scale", 2.5),
        ShapingStep("clip", "clip", -1.0),
        ShapingStep("no end", "penalty", -2.0),
        ShapingStep("kl", "kl", -0.125),
    ),
    total=2.5,
    undiscounted_return=1.875,
)
"""3 - 0.5 = 2.5, doubled 5, clipped at 4, less 2 for a missing end, less 0.125 for the KL: 1.875."""


def known_run(runs: Path) -> Path:
    """Below `runs`: a PPO run of two steps, with two groups of four in the first and one in the second."""
    folder = runs / KNOWN_RUN
    (folder / "policy").mkdir(parents=True)
    _tokenizer().save(str(folder / "policy" / "tokenizer.json"))
    config = {"name": KNOWN_RUN, "kind": "online", "policy": {"model": str(folder / "policy")}}
    config |= {"online": {"estimator": {"kind": "gae", "gamma": 1.0}}}
    (folder / "resolved.json").write_text(json.dumps({"config": config, "packages": {}}))
    line = {"stage": "ppo", "num_steps": 2, "metrics": {"reward": 0.5}, "seconds": {"learn": 1.0}}
    lines = [json.dumps(line | {"step": step, "time": 10.0 + step}) for step in (1, 2)]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    summary = {"name": KNOWN_RUN, "kind": "ppo", "seconds_total": 20.0, "stages": {"ppo": {"seconds": 20.0}}}
    (folder / "summary.json").write_text(json.dumps(summary))
    write_step(folder / JOURNAL_FOLDER, 1, [*_first_group(), *_hostile_group()])
    write_step(folder / JOURNAL_FOLDER, 2, _flat_group())
    pq.write_table(_pairs(), folder / "heldout_pairs.parquet")
    return folder


def _tokenizer() -> Tokenizer:
    """The texts of its tokens, joined, are the text."""
    tokenizer = Tokenizer(WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token=WORDS[0]))
    tokenizer.decoder = decoders.Fuse()
    return tokenizer


def _row(ids: list[int], sample: int, score: float, **others: Any) -> JournalRow:
    size = len(ids)
    row = JournalRow(
        position=0,
        prompt_id="prompt-0",
        group_id="1-0",
        sample_index=sample,
        seed=7,
        prompt="What does it run on?",
        response="".join(WORDS[token] for token in ids),
        prompt_ids=np.arange(2, dtype=np.int32),
        token_ids=np.asarray(ids, np.int32),
        logprobs=np.full(size, -0.5, np.float32),
        ref_logprobs=np.full(size, -0.5, np.float32),
        values=np.zeros(0, np.float32),
        rewards={"model": score, "brief": -1.0},
        score=score,
        dropped=None,
        versions=np.full(size, 3, np.int32),
        action_mask=np.ones(size, np.bool_),
        finish_reason="stop",
        worker="rollout-0",
    )
    return replace(row, **others)


def _first_group() -> list[JournalRow]:
    """The response of known numbers, one of 2,000 tokens by two policy versions, an episode, and an empty one."""
    known: dict[str, Any] = {name: np.asarray(values, np.float32) for name, values in NUMBERS.items()}
    known |= {"clipped": np.asarray([False, True, False, False]), "shaping": SHAPING, "finish_reason": "length"}
    many = np.arange(MANY_TOKENS)
    waves = {name: np.sin(many / 20).astype(np.float32) for name in ("values", "advantages", "token_rewards")}
    turns = (EpisodeTurn(1, "Diesel it", -0.25, ({"role": "tool", "content": HOSTILE},)), EpisodeTurn(4, " is.", 1.0))
    masked = np.asarray([True, True, False, True, True])
    played = {"action_mask": masked, "episode": EpisodeRecord(turns, "time-out: 5 s")}
    return [
        _row([1, 2, 4, 0], 0, 2.5, **known),
        _row((many % 9 + 1).tolist(), 1, 0.5, versions=np.where(many < 1_500, 3, 4).astype(np.int32), **waves),
        _row([1, 2, 6, 3, 9], 2, 0.75, versions=np.where(masked, 3, NO_VERSION).astype(np.int32), **played),
        _row([], 3, -1.0),
    ]


def _hostile_group() -> list[JournalRow]:
    shared = {"group_id": "1-1/<b>", "prompt_id": "prompt-1", "prompt": HOSTILE, "position": 1}
    texts = (HOSTILE, LONG_WORD, "\n".join("line" for _ in range(200)), "")
    return [_row([7, 8, 6, 5, 4], sample, sample / 4, response=text, **shared) for sample, text in enumerate(texts)]


def _flat_group() -> list[JournalRow]:
    """Its rewards are all the same, so nothing is learnt from it."""
    flat = {"group_id": "2-0", "dropped": "flat", "ref_logprobs": np.zeros(0, np.float32), "position": 2}
    return [_row([1, 0], sample, 1.0, **flat) for sample in range(4)]


def _pairs() -> pa.Table:
    """Of four pairs two as the person chose."""
    margins = [2.0, -0.5, 0.5, -3.0]
    rows = [
        {
            **{
                "step": 2,
                "index": index,
                "prompt": f"Question {index}?",
                "chosen": HOSTILE,
                "rejected": f"No. {index}",
            },
            **{"chosen_reward": 1.0, "rejected_reward": 1.0 - margin, "margin": margin, "annotator": None},
            "probability": 1 / (1 + math.exp(-margin)),
        }
        for index, margin in enumerate(margins)
    ]
    return pa.Table.from_pylist(rows)
