"""The responses of a journal by filter and order, and those of one group.

Of `nested/ppo`, steps 1 and 30 have 8 prompts with 4 responses each, of scores 0 to 3 and 3 tokens of version 0, the
first of each group cut at its length, the second hostile; step 9 has one episode of 5 tokens of versions 3 and 4.
"""

from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from plumbob.rollout.journal import JOURNAL_FOLDER
from plumbob.rollout.journal_files import step_file
from tests.support.finished_run import HOSTILE, finished_run
from tests.support.served_runs import asked, served

RUN = "/api/runs/nested~ppo"


def test_the_first_view_has_what_there_is_to_choose_from(client: httpx.Client) -> None:
    found = asked(client, f"{RUN}/rollouts")
    assert (found["total"], found["num_rows"], len(found["rows"])) == (65, 65, 50)
    assert found["steps"] == [1, 9, 30]
    assert found["versions"] == [0, 1, 2, 3, 4]  # Of step 9 the statistics say at most 4, and that some have none.
    assert found["finish_reasons"] == ["stop", "length"] and found["parts"] == ["raw"]
    edges, counts = found["histogram"]["edges"], found["histogram"]["counts"]
    assert (edges[0], edges[-1], len(edges)) == (0, 3, len(counts) + 1)
    assert sum(counts) == 65 and counts[0] == counts[-1] == 16
    first = found["rows"][0]
    assert (first["step"], first["row"], first["group_id"], first["length"]) == (30, 0, "30-0", 3)
    assert first["rewards"] == {"raw": 0.0} and first["finish_reason"] == "length" and first["num_turns"] is None


@pytest.mark.parametrize(
    ("query", "total"),
    [
        ({"step_from": 9}, 33),
        ({"step_to": 9}, 33),
        ({"score_min": 2}, 32),
        ({"score_min": 0.5, "score_max": 1}, 17),
        ({"part": "raw", "part_min": 3}, 16),
        ({"part": "environment"}, 1),
        ({"part": "no such part"}, 0),
        ({"length_min": 4}, 1),
        ({"length_max": 4}, 64),
        ({"version": 0}, 64),
        ({"version": 4}, 1),
        ({"version": 2}, 0),
        ({"finish": "length"}, 16),
        ({"finish": "no such reason"}, 0),
        ({"dropped": "yes"}, 0),
        ({"dropped": "no"}, 65),
        ({"text": "ALERT(1)"}, 16),
        ({"text": "six times"}, 1),
        ({"text": "diesel", "score_min": 3, "step_to": 1}, 8),
    ],
)
def test_filters(client: httpx.Client, query: dict[str, Any], total: int) -> None:
    assert asked(client, f"{RUN}/rollouts", **query)["total"] == total


def test_the_histogram_is_of_what_the_other_filters_leave(client: httpx.Client) -> None:
    """So that bounds of the score can be widened again."""
    found = asked(client, f"{RUN}/rollouts", score_min=3, step_to=1)
    assert found["total"] == 8 and sum(found["histogram"]["counts"]) == 32


def test_orders(client: httpx.Client) -> None:
    def locations(**query: Any) -> list[tuple[int, int]]:
        return [(row["step"], row["row"]) for row in asked(client, f"{RUN}/rollouts", **query)["rows"]]

    assert locations(limit=3, order="asc") == [(1, 0), (1, 1), (1, 2)]
    assert locations(limit=3, offset=31) == [(30, 31), (9, 0), (1, 0)]
    # Score 3 is that of every fourth row; the newest step comes first, and within it the first row.
    assert locations(limit=2, sort="score") == [(30, 3), (30, 7)]
    assert locations(limit=2, sort="score", order="asc") == [(30, 0), (30, 4)]
    assert locations(limit=2, sort="length") == [(9, 0), (30, 0)]
    assert locations(offset=65) == []


def test_long_texts_are_cut_in_the_list_and_whole_in_the_group(client: httpx.Client) -> None:
    listed = asked(client, f"{RUN}/rollouts", step_to=1, limit=4, order="asc")["rows"]
    group = asked(client, f"{RUN}/rollouts/1/group/1-0")
    assert [len(row["response"]) for row in listed][2] == 300
    assert [row["sample_index"] for row in group["rows"]] == [0, 1, 2, 3]
    assert len(group["rows"][2]["response"]) > 300 and group["rows"][1]["response"] == HOSTILE
    assert group["prompt"] == "Step 1, question 0: what does the Tarnis run on?" and group["prompt_row"] == {}


def test_a_step_that_several_wrote_is_shown_as_one(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "runs" / "ranks", "ppo", {})
    path = step_file(run / JOURNAL_FOLDER, 1)
    table = pq.read_table(path)
    with served(tmp_path / "runs") as client:
        whole = asked(client, "/api/runs/ranks/rollouts", step_to=1, order="asc")
        row = asked(client, "/api/runs/ranks/rollouts/1/row/2")
        path.unlink()
        path.mkdir()
        pq.write_table(table.slice(0, 2), path / "part-0000.parquet")
        pq.write_table(table.slice(2), path / "part-0001.parquet")
        assert asked(client, "/api/runs/ranks/rollouts", step_to=1, order="asc") == whole
        assert asked(client, "/api/runs/ranks/rollouts/1/row/2") == row
        # A file that leads elsewhere is none of the journal's.
        elsewhere = tmp_path / "part.parquet"
        (path / "part-0001.parquet").rename(elsewhere)
        (path / "part-0001.parquet").symlink_to(elsewhere)
        assert asked(client, "/api/runs/ranks/rollouts")["damaged"] == [path.name]


def test_a_journal_of_an_earlier_version_and_a_damaged_file_are_shown_as_they_are(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "runs" / "old", "ppo", {})
    journal = run / JOURNAL_FOLDER
    table = pq.read_table(step_file(journal, 1))
    early = table.select([name for name in table.schema.names if name not in ("prompt_row", "failures", "episode")])
    pq.write_table(early, step_file(journal, 1))
    content = step_file(journal, 30).read_bytes()
    step_file(journal, 2).write_bytes(content[:-100])
    step_file(journal, 3).write_bytes(b"")
    step_file(journal, 4).mkdir()
    pq.write_table(pa.table({"score": ["a", "b"]}), step_file(journal, 5))
    with served(tmp_path / "runs") as client:
        found = asked(client, "/api/runs/old/rollouts")
        assert found["total"] == 64
        assert found["damaged"] == [f"step-{step:06d}.parquet" for step in (2, 3, 4, 5)]
        assert asked(client, "/api/runs/old/rollouts/1/row/0")["episode"] is None
        for step in (2, 3, 4, 5):
            answer = client.get(f"/api/runs/old/rollouts/{step}/row/0")
            assert answer.status_code == 422 and "damaged" in answer.json()["error"]


def test_a_run_without_a_journal_has_no_rows(tmp_path: Path) -> None:
    finished_run(tmp_path / "sft", "sft", {})
    with served(tmp_path) as client:
        found = asked(client, "/api/runs/sft/rollouts")
        assert found["rows"] == [] and found["total"] == 0 and found["histogram"] == {"edges": [], "counts": []}
        assert asked(client, "/api/runs/sft/pairs")["available"] is False
