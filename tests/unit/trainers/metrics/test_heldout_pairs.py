"""The file of held-out pairs: what is written is read back, as many as are kept, and nothing of none."""

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from plumbob.core.errors import UserError
from plumbob.data.records import Ranking, ScoredResponse
from plumbob.trainers.metrics.heldout_pairs import HELDOUT_PAIRS_FILE, MAX_PAIRS, RewardedPair, read_pairs, write_pairs
from plumbob.trainers.offline.reward_modelling.heldout_feedback import rewarded_pairs

PAIR = RewardedPair(3, "wie groß?", "3 m", "ja", 1.5, 0.5, 1.0, "anna")


def test_pairs_come_back_with_the_probability_of_their_margin(tmp_path: Path) -> None:
    alone = RewardedPair(4, "q", None, "bad", None, 2000.0, -2000.0)
    write_pairs(tmp_path, 7, [PAIR, alone])
    first, second = read_pairs(tmp_path / HELDOUT_PAIRS_FILE).to_pylist()
    assert first == {
        **{"step": 7, "index": 3, "prompt": "wie groß?", "chosen": "3 m", "rejected": "ja"},
        **{"chosen_reward": 1.5, "rejected_reward": 0.5, "margin": 1.0, "annotator": "anna"},
        "probability": pytest.approx(1 / (1 + math.exp(-1))),
    }
    assert (second["chosen"], second["chosen_reward"], second["annotator"]) == (None, None, None)
    assert second["probability"] == 0.0


def test_of_many_the_first_are_kept_and_of_none_nothing(tmp_path: Path) -> None:
    write_pairs(tmp_path, 1, [])
    assert list(tmp_path.iterdir()) == []
    write_pairs(tmp_path, 1, [PAIR] * (MAX_PAIRS + 1))
    assert len(read_pairs(tmp_path / HELDOUT_PAIRS_FILE)) == MAX_PAIRS


def test_another_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "other.parquet"
    pq.write_table(pa.table({"prompt": ["a"]}), path)
    with pytest.raises(UserError, match=r"other\.parquet: is not a file of held-out pairs"):
        read_pairs(path)
    path.write_bytes(b"no")
    with pytest.raises(UserError, match=r"other\.parquet: cannot be read as Parquet"):
        read_pairs(path)


def test_a_ranking_gives_each_of_its_pairs_with_the_better_response_first() -> None:
    ranking = Ranking("q", ("best", "middle", "worst"), annotator="bo")
    rewards = [np.array([0.5, 1.0], np.float32), np.array([2.0, 0.5, 1.0], np.float32)]
    found = rewarded_pairs([Ranking("p", ("a", "b")), ranking], rewards)
    assert [(pair.index, pair.chosen, pair.rejected, pair.margin, pair.annotator) for pair in found] == [
        (0, "a", "b", -0.5, None),
        (1, "best", "middle", 1.5, "bo"),
        (1, "best", "worst", 1.0, "bo"),
        (1, "middle", "worst", -0.5, "bo"),
    ]
    assert rewarded_pairs([ScoredResponse("q", "a", 4.0)], [np.array([1.0], np.float32)]) == []
