import json

import pytest

from plumbob.configs.settings.models import REWARD_MODEL, ModelRef
from plumbob.core.errors import UserError
from plumbob.reward.reward_models.calibration import Calibration, calibrate, load_calibration, save_calibration


def test_mean_and_standard_deviation_by_hand():
    # 1, 3, 5, 7: mean 4, variance (9 + 1 + 1 + 9) / 4 = 5.
    found = calibrate([1.0, 3.0, 5.0, 7.0], under="the SFT policy")
    assert found == Calibration(4.0, 5**0.5, 4, "the SFT policy")


@pytest.mark.parametrize("scores", [[2.0], [2.0, 2.0], [1e4, 1e4 + 1e-4]])
def test_scores_without_a_spread_cannot_be_calibrated(scores):
    with pytest.raises(UserError, match=f"scores all {len(scores)} responses"):
        calibrate(scores, "anyone")


def test_no_scores_cannot_be_calibrated():
    with pytest.raises(UserError, match="no responses"):
        calibrate([], "anyone")


def test_it_is_stored_and_read_back_exactly(tmp_path):
    calibration = Calibration(0.1 + 0.2, 1 / 3, 128, "runs/sft/policy")
    save_calibration(calibration, tmp_path)
    assert load_calibration(ModelRef(str(tmp_path), REWARD_MODEL)) == calibration
    assert [path.name for path in tmp_path.iterdir()] == ["calibration.json"]


def test_a_missing_one_says_what_to_do(tmp_path):
    for section in ("reward", "gold_reward"):
        message = rf"^{section}\.model={tmp_path}: there is no calibration\.json .*{section}\.normalize=false"
        with pytest.raises(UserError, match=message):
            load_calibration(ModelRef(str(tmp_path), f"{section}.model"))


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"mean": 0, "std": 1, "num_samples": 4}',
        '{"mean": "much", "std": 1, "num_samples": 4, "under": "x"}',
        '{"mean": 0, "std": 0, "num_samples": 4, "under": "x"}',
        '{"mean": NaN, "std": 1, "num_samples": 4, "under": "x"}',
    ],
)
def test_a_broken_one_is_refused_by_setting_and_file(tmp_path, content):
    (tmp_path / "calibration.json").write_text(content)
    message = (
        rf"^gold_reward\.model={tmp_path}: {tmp_path}/calibration\.json cannot be used: .*gold_reward\.normalize=false"
    )
    with pytest.raises(UserError, match=message):
        load_calibration(ModelRef(str(tmp_path), "gold_reward.model"))


def test_the_file_is_plain_json(tmp_path):
    save_calibration(Calibration(1.5, 2.0, 8, "pairs"), tmp_path)
    content = json.loads((tmp_path / "calibration.json").read_text())
    assert content == {"mean": 1.5, "std": 2.0, "num_samples": 8, "under": "pairs"}
