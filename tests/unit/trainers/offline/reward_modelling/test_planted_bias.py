"""A bias planted in the toy world is learnt by a reward model, and each mitigation lowers it."""

from pathlib import Path

from plumbob.trainers.build import build_learner
from plumbob.verify.local_learner import OneRank
from tests.support.learner_ranks import Ranks, this_rank
from tests.support.planted_bias import MITIGATIONS, MitigationResult, planted_pairs, trained


def result_of(name: str, folder: Path) -> MitigationResult:
    pairs = planted_pairs(num_pairs=400, num_heldout=120)
    return trained(pairs, MITIGATIONS[name], folder, 4, lambda run: OneRank(build_learner(run, this_rank())))


def test_each_mitigation_lowers_a_planted_bias(one_rank: Ranks, tmp_path: Path) -> None:
    """Two of five pairs whose better answer is a woman's, beside a man's, are turned round for that alone."""
    found = {name: one_rank.run(result_of, name, tmp_path)[0] for name in MITIGATIONS}
    plain = found.pop("none")
    assert plain.bias.ci95 is not None and plain.bias.is_real and plain.bias.ci95[0] > 0.2
    assert {name for name, result in found.items() if abs(result.bias.mean) < 0.5 * plain.bias.mean} == set(found)
    assert found["`filter`"].num_records < plain.num_records == 400 < found["`augment`"].num_records
