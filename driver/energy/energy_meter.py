"""Counts the energy of the driver's host while a run works; where nobody can, there is none."""

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Protocol

from plumbob.configs.settings.stewardship.energy import EnergySettings
from plumbob.core.errors import UserError, first_line
from plumbob.trainers.metrics.energy_use import EnergyUse

PACKAGE = "codecarbon"


class EnergyMeter(Protocol):
    """A counter of this host's energy."""

    def joules(self) -> float:
        """Since it was opened."""

    def take(self) -> EnergyUse | None:
        """Since the last call, or since it was opened; None where the counter has failed meanwhile."""


@contextmanager
def opened_meter(settings: EnergySettings, notify: Callable[[str], None]) -> Iterator[EnergyMeter | None]:
    """A meter that counts while the block runs; None where the settings, a missing package or the machine leave it out.

    Args:
        notify: for the user, where it cannot count here.
    """
    with ExitStack() as stack:
        meter = None
        if settings.count and _is_installed():
            try:
                from plumbob.driver.energy.tracked_energy import TrackedEnergy

                meter = stack.enter_context(TrackedEnergy(settings.country))
            except Exception as error:  # Whatever it finds on a machine: a run does not end by it.
                notify(f"the energy is not counted: {first_line(error)}")
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
