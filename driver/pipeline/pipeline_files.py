"""The files that a pipeline's stages begin with (Files), below its folder, and how their rows are written."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plumbob.data.reading.readers import PROMPT_ROW
from plumbob.data.records import Prompt
from plumbob.driver.stages.evaluating.evaluation import GoldReward
from plumbob.reward.reward_models.dialogue_form import DialogueForm


@dataclass(frozen=True)
class Files:
    """The stages' input.

    Attributes:
        gold_reward: scores responses for the evaluation alone; None on real data.
        noise_ceiling: accuracy of the best predictor of the held-out preferences; None where it is not known.
        notes: sentences about rows that were left out.
        dialogue_form: in which chat messages were written; None where there were none.
    """

    text: str
    demonstrations: str
    pairs: str
    heldout_pairs: str
    prompts: str
    heldout_prompts: str
    gold_reward: GoldReward | None
    noise_ceiling: float | None
    notes: tuple[str, ...]
    dialogue_form: DialogueForm | None = None


def files_in(
    folder: Path,
    gold_reward: GoldReward | None = None,
    ceiling: float | None = None,
    form: DialogueForm | None = None,
    notes: tuple[str, ...] = (),
) -> Files:
    return Files(
        text=str(folder / "text.jsonl"),
        demonstrations=str(folder / "demonstrations.jsonl"),
        pairs=str(folder / "pairs.jsonl"),
        heldout_pairs=str(folder / "heldout_pairs.jsonl"),
        prompts=str(folder / "prompts.jsonl"),
        heldout_prompts=str(folder / "heldout_prompts.jsonl"),
        gold_reward=gold_reward,
        noise_ceiling=ceiling,
        notes=notes,
        dialogue_form=form,
    )


def prompt_line(prompt: Prompt) -> dict[str, Any]:
    """With its row beside it, where a part of the reward reads rows."""
    return {"prompt": prompt.text} | ({PROMPT_ROW: dict(prompt.row)} if prompt.row else {})


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """A line a row; what JSON has no form for, such as a date of a Parquet file, becomes text."""
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")
