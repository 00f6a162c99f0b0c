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
