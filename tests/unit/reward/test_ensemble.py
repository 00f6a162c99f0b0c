"""Several reward models as one scorer."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from plumbob.configs.settings.rewards import GoldRewardSettings, ScorerSettings
from plumbob.core.errors import UserError
from plumbob.reward.ensemble import EnsembleScorer
from plumbob.reward.open_scorer import check_reward, open_scorer
from plumbob.reward.reward_models.bert_scorer import BertScorer
from plumbob.reward.reward_models.calibration import Calibration, save_calibration
from plumbob.reward.scorer import Score, ScoreRequest
from tests.support.score_requests import score_requests
from tests.support.tiny_scorer import model_reward, write_scorer

PAIRS = [("a b c", "d e"), ("a", "b c d"), ("", "x")]


class Fixed:
    """Scores each response by a table."""

    def __init__(self, **totals: float) -> None:
        self._totals = totals

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        return [Score(self._totals[response], {"raw": 99.0}) for response in (request.response for request in requests)]


def test_disagreement_is_paid_for_by_hand() -> None:
    ensemble = EnsembleScorer([Fixed(x=1, y=2), Fixed(x=3, y=2), Fixed(x=5, y=2)], penalty=0.5)
    one, agreed = ensemble.score(score_requests([("q", "x"), ("q", "y")]))
    # 1, 3 and 5: mean 3, variance (4 + 0 + 4) / 3. All of one mind: nothing is taken off.
    assert one.total == pytest.approx(3 - 0.5 * math.sqrt(8 / 3))
    assert one.parts == {"model-0": 1, "model-1": 3, "model-2": 5, "std": pytest.approx(math.sqrt(8 / 3))}
    assert (agreed.total, agreed.parts["std"]) == (2, 0)
    assert ensemble.score([]) == []


@pytest.fixture(scope="module")
def new_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    def make(seed: int) -> Path:
        return write_scorer(tmp_path_factory.mktemp("reward_model"), seed)

    return make


def test_each_member_is_normalised_by_its_own_calibration(new_model: Callable[[int], Path]) -> None:
    first, second = new_model(0), new_model(1)
    save_calibration(Calibration(mean=1.0, std=2.0, num_samples=9, under="x"), first)
    save_calibration(Calibration(mean=-3.0, std=0.25, num_samples=9, under="x"), second)
    raw = [BertScorer(model_reward(folder)).raw_scores(PAIRS) for folder in (first, second)]
    settings = ScorerSettings(model=str(first), ensemble=(str(second),), uncertainty_penalty=2.0, max_tokens=32)
    check_reward(settings.reward)
    found = open_scorer(settings.reward, "cpu").score(score_requests(PAIRS))
    for score, one, other in zip(found, *raw, strict=True):
        one, other = (one - 1) / 2, (other + 3) * 4
        assert (score.parts["model-0"], score.parts["model-1"]) == pytest.approx((one, other), abs=1e-4)
        # Of two, the standard deviation is half the distance.
        assert score.total == pytest.approx((one + other) / 2 - abs(one - other), abs=1e-4)
    alone = open_scorer(ScorerSettings(model=str(first), max_tokens=32).reward, "cpu").score(score_requests(PAIRS))
    assert [score.total for score in alone] == pytest.approx([score.parts["model-0"] for score in found])


def test_a_member_that_cannot_be_used_is_named(new_model: Callable[[int], Path], tmp_path: Path) -> None:
    good, uncalibrated = new_model(0), new_model(1)
    save_calibration(Calibration(mean=0.0, std=1.0, num_samples=9, under="x"), good)
    for bad, message in ((uncalibrated, r"there is no calibration\.json"), (tmp_path / "nowhere", "no such folder")):
        settings = ScorerSettings(model=str(good), ensemble=(str(good), str(bad)), max_tokens=32)
        with pytest.raises(UserError, match=f"reward.ensemble={bad}: {message}"):
            check_reward(settings.reward)
        with pytest.raises(UserError, match=f"reward.ensemble={bad}: "):
            open_scorer(settings.reward, "cpu")


def test_models_are_looked_at_without_their_weights(new_model: Callable[[int], Path]) -> None:
    folder = new_model(0)
    settings = GoldRewardSettings(model=str(folder), max_tokens=32, normalize=False)
    check_reward(settings.reward)
    with pytest.raises(
        UserError, match=r"gold_reward\.max_tokens=33: gold_reward\.model=.* 32 tokens; set gold_reward\.max_tokens=32"
    ):
        check_reward(settings.model_copy(update={"max_tokens": 33}).reward)
    (folder / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(UserError, match=rf"gold_reward\.model={folder}: model\.safetensors is damaged"):
        check_reward(settings.reward)
