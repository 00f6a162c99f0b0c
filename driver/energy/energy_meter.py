"""Counts the energy of the driver's host while a run works; where nobody can, there is none."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from plumbob.configs.settings.stewardship.energy import EnergySettings
from plumbob.core.errors import UserError
from plumbob.trainers.metrics.energy_use import EnergyUse

PACKAGE = "codecarbon"


class EnergyMeter(Protocol):
    """A counter of this host's energy."""

    def joules(self) -> float:
        """Since it was opened."""

    def take(self) -> EnergyUse:
        """Since the last call, or since it was opened."""


@contextmanager
def opened_meter(settings: EnergySettings) -> Iterator[EnergyMeter | None]:
    """A meter that counts while the block runs; None where the settings or a missing package leave it out.

    Raises:
        UserError: a country is given whose electricity nobody here knows.
    """
    check_energy(settings)
    if not settings.count or not _is_installed():
        yield None
        return
    from plumbob.driver.energy.tracked_energy import TrackedEnergy

    with TrackedEnergy(settings.country) as meter:
        yield meter


def check_energy(settings: EnergySettings) -> None:
    """Raises UserError where the carbon of a country is asked for, and cannot be had."""
    if not settings.count or settings.country is None:
        return
    if not _is_installed():
        raise UserError(
            f"energy.country={settings.country}: the carbon of a run needs the package {PACKAGE}, which is not "
            f"installed here; install it with: pip install 'plumbob[energy]'"
        )
    from plumbob.driver.energy.tracked_energy import known_countries

    known = known_countries()
    if settings.country not in known:
        alike = ", ".join(code for code in known if code[:2] == settings.country[:2])
        raise UserError(
            f"energy.country={settings.country}: what a kWh emits there is not known; it has to be the three letters "
            f"of a country as ISO 3166-1 has them, such as {alike or 'FRA, DEU, USA'}"
        )


def _is_installed() -> bool:
    return importlib.util.find_spec(PACKAGE) is not None
