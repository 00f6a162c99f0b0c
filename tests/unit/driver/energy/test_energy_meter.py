"""The counter of the host's energy: really CodeCarbon, offline."""

import time

import psutil
import pytest

from plumbob.configs.settings.stewardship.energy import EnergySettings
from plumbob.core.errors import UserError
from plumbob.driver.energy import energy_meter
from plumbob.driver.energy.energy_meter import check_energy, opened_meter

pytest.importorskip("codecarbon")


def never(message: str) -> None:
    raise AssertionError(message)


def worked(seconds: float) -> None:
    """Keeps a core busy for that long."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        sum(range(10_000))


def test_it_counts_what_was_used_since_it_was_asked() -> None:
    """Memory takes at least 1 W for as long as it is on; no laptop or server takes a megawatt."""
    with opened_meter(EnergySettings(country="FRA"), never) as meter:
        assert meter is not None
        began = time.monotonic()
        worked(1.5)
        first, so_far = meter.take(), meter.joules()
        assert first is not None
        seconds = time.monotonic() - began
        worked(1.0)
        second = meter.take()
        assert second is not None
    assert set(first.joules) >= {"cpu", "memory"} and "memory" in first.estimated
    assert 1.0 * 1.5 < first.total_j < 1e6 * seconds
    assert first.total_j == pytest.approx(so_far, rel=0.1)  # Less than 0.05 s apart it is the same count.
    assert 1.0 < second.total_j < 1e6
    assert first.carbon_g is not None and second.carbon_g is not None
    # Both at the same grams a kWh: those of France, whose grid has been between 10 and 150 of late.
    per_kwh = [use.carbon_g / use.total_j * 3.6e6 for use in (first, second) if use.carbon_g is not None]
    assert per_kwh[0] == pytest.approx(per_kwh[1], rel=1e-3)
    assert 10 < per_kwh[0] < 150


def test_it_waits_for_nothing_when_it_ends_and_leaves_no_thread() -> None:
    threads = psutil.Process().num_threads()
    with opened_meter(EnergySettings(), never) as meter:
        assert meter is not None
        use = meter.take()
        assert use is not None and use.carbon_g is None
        began = time.monotonic()
    assert time.monotonic() - began < 10
    until = time.monotonic() + 30
    while psutil.Process().num_threads() > threads and time.monotonic() < until:
        time.sleep(0.1)
    assert psutil.Process().num_threads() <= threads


def test_nobody_counts_where_the_settings_say_so_or_the_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    with opened_meter(EnergySettings(count=False), never) as meter:
        assert meter is None
    monkeypatch.setattr(energy_meter, "PACKAGE", "a_package_that_nobody_installed")
    with opened_meter(EnergySettings(), never) as meter:
        assert meter is None
    with pytest.raises(UserError, match=r"energy\.country=FRA: .*pip install 'plumbob\[energy\]'"):
        check_energy(EnergySettings(country="FRA"))


def test_a_country_is_one_whose_electricity_is_known() -> None:
    check_energy(EnergySettings(country="DEU"))
    check_energy(EnergySettings(count=False, country="XXX"))
    with pytest.raises(UserError, match=r"energy\.country=FRX: what a kWh emits there is not known.*such as .*FRA"):
        check_energy(EnergySettings(country="FRX"))


def test_a_machine_on_which_nothing_can_be_counted_ends_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """CodeCarbon passes over all of its own errors, so that a count which never comes is all that shows."""

    def broken(*_: object) -> None:
        raise OSError("no such counter")

    with opened_meter(EnergySettings(), never) as meter:
        assert meter is not None and meter.take() is not None
        monkeypatch.setattr("codecarbon.OfflineEmissionsTracker._measure_power_and_energy_if_stale", broken)
        meter.joules()
        assert meter.take() is None
    told: list[str] = []
    with opened_meter(EnergySettings(), told.append) as meter:
        assert meter is None
    assert told == ["the energy is not counted: CodeCarbon gives no count"]
