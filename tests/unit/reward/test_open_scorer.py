"""From each reward to its scorer, errors by the setting that named the model, and who knows which reward it is."""

import ast
import re
from pathlib import Path
from typing import Any

import pytest

from plumbob.configs.settings.rewards import GoldRewardSettings, RuleReward, ScorerSettings
from plumbob.core.errors import UserError
from plumbob.reward.open_scorer import check_reward, open_scorer
from plumbob.reward.reward_models.bert_scorer import BertScorer
from plumbob.reward.reward_models.calibration import Calibration, save_calibration
from plumbob.reward.scorer import Score
from tests.support.score_requests import score_requests
from tests.support.source_tree import modules, text
from tests.support.tiny_scorer import model_reward, write_scorer

PAIRS = score_requests([("a b c", "d e"), ("", "x")])


def test_a_model_scores_as_it_does_by_itself(tmp_path: Path) -> None:
    reward = model_reward(write_scorer(tmp_path))
    check_reward(reward)
    assert open_scorer(reward, "cpu").score(PAIRS) == BertScorer(reward).score(PAIRS)


def test_a_rule_scores_by_its_function() -> None:
    reward = RuleReward(lambda prompt, response: float(len(prompt) - len(response)))
    check_reward(reward)
    assert open_scorer(reward, "cpu").score(PAIRS) == [Score(2.0, {}), Score(-1.0, {})]


def good_model(folder: Path) -> str:
    good = write_scorer(folder)
    save_calibration(Calibration(mean=0.0, std=1.0, num_samples=9, under="x"), good)
    return str(good)


@pytest.mark.parametrize("settings", [ScorerSettings, GoldRewardSettings])
@pytest.mark.parametrize("is_damaged", [False, True])
def test_a_model_that_fails_is_named_by_its_setting(
    settings: type[ScorerSettings], is_damaged: bool, tmp_path: Path
) -> None:
    """One that is not there, and one whose weights are cut off."""
    good, bad = good_model(tmp_path / "good"), str(tmp_path / "bad")
    if is_damaged:
        weights = Path(good_model(tmp_path / "bad")) / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:1000])
    given: dict[str, dict[str, Any]] = {
        "model": {"model": bad},
        "ensemble": {"model": good, "ensemble": (bad,)},
        "parts.0.model": {"parts": ({"kind": "model", "model": bad, "max_tokens": 32},)},
        "parts.1.model": {
            "model": good,
            "parts": ({"kind": "length", "max": 9}, {"kind": "model", "name": "b", "model": bad, "max_tokens": 32}),
        },
    }
    for key, values in given.items():
        reward = settings(max_tokens=32, **values).reward
        for use in (check_reward, lambda reward: open_scorer(reward, "cpu")):
            with pytest.raises(UserError, match=rf"^{settings.section}\.{re.escape(key)}={bad}: "):
                use(reward)


def test_nobody_else_asks_which_reward_it_is() -> None:
    """Not of those that are no kind of part; the kinds are found by their names (test_open_part.py)."""
    members = {"ModelReward", "EnsembleReward", "RuleReward"}
    asked = []
    for module in modules():
        if module == "reward.open_scorer":
            continue
        for node in ast.walk(ast.parse(text(module))):
            match node:
                case ast.Call(func=ast.Name("isinstance"), args=[_, kinds]):
                    names = {name.id for name in ast.walk(kinds) if isinstance(name, ast.Name)}
                case ast.MatchClass(cls=ast.Name(name)):
                    names = {name}
                case _:
                    continue
            asked += [(module, name) for name in names & members]
    assert asked == []


def test_nobody_else_reads_what_only_an_ensemble_has() -> None:
    read = [
        (module, node.attr)
        for module in modules()
        for node in ast.walk(ast.parse(text(module)))
        if isinstance(node, ast.Attribute) and node.attr in ("ensemble", "uncertainty_penalty")
    ]
    assert {module for module, _ in read} == {"configs.settings.rewards"}
