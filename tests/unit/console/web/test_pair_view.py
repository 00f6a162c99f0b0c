"""Held-out pairs and the rewards that a model gave them."""

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from plumbob.console.web.journal_views.pair_view import PAIRS_FILE, calibration
from tests.support.finished_run import HOSTILE, finished_run
from tests.support.served_runs import asked, served

MARGINS = (1.0, -2.0, 0.5, math.nan)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    run = finished_run(tmp_path / "runs" / "run", "reward", {})
    columns = {
        "step": [7] * 4,
        "index": [0, 1, 2, 3],
        "prompt": [HOSTILE] * 4,
        "chosen": ["a"] * 4,
        "rejected": ["b"] * 4,
        "chosen_reward": [1.0, -1.0, 0.5, None],
        "rejected_reward": [0.0, 1.0, 0.0, None],
        "margin": MARGINS,
        "probability": [1 / (1 + math.exp(-margin)) for margin in MARGINS],
        "annotator": [None, "ann", None, None],
    }
    pq.write_table(pa.table(columns), run / PAIRS_FILE)
    return run


def test_the_worst_disagreements_come_first(run: Path) -> None:
    with served(run.parent) as client:
        found = asked(client, "/api/runs/run/pairs", sort="disagreement")
        assert [row["index"] for row in found["rows"]] == [1]
        assert found["total"] == 4 and found["matching"] == 1 and found["step"] == 7
        assert found["accuracy"] == pytest.approx(2 / 3) and found["kind"] == "pairs"
        assert found["rows"][0]["annotator"] == "ann" and found["rows"][0]["agrees"] is False
        ordered = asked(client, "/api/runs/run/pairs", limit=2, offset=1)
        assert [row["index"] for row in ordered["rows"]] == [2, 0]
        assert sum(found["histogram"]["counts"]) == 3


def test_single_responses_have_one_text(run: Path) -> None:
    table = pq.read_table(run / PAIRS_FILE)
    location = table.schema.get_field_index("rejected")
    pq.write_table(table.set_column(location, "rejected", pa.nulls(4, pa.string())), run / PAIRS_FILE)
    with served(run.parent) as client:
        found = asked(client, "/api/runs/run/pairs")
    assert found["kind"] == "single" and found["rows"][0]["rejected"] is None


def test_a_damaged_file_is_said(run: Path) -> None:
    (run / PAIRS_FILE).write_bytes(b"PAR1")
    with served(run.parent) as client:
        answer = client.get("/api/runs/run/pairs")
    assert answer.status_code == 422 and "damaged" in answer.json()["error"]


def test_calibration_counts_the_confident_and_those_who_agree() -> None:
    """sigmoid(log 3) = 3/4, sigmoid(log 19) = 0.95: of two at 3/4 the person agrees with one, a tie counts half."""
    margins = np.asarray([math.log(3), -math.log(3), math.log(19), 0.0])
    found = calibration(margins)
    assert [bin_["count"] for bin_ in found] == [1, 2, 1]
    assert [bin_["predicted"] for bin_ in found] == pytest.approx([0.5, 0.75, 0.95])
    assert [bin_["observed"] for bin_ in found] == [0.5, 0.5, 1.0]
