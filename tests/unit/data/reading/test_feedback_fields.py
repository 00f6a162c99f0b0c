"""Files of rankings, of scores, and of pairs with who judged them."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from plumbob.configs.settings.data import ReadingSettings
from plumbob.core.errors import UserError
from plumbob.data.reading.readers import read_annotated_pairs, read_prompts, read_rankings, read_scored_responses
from plumbob.data.records import Ranking, ScoredResponse
from plumbob.data.texts.chat_text import Message

REFUSE = ReadingSettings()
SKIP = ReadingSettings(bad_rows="skip")
USER = {"role": "user", "content": "Hi"}
PAIR = {"prompt": "q", "chosen": "good", "rejected": "bad"}


def render(messages: list[Message], **_: Any) -> str:
    return "".join(f"[{message['role']}:{message['content']}]" for message in messages)


def save(folder: Path, *rows: dict[str, Any]) -> str:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", "answers": ["a", "b", "c"]},
        {"question": "q", "answers": ["a", "b", "c"], "ranks": None},
        {"prompt": "q", "answers": ["c", "a", "b"], "ranks": [3, 1, 2]},
        {"prompt": "q", "answers": ["b", "c", "a"], "scores": [0.5, -1, 7]},
    ],
)
def test_rankings_of_every_form_are_the_same_ranking(tmp_path: Path, row: dict[str, Any]) -> None:
    path = save(tmp_path, row)
    assert read_rankings(path, REFUSE, render).records == (Ranking("q", ("a", "b", "c")),)
    assert [prompt.text for prompt in read_prompts(path, REFUSE, render).records] == ["q"]


def test_rankings_of_messages_come_out_of_parquet(tmp_path: Path) -> None:
    row = {"prompt": [USER], "answers": [said("b"), said("a")], "ranks": [2, 1], "worker": 7}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "rankings.parquet")
    read = read_rankings(str(tmp_path / "rankings.parquet"), REFUSE, render)
    assert read.records == (Ranking("[user:Hi]", ("a", "b"), annotator="7"),)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "q"}, "'answers' is missing or null: expected prompt [+] answers .*found the fields prompt"),
        ({"answers": ["a", "b"]}, "'prompt' is missing or null"),
        ({"prompt": "q", "answers": ["a"]}, "'answers': expected a list of at least two responses, found .'a'."),
        ({"prompt": "q", "answers": "a"}, "'answers': expected a list of at least two responses"),
        ({"prompt": "q", "answers": ["a", 5]}, "'answer': expected text, found 5"),
        ({"prompt": "q", "answers": ["a", "b"], "ranks": [1]}, "'ranks': expected a list of 2 numbers"),
        ({"prompt": "q", "answers": ["a", "b"], "scores": [1, "2"]}, "'scores': expected a list of 2 numbers"),
        ({"prompt": "q", "answers": ["a", "b"], "ranks": [1, 1]}, "'ranks': expected no ties"),
        ({"prompt": "q", "answers": ["a", "b"], "ranks": [1, 2], "scores": [2, 1]}, "'ranks' or 'scores' .* both"),
        ({"prompt": "q", "answers": ["a", "b"], "annotator": ["x"]}, "'annotator': expected a name or a number"),
    ],
)
def test_a_ranking_that_is_none_is_named_and_may_be_skipped(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    path = save(tmp_path, {"prompt": "q", "answers": ["a", "b"]}, row)
    with pytest.raises(UserError, match=f"row 2: .*{message}"):
        read_rankings(path, REFUSE, render)
    assert len(read_rankings(path, SKIP, render).records) == 1


def test_blank_responses_and_equal_ones_are_counted(tmp_path: Path) -> None:
    rows = [["a", "b"], ["a", " "], ["a", "b", "a"]]
    read = read_rankings(save(tmp_path, *({"prompt": "q", "answers": responses} for responses in rows)), REFUSE, render)
    assert (len(read.records), read.num_empty, read.num_duplicate) == (1, 1, 1)
    assert any(note.endswith("because two of their responses are the same: row 3.") for note in read.notes)


@pytest.mark.parametrize("name", ["annotator", "annotator_id", "worker"])
def test_pairs_name_their_annotators(tmp_path: Path, name: str) -> None:
    path = save(tmp_path, {**PAIR, name: "ann"}, {**PAIR, name: 3, "margin": "much"})
    read = read_annotated_pairs(path, REFUSE, render, use_margin=False)
    assert read.records == tuple(Ranking("q", ("good", "bad"), 0.0, who) for who in ("ann", "3"))


def test_a_margin_is_read_where_it_is_asked_for(tmp_path: Path) -> None:
    path = save(tmp_path, {**PAIR, "margin": 2}, PAIR, {**PAIR, "margin": -1}, {**PAIR, "margin": "much"})
    read = read_annotated_pairs(path, SKIP, render, use_margin=True)
    assert read.records == (Ranking("q", ("good", "bad"), 2.0),)
    with pytest.raises(UserError, match=r"row 2: 'margin' is missing.*row 3: 'margin': expected at least 0.*row 4"):
        read_annotated_pairs(path, REFUSE, render, use_margin=True)
    mapped = ReadingSettings(columns={"margin": "gap", "annotator": "judge"})
    path = save(tmp_path, {**PAIR, "gap": 0.5, "judge": "ann"})
    assert read_annotated_pairs(path, mapped, render, True).records == (Ranking("q", ("good", "bad"), 0.5, "ann"),)


@pytest.mark.parametrize("response", ["answer", "response", "completion"])
@pytest.mark.parametrize("score", ["score", "rating"])
def test_scores_of_every_form(tmp_path: Path, response: str, score: str) -> None:
    path = save(
        tmp_path, {"prompt": "q", response: " a", score: 4}, {"question": [USER], response: said("b"), score: -0.5}
    )
    read = read_scored_responses(path, REFUSE, render)
    assert read.records == (ScoredResponse("q", " a", 4.0), ScoredResponse("[user:Hi]", "b", -0.5))
    assert read.records[0].responses == (" a",)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "q", "answer": "a"}, "'score' is missing or null"),
        ({"prompt": "q", "score": 1}, "'answer' is missing or null: expected prompt [+] answer [(]or response"),
        ({"prompt": "q", "answer": "a", "score": True}, "'score': expected a finite number, found True"),
        ({"prompt": "q", "answer": "a", "score": float("nan")}, "'score': expected a finite number, found nan"),
    ],
)
def test_a_score_that_is_none_is_named(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_scored_responses(save(tmp_path, row), REFUSE, render)
