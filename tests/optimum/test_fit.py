"""The model of the verification can be the policy that a row is to reach. About 5 s on one core."""

from pathlib import Path

from plumbob.verify.rows.online_rows import FitRow
from plumbob.verify.world.problem import Measurement, Size
from tests.support.learner_ranks import Ranks


def checks_of(folder: Path) -> tuple[Measurement, ...]:
    return FitRow(size=Size(depth=2)).measure(0, folder)


def test_the_model_is_fitted_to_the_best_policy(one_rank: Ranks, tmp_path: Path) -> None:
    checks = one_rank.run(checks_of, tmp_path)[0]
    assert len(checks) == 2 and all(check.holds for check in checks), checks
