"""A run that measures its reward's bias before it learns from it: what the plan says, what the run says, a refusal."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from plumbob.configs.checks.input_checks import check_bias
from plumbob.configs.runs import OnlineRun
from plumbob.configs.settings.reward_parts import EnvironmentPart
from plumbob.configs.settings.rewards import RuleReward, ScorerSettings
from plumbob.configs.settings.rules.reward_rules import NumericRule
from plumbob.configs.settings.stewardship.bias_checks import BiasCheckSettings
from plumbob.core.errors import UserError
from plumbob.driver.stages.online_stage import prepare
from plumbob.driver.stages.stage import run_stage
from plumbob.reward.open_scorer import open_scorer
from plumbob.reward.scorer import Score, ScoreRequest
from tests.support.online_world import FakeOnlineWorld
from tests.support.tiny_policy import write_policy
from tests.unit.driver.stages.test_online_stage import Heard, context_of, two_steps

TEXTS = [{"prompt": f"{letter} x", "chosen": f"he {letter}", "rejected": "she"} for letter in "abcdef"]


@pytest.fixture
def run(tmp_path: Path) -> OnlineRun:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("\n".join(json.dumps({"prompt": f"a b {letter}"}) for letter in "cdef"))
    (tmp_path / "texts.jsonl").write_text("\n".join(map(json.dumps, TEXTS)))
    bias = BiasCheckSettings(texts=str(tmp_path / "texts.jsonl"), max_difference=0.2)
    whole = two_steps(tmp_path, write_policy(tmp_path / "policy"), prompts)
    return whole.model_copy(update={"bias": bias})


def pays_for_he(prompt: str, response: str) -> float:
    return 0.3 * response.startswith("he")


def test_a_bias_past_its_bound_is_said_before_the_first_step(run: OnlineRun, tmp_path: Path) -> None:
    prepared = prepare(run)
    (note,) = (note for note in prepared.notes if note.startswith("bias: "))
    # Two responses to each of six prompts, each in two versions.
    assert "24 texts" in note and "(gender)" in note and "above bias.max_difference=0.2" in note and "warned of" in note
    heard, world = Heard(), FakeOnlineWorld(None, run.online.num_steps)
    context = context_of(tmp_path / "ppo", world, open_scorer(RuleReward(pays_for_he), "cpu"), heard)
    summary = run_stage(prepared, context)
    (measured,) = summary.result.metrics["reward_bias"].values()
    assert (measured["difference"], measured["is_real"], measured["num_texts"]) == (pytest.approx(0.3), True, 12)
    said = [message for _, message in heard.notes]
    assert any("gender: men and women: +0.30 over 12 texts that differ in terms alone" in message for message in said)


def test_what_was_measured_before_the_first_step_is_measured_once(run: OnlineRun, tmp_path: Path) -> None:
    """The resumed run scores nothing of it, and has it in its summary all the same."""
    scored: list[int] = []

    class CountingScorer:
        def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
            scored.append(len(requests))
            return open_scorer(RuleReward(pays_for_he), "cpu").score(requests)

    folder, found, said = tmp_path / "ppo", [], []
    for num_scored in ([12, 12], []):
        scored.clear()
        heard = Heard()
        context = context_of(folder, FakeOnlineWorld(None, run.online.num_steps), CountingScorer(), heard)
        found.append(run_stage(prepare(run), context).result.metrics["reward_bias"])
        # Both texts of the 12 pairs; the 4 responses of each step are the samplers', 2 prompts with 2 each.
        assert [number for number in scored if number != 4] == num_scored
        said.append(sum("men and women: +0.30" in message for _, message in heard.notes))
    assert found[0] == found[1] and said == [1, 0]


def test_a_bias_that_is_refused_ends_the_run_before_it_learns(run: OnlineRun, tmp_path: Path) -> None:
    assert run.bias is not None
    refusing = run.model_copy(update={"bias": run.bias.model_copy(update={"past_bound": "refuse"})})
    world = FakeOnlineWorld(None, run.online.num_steps)
    context = context_of(tmp_path / "ppo", world, open_scorer(RuleReward(pays_for_he), "cpu"), Heard())
    with pytest.raises(
        UserError, match=r"men and women: \+0\.30 over 12 texts.*above bias\.max_difference=0\.2\. Train"
    ):
        run_stage(prepare(refusing), context)
    assert not (context.folder / "rollouts").exists()
    with pytest.raises(UserError, match="men and women"):  # Resumed, too.
        run_stage(prepare(refusing), context)


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (None, "bias measures a reward, and the run has none"),
        (ScorerSettings(model="m", parts=(EnvironmentPart(),)), "kind environment scores no texts"),
        (ScorerSettings(parts=(NumericRule(),)), "numeric compares with the column 'answer'"),
    ],
)
def test_what_scores_no_texts_is_refused(reward: ScorerSettings | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_bias(BiasCheckSettings(), reward)
    check_bias(None, reward)
