"""A step's record and its line on disk are the same, also of older runs and of other stages."""

import math

from plumbob.trainers.online.step_metrics import RoundMetrics, StepMetrics, sampler_idle_s

LINE = {
    **{"num_answers": 2.0, "num_empty": 0.0, "num_tokens": 9.0, "reward": 2.0, "reward_std": 0.5, "kl": 0.125},
    **{"return_mean": 1.75, "missing_eos_share": 0.0, "answer_tokens_mean": 3.0, "importance_cut_share": 0.0},
    **{"sampler_gap_mean": 0.2, "sampler_gap_max": 0.4, "sampler_gap_fresh": 0.05, "sampler_idle_s": 1.5},
    **{"kl_coefficient": 0.05, "learning_rate": 1e-4, "entropy": 0.6, "repeated_share": 0.0},
    **{"staleness_mean": 0.5, "staleness_max": 1.0, "tokens_per_s": 0.5},
}
MORE = {
    **{"explained_variance": 0.3, "gold_reward": 0.25, "policy_loss": -0.5, "kl_loss": 0.1},
    **{
        "policy_grad_norm": 2.0,
        "update_kl": 0.01,
        "num_rounds": 3.0,
        "num_dropped_groups": 0.5,
        "num_flat_groups": 1.0,
    },
}


def test_what_is_on_disk_comes_back() -> None:
    for line in (LINE, LINE | MORE):
        assert StepMetrics.from_disk(line).on_disk() == line
    found = StepMetrics.from_disk(LINE | MORE | {"alarm_kl": 1.0})
    assert (found.experience.score_mean, found.experience.kl_mean, found.gold_reward) == (2.0, 0.125, 0.25)
    assert (found.rounds, found.objective) == (RoundMetrics(3, 0.5, 1), {"policy_loss": -0.5, "kl_loss": 0.1})


def test_what_was_not_measured_is_none_and_what_an_older_run_has_not_is_nan() -> None:
    found = StepMetrics.from_disk({name: value for name, value in LINE.items() if name not in ("entropy", "kl")})
    assert math.isnan(found.entropy) and math.isnan(found.experience.kl_mean)
    optional = (found.gold_reward, found.policy_grad_norm, found.update_kl, found.experience.explained_variance)
    assert optional == (None,) * 4 and found.rounds is None


def test_the_gold_reward_of_an_older_run_is_read() -> None:
    assert StepMetrics.from_disk(LINE | {"judge_reward": 0.5}).on_disk() == LINE | {"gold_reward": 0.5}


def test_the_samplers_wait_is_of_a_step_that_samples() -> None:
    assert sampler_idle_s(LINE) == 1.5 and sampler_idle_s({"loss": 0.5}) is None
