"""`plumbob eval`: what a person reads of its result."""

from plumbob.console.commands.measures.evaluate import lines


def test_policies_beside_one_another_have_a_column_each() -> None:
    policies = {"sums": {"reward": 0.5, "kl_ci95": (0.25, 0.75)}, "words": {"reward": -0.25, "reward_failures": 2}}
    assert lines({"baseline": "base", "num_pairs": 3, "policies": policies}) == [
        "baseline   base",
        "num_pairs     3",
        "",
        "                         sums   words",
        "reward                  0.500  -0.250",
        "kl_ci95          0.250, 0.750",
        "reward_failures                     2",
    ]
    assert lines({"reward": 0.5}) == ["reward  0.500"]


def test_who_wins_how_often_is_a_table_of_its_own() -> None:
    rates = {
        "sums": {"words": {"win_rate": 0.75, "ci95": [0.6, 0.9]}},
        "words": {"sums": {"win_rate": 0.25, "ci95": [0.1, 0.4]}},
    }
    assert lines({"policies": {"sums": {"reward": 1.0}, "words": {"reward": 0.0}}, "win_rates": rates})[-3:] == [
        "                                    sums                 words",
        "sums wins against                         75.0% [60.0%, 90.0%]",
        "words wins against  25.0% [10.0%, 40.0%]",
    ]
