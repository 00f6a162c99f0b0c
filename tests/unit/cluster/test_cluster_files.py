"""What a pipeline on preference pairs derives from them: no prompt on both sides, text from training alone."""

import json
from pathlib import Path
from typing import Any

import pytest

from cluster.files import Files, prepare_files
from configs.errors import UserError
from configs.schema import PipelineRun
from configs.sections import NewBert, NewLlama, PipelineData, PipelinePolicy, PipelineScorer

NUM_PROMPTS = 20


def rows(path: str | Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def write(path: Path, content: list[dict[str, str]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in content))
    return str(path)


@pytest.fixture
def pairs(tmp_path: Path) -> str:
    """Two pairs for each of 20 prompts."""
    content = [
        {"prompt": f"Q{n}: ", "chosen": f"good {n} {which}", "rejected": f"bad {n} {which}"}
        for n in range(NUM_PROMPTS)
        for which in "ab"
    ]
    return write(tmp_path / "pairs.jsonl", content)


def prepare(tmp_path: Path, **data: Any) -> Files:
    run = PipelineRun(
        data=PipelineData(**({"heldout_fraction": 0.25} | data)),
        policy=PipelinePolicy(model=NewLlama()),
        reward=PipelineScorer(model=NewBert()),
    )
    prepared = prepare_files(run)
    folder = tmp_path / "out" / "data"
    assert not folder.exists(), "preparing writes nothing"
    return prepared(folder)


def prompts_of(path: str) -> set[str]:
    return {row["prompt"] for row in rows(path)}


def test_everything_is_derived_from_the_pairs(tmp_path: Path, pairs: str) -> None:
    files = prepare(tmp_path, pairs=pairs)
    train, heldout = rows(files.pairs), rows(files.heldout_pairs)
    # A quarter of 20 prompts, two pairs each.
    assert (len(train), len(heldout)) == (30, 10)
    assert prompts_of(files.pairs).isdisjoint(prompts_of(files.heldout_pairs))
    assert prompts_of(files.prompts) == prompts_of(files.pairs) and len(rows(files.prompts)) == 15
    assert (
        prompts_of(files.heldout_prompts) == prompts_of(files.heldout_pairs) and len(rows(files.heldout_prompts)) == 5
    )
    assert rows(files.demonstrations) == [{"prompt": r["prompt"], "completion": r["chosen"]} for r in train]
    assert [row["text"] for row in rows(files.text)] == [r["prompt"] + r["chosen"] for r in train]
    assert files.judge is None and files.noise_ceiling is None


def test_given_files_take_the_place_of_derived_ones(tmp_path: Path, pairs: str) -> None:
    asked = write(tmp_path / "prompts.jsonl", [{"prompt": f"New {n}"} for n in range(8)])
    text = write(tmp_path / "text.jsonl", [{"text": "words"}])
    shown = write(tmp_path / "shown.jsonl", [{"prompt": f"Say {n}", "completion": "yes"} for n in range(3)])
    files = prepare(tmp_path, pairs=pairs, prompts=asked, text=text, demonstrations=shown)
    assert files.text == text
    assert [row["prompt"] for row in rows(files.demonstrations)] == ["Say 0", "Say 1", "Say 2"]
    both = [row["prompt"] for path in (files.prompts, files.heldout_prompts) for row in rows(path)]
    assert sorted(both) == [f"New {n}" for n in range(8)] and len(rows(files.heldout_prompts)) == 2


def test_a_demonstration_on_a_held_out_prompt_is_refused_or_dropped(tmp_path: Path, pairs: str) -> None:
    everything = [{"prompt": f"Q{n}: ", "completion": "yes"} for n in range(NUM_PROMPTS)]
    shown = write(tmp_path / "shown.jsonl", everything)
    with pytest.raises(UserError, match=r"data\.demonstrations and the held-out prompts: 5 prompts stand in both"):
        prepare(tmp_path, pairs=pairs, demonstrations=shown)
    files = prepare(tmp_path, pairs=pairs, demonstrations=shown, overlap="drop")
    assert prompts_of(files.demonstrations).isdisjoint(prompts_of(files.heldout_prompts))
    assert len(rows(files.demonstrations)) == 15 and any("dropped from training" in note for note in files.notes)


def test_a_pipeline_needs_something_held_out(tmp_path: Path, pairs: str) -> None:
    with pytest.raises(UserError, match="nothing is held out"):
        prepare(tmp_path, pairs=pairs, heldout_fraction=0.0)
