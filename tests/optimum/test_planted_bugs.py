"""What bugs would move each target by, by hand, and that none is listed which no gradient test plants."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plumbob.verify.measurements import Result, bug_lines
from plumbob.verify.optima.offline_optima import (
    averaged_ipo_optimum,
    dpo_optimum,
    exact_wins,
    flipped,
    ipo_optimum,
    orpo_optimum,
    simpo_optimum,
    sppo_optimum,
)
from plumbob.verify.optima.online_optima import returns_to_go, step_gradient
from plumbob.verify.optima.planted_bugs import (
    PairTarget,
    dpo_scores,
    greedy,
    ipo_scores,
    mean_return,
    online_bugs,
    orpo_bugs,
    pair_bugs,
    simpo_bugs,
    sppo_bugs,
    tempered,
    tempered_pairs,
    weighed_returns_optimum,
)
from plumbob.verify.optima.response_tree import (
    Array,
    Instance,
    ResponseTree,
    log_normalised,
    seeded_rewards,
    single_token_prompts,
    total_variation,
)
from plumbob.verify.rows.all_rows import ALL_ROWS, bug_shifts
from plumbob.verify.rows.bug_shift import SEEN, moved
from plumbob.verify.rows.offline_rows import BETA, EXCESS, OFFLINE_ROWS, HingeRow
from plumbob.verify.rows.online_rows import CRITIC_FREE_ROWS, LOSS_ROWS, SLOW_ROW, FitRow, OnlineRow
from plumbob.verify.rows.whole_system import WholeSystemRow
from plumbob.verify.world.problem import Measurement, make_problem
from tests.optimum.test_gradients import ROWS
from tests.optimum.test_ranked_gradients import ROWS as RANKED
from tests.support.learner_ranks import Ranks

PLANTED_ROWS = (*ROWS, *RANKED)
LISTING = [row for row in ALL_ROWS if not isinstance(row, FitRow)]


def best(instance: Instance) -> Array:
    return instance.optimum


def two_responses() -> Instance:
    """One token, EOS or 1, equally likely; r = 0 and ln 3, beta 1: pi* = (1/4, 3/4)."""
    return Instance(ResponseTree(2, 1), ((1,),), np.log([[0.5, 0.5]]), np.log([[1.0, 3.0]]), beta=1.0)


def longer_responses(seed: int = 0) -> Instance:
    tree = ResponseTree(4, 3)
    logits = np.random.default_rng(seed + 100).normal(size=(3, len(tree.states), 4))
    reference = tree.response_logprobs(log_normalised(logits))
    return Instance(tree, single_token_prompts(tree, 3), reference, seeded_rewards(tree, 3, seed), beta=0.4)


def test_online_bugs_of_two_responses_by_hand() -> None:
    # 1 has the share x / (1 + x) with x = 3^(1 / beta'): beta' = 1.1, or 1 / 1.1 at temperature 1.1. No KL: all of it.
    def share(exponent: float) -> float:
        return 3**exponent / (1 + 3**exponent)

    found = moved(lambda target: target(two_responses()), best, online_bugs(best))
    assert found == {
        "beta 10% too large": pytest.approx(0.75 - share(1 / 1.1)),
        "temperature 1.1": pytest.approx(share(1.1) - 0.75),
        "the wrong reference": pytest.approx(0.25),
        "EOS out of the mask": None,
    }


def test_the_largest_over_prompts_counts() -> None:
    # The second prompt's responses are equally good: no beta moves them.
    tree = ResponseTree(3, 1)
    rewards = np.log([[1.0, 3.0, 1.0], [1.0, 1.0, 1.0]])
    instance = Instance(tree, ((1,), (2,)), np.log(np.full((2, 3), 1 / 3)), rewards, beta=1.0)
    found = moved(lambda target: target(instance), best, {"half": lambda given: best(replace(given, beta=0.5))})
    assert found == {"half": pytest.approx(9 / 11 - 3 / 5)}


def test_at_another_temperature_every_response_to_a_prompt_has_one_return() -> None:
    # So that no advantage is left, whoever drew it: the trained policy and its reference are the tempered ones.
    instance, temperature = longer_responses(), 1.3
    policy = instance.tree.next_token_logprobs(tempered(best, temperature)(instance))
    reference = instance.tree.response_logprobs(log_normalised(instance.reference_policy / temperature))
    returns = returns_to_go(replace(instance, reference=reference), log_normalised(policy / temperature), 1.0)
    assert np.ptp(returns[..., 0], axis=-1) == pytest.approx(np.zeros(3), abs=1e-12)
    assert tempered(best, 1.0)(instance) == pytest.approx(instance.optimum)


def test_without_kl_the_best_response_has_all_mass() -> None:
    instance = longer_responses()
    chosen = np.exp(greedy(instance))
    assert chosen.sum(-1).tolist() == [1.0, 1.0, 1.0]
    assert (chosen * instance.rewards).sum(-1).tolist() == instance.rewards.max(-1).tolist()


def test_reinforce_plus_plus_with_responses_of_the_same_weight_is_a_zero_of_its_gradient() -> None:
    instance = longer_responses(seed=1)
    optimum = weighed_returns_optimum(instance)
    policy = instance.tree.next_token_logprobs(optimum)
    advantages = returns_to_go(instance, policy, 1.0) - mean_return(instance, policy)
    gradient = step_gradient(instance, policy, advantages, np.exp(optimum), length_weighted=True)
    assert gradient == pytest.approx(np.zeros_like(gradient), abs=1e-14)
    assert total_variation(optimum, instance.optimum).max() > 0.005


def test_mean_return_by_hand() -> None:
    # Uniform over EOS and 1 at both states, as the reference: EOS (1/2) has 1; 1 EOS and 1 1 (1/4 each) 2 and 4, twice.
    tree = ResponseTree(2, 2)
    instance = Instance(tree, ((1,),), np.log([[1 / 2, 1 / 4, 1 / 4]]), np.array([[1.0, 2.0, 4.0]]), beta=2.0)
    assert mean_return(instance, np.log(np.full((1, 2, 2), 0.5))) == pytest.approx((1 / 2 + 4 / 4 + 8 / 4) / 1.5)


def test_bugs_of_pairs_by_hand() -> None:
    # Responses of one and two tokens, each 1/2, r = ln 3 and 0, beta 1: pi* = (3/4, 1/4). Per token, x the constant:
    # 3 x / 2 + x^2 / 2 = 1. Without the reference (1/4, 3/4), of which pi* is (1/2, 1/2): (3/4, 1/4).
    wins, lengths = exact_wins(np.array([math.log(3), 0.0])), np.array([1.0, 2.0])
    bug_targets = pair_bugs(dpo_scores, beta=1.0)
    x = (math.sqrt(17) - 3) / 2
    expected = {
        "beta 10% too large": 3 ** (1 / 1.1) / (1 + 3 ** (1 / 1.1)),
        "per token instead of summed": 1.5 * x,
        "no reference": 0.75,
    }
    for reference in ([0.5, 0.5], [0.25, 0.75]):
        for name in expected if reference[0] == 0.5 else ["no reference"]:
            wrong = bug_targets[name]
            assert wrong is not None
            assert np.exp(wrong(np.log(reference), wins, lengths))[0] == pytest.approx(expected[name])
    assert bug_targets.keys() == expected.keys() | {"EOS out of the mask"}


def test_bugs_of_other_losses_of_pairs_are_their_own_targets_with_other_settings() -> None:
    tree = ResponseTree(4, 2)
    wins, reference = (
        exact_wins(seeded_rewards(tree, 1, 0)[0]),
        log_normalised(np.random.default_rng(0).normal(size=13)),
    )
    given = (reference, wins, tree.num_tokens)

    def found(bug_targets: dict[str, PairTarget | None], name: str) -> Array:
        wrong = bug_targets[name]
        assert wrong is not None
        return wrong(*given)

    summed, averaged = pair_bugs(ipo_scores, 0.4), pair_bugs(ipo_scores, 0.4, per_token=True)
    assert found(summed, "beta 10% too large") == pytest.approx(ipo_optimum(reference, wins, 0.44))
    assert found(summed, "per token instead of summed") == pytest.approx(
        averaged_ipo_optimum(reference, wins, 0.4, tree.num_tokens)
    )
    assert found(averaged, "summed instead of per token") == pytest.approx(ipo_optimum(reference, wins, 0.4))
    simpo = simpo_bugs(0.5)
    assert found(simpo, "beta 10% too large") == pytest.approx(simpo_optimum(wins, tree.num_tokens, 1.1, 0.5))
    assert "no reference" not in simpo
    assert found(simpo, "margin left out") == pytest.approx(simpo_optimum(wins, tree.num_tokens, 1.0, 0.0))
    orpo = orpo_bugs(1.0)
    assert found(orpo, "weight 10% too large") == pytest.approx(orpo_optimum(wins, tree.num_tokens, 1.1).policy)
    # Of summed log-probs: as if every response were one token.
    assert found(orpo, "summed instead of per token") == pytest.approx(orpo_optimum(wins, np.ones(13), 1.0).policy)
    sppo = sppo_bugs(0.4)
    assert found(sppo, "beta 10% too large") == pytest.approx(sppo_optimum(reference, wins, 0.44))
    assert found(sppo, "no reference") == pytest.approx(sppo_optimum(np.zeros(13), wins, 0.4))
    # Where the slope of ((u_i - t)^2 + (u_j + t)^2, u per token, t = 1.25) is that of the sum of probabilities alone.
    averaged_sppo = found(sppo, "per token instead of summed")
    u = (averaged_sppo - reference) / tree.num_tokens
    slope = ((u - 1.25) * wins.sum(1) + (u + 1.25) * wins.sum(0)) / tree.num_tokens
    assert slope == pytest.approx(slope.sum() * np.exp(averaged_sppo), abs=1e-9)


def test_without_its_flip_rate_a_loss_is_dpo_of_the_labels_as_they_are() -> None:
    tree = ResponseTree(4, 2)
    wins, reference = flipped(exact_wins(seeded_rewards(tree, 1, 0)[0]), 0.1), np.zeros(13)
    listing = {row.name: row for row in OFFLINE_ROWS if "flip rate left out" in row.bug_targets}
    assert listing.keys() == {"conservative DPO", "robust DPO"}
    for row in listing.values():
        wrong = row.bug_targets["flip rate left out"]
        assert wrong is not None
        assert wrong(reference, wins, tree.num_tokens) == pytest.approx(dpo_optimum(reference, wins, BETA))


def test_dpo_at_another_temperature_ends_where_online_trainers_do() -> None:
    instance = longer_responses()
    wrong = tempered_pairs(lambda ref, wins, _: dpo_optimum(ref, wins, instance.beta), instance.tree)["temperature 1.1"]
    for reference, rewards, expected in zip(
        instance.reference, instance.rewards, tempered(best, 1.1)(instance), strict=True
    ):
        assert wrong(reference, exact_wins(rewards), instance.tree.num_tokens) == pytest.approx(expected)


@pytest.mark.parametrize("row", LISTING, ids=lambda row: f"{row.name}, {row.setting}")
def test_each_row_but_the_model_itself_lists_what_is_ten_percent_too_large(row: Any) -> None:
    assert any(name.endswith("10% too large") for name in row.bug_targets)


def test_each_online_row_has_its_bugs_planted_or_is_rloo_as_the_one_that_has(tmp_path: Path) -> None:
    planted, whole = CRITIC_FREE_ROWS[0], WholeSystemRow()
    left_out: list[Any] = [
        row for row in ALL_ROWS if isinstance(row, OnlineRow | WholeSystemRow) and row not in PLANTED_ROWS
    ]
    assert planted in PLANTED_ROWS and left_out == [SLOW_ROW, whole]
    whole_online = whole.settings(make_problem(whole.size, 0, tmp_path), tmp_path, tmp_path).online
    for row, online in zip(left_out, (SLOW_ROW.settings(), whole_online), strict=True):
        assert (online.estimator, online.kl, online.loss_mean) == (planted.estimator, planted.settings().kl, "token")
        assert row.bug_targets.keys() == planted.bug_targets.keys()


MEASURED = (CRITIC_FREE_ROWS[1], LOSS_ROWS[2], OFFLINE_ROWS[0], OFFLINE_ROWS[1], WholeSystemRow())
"""REINFORCE++, GRPO of one token, DPO on exact pairs and on drawn ones, and the whole pipeline."""


def moves_of(folder: Path, place: int) -> dict[str, float | None]:
    return dict(bug_shifts(MEASURED[place], 0, folder))


@pytest.mark.parametrize("place", range(len(MEASURED)))
def test_a_row_says_what_moves_its_target_without_training(one_rank: Ranks, tmp_path: Path, place: int) -> None:
    moves = one_rank.run(moves_of, tmp_path, place)[0]
    assert moves.keys() == MEASURED[place].bug_targets.keys()
    beta = moves["beta 10% too large"]
    unheld = moves["no reference" if place in (2, 3) else "the wrong reference"]
    assert beta is not None and unheld is not None and 0.01 < beta < unheld and unheld > SEEN


def test_the_model_itself_lists_none(tmp_path: Path) -> None:
    assert bug_shifts(FitRow(), 0, tmp_path) == {}
    assert list(tmp_path.iterdir()) == []


def excess_of_hinge(folder: Path) -> dict[str, float | None]:
    return dict(bug_shifts(HingeRow(), 0, folder))


def test_bugs_of_hinge_are_said_by_their_excess_loss(one_rank: Ranks, tmp_path: Path) -> None:
    # Scores divided by 1.1 are 1/11 of the way back to the reference, and the loss is convex.
    found = one_rank.run(excess_of_hinge, tmp_path)[0]
    assert EXCESS < found["beta 10% too large"] <= 1 / 11 + 1e-9


def test_the_lines_have_the_least_over_the_instances() -> None:
    def result(place: int, seed: int, moves: dict[str, float | None]) -> Result:
        return Result(place, f"row {place}", "tiny", seed, (Measurement("TV", 0.0, 0.05),), moves, 1.0)

    results = [result(7, 1, {"beta": 0.04, "EOS": None}), result(2, 0, {}), result(7, 0, {"beta": 0.0321, "EOS": None})]
    assert bug_lines(results)[-1] == "row 7, tiny (TV): beta 0.032, EOS -"
    assert len(bug_lines(results)) == 5
    assert bug_lines(results[1:2]) == []
    said = results[0].as_dict()
    assert (said["bug_shifts"], said["bug_shifts_in"]) == ({"beta": 0.04, "EOS": None}, "TV")
