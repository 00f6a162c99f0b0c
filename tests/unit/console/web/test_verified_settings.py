"""The settings of each row of `plumbob verify`, against the rows themselves."""

from collections.abc import Mapping

import pytest

from plumbob.configs.settings.algorithms import FixedKl
from plumbob.console.web.verified_settings import GIVEN, PROVEN, ProvenSettings, proofs_of
from plumbob.verify.rows.all_rows import ALL_ROWS
from plumbob.verify.rows.offline_rows import OfflineRow
from plumbob.verify.rows.online_rows import OnlineRow

OF_ROW: Mapping[tuple[str, str], ProvenSettings] = {(one.row, one.setting): one for one in PROVEN}


def test_every_row_is_named_and_no_other() -> None:
    assert sorted(OF_ROW) == sorted((row.name, row.setting) for row in ALL_ROWS) and len(OF_ROW) == len(PROVEN)


@pytest.mark.parametrize("row", [row for row in ALL_ROWS if isinstance(row, OnlineRow)], ids=lambda row: row.setting)
def test_what_is_needed_of_an_online_row_is_what_it_has(row: OnlineRow) -> None:
    """A row's own settings, dotted as a run's are, satisfy its needs."""
    settings = row.settings().model_dump(mode="json")
    kl = (row.kl or FixedKl()).model_dump(mode="json")

    def value(key: str) -> object:
        found: object = {"online": settings | {"kl": kl}}
        for name in key.split("."):
            assert isinstance(found, dict), key
            found = found[name]
        return found

    for key, wanted in OF_ROW[row.name, row.setting].needs.items():
        assert bool(value(key)) if wanted == GIVEN else value(key) == wanted, key


@pytest.mark.parametrize("row", [row for row in ALL_ROWS if isinstance(row, OfflineRow)], ids=lambda row: row.setting)
def test_what_is_needed_of_an_offline_row_is_what_it_has(row: OfflineRow) -> None:
    loss = row.loss.model_dump(mode="json")
    needs = OF_ROW[row.name, row.setting].needs
    assert needs and {key: loss[key.removeprefix("dpo.loss.")] for key in needs} == needs


def test_a_run_is_told_what_is_proven_of_its_own_settings() -> None:
    flat = {
        "online.estimator.kind": "rloo",
        "online.kl.place": "loss",
        "online.kl.estimate": "k2",
        "online.policy_loss.kind": "clipped",
    }
    (proof,) = proofs_of(flat)
    assert proof["row"] == "RLOO: k2 in the loss, 40 responses" and "online.kl.estimate=k2" in proof["setting"]
    assert proof["passed"] is None and "expected update is zero" in proof["expected"]
    assert [one["row"] for one in proofs_of({"dpo.loss.kind": "sppo"})] == ["SPPO: exact pairs"]
    assert proofs_of({"sft.num_epochs": 1}) == []
    assert len(proofs_of({"online.mask_truncated": True})) == 1 and proofs_of({"online.mask_truncated": False}) == []


def test_what_the_last_run_of_each_instance_found_stands_beside_it() -> None:
    def result(seed: int, value: float, holds: bool, row: str = "SPPO") -> dict[str, object]:
        checks = [{"quantity": "TV", "value": value, "bound": 0.05, "holds": holds}]
        return {"row": row, "setting": "exact pairs", "seed": seed, "checks": checks, "holds": holds}

    flat = {"dpo.loss.kind": "sppo"}
    # Seed 0 failed once and holds by now; another row says nothing of this one.
    results = [result(0, 0.4, False), result(0, 0.02, True), result(1, 0.0123, True), result(2, 0.9, False, "IPO")]
    (proof,) = proofs_of(flat, results)
    assert (proof["found"], proof["passed"]) == ("TV 0.02 (at most 0.05); 2 instances", True)
    (failed,) = proofs_of(flat, [*results, result(1, 0.06, False)])
    assert (failed["found"], failed["passed"]) == ("TV 0.06 (at most 0.05); 2 instances", False)
    (damaged,) = proofs_of(flat, [{"row": "SPPO", "setting": "exact pairs", "checks": "none"}])
    assert (damaged["found"], damaged["passed"]) == (None, False)
