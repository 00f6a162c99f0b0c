"""Energy as CodeCarbon counts it, offline: RAPL and NVML where they may be read, else load times rated power.

Imported where the package is there alone.
"""

import logging
from typing import Any, Self

from codecarbon import OfflineEmissionsTracker
from codecarbon.input import DataSource
from codecarbon.output_methods.base_output import BaseOutput

from plumbob.trainers.metrics.energy_use import EnergyUse

JOULES_PER_KWH = 3.6e6
PARTS = {"cpu": "cpu_energy", "gpu": "gpu_energy", "memory": "ram_energy"}
"""Part of the host -> its field of CodeCarbon's record, in kWh."""
LOOK_EVERY_S = 5.0
"""Counters that wrap around are read so often, whoever asks or not. The load of the CPU is looked at each second."""


class _Newest(BaseOutput):
    """Keeps the record that CodeCarbon would write to a file or send."""

    def __init__(self) -> None:
        self.total: Any = None

    def out(self, total: Any, delta: Any) -> None:
        self.total = total


class TrackedEnergy:
    """Of the whole host, whoever uses it. Used as a context, within which it counts.

    Args:
        country: ISO 3166-1 alpha-3 code of where the host stands; None counts no carbon.
    """

    def __init__(self, country: str | None) -> None:
        logging.getLogger("codecarbon").setLevel(logging.CRITICAL)  # It tells of each start.
        self._newest, self._has_country = _Newest(), country is not None
        self._tracker = OfflineEmissionsTracker(
            country_iso_code=country or "USA",
            measure_power_secs=LOOK_EVERY_S,
            api_call_interval=-1,
            output_methods=[],
            output_handlers=[self._newest],
            emissions_endpoint=None,
            electricitymaps_api_token=None,
            tracking_mode="machine",
            allow_multiple_runs=True,
            log_level="critical",
        )
        self._taken = dict.fromkeys(PARTS, 0.0)
        self._taken_g, self._has_failed = 0.0, False

    def __enter__(self) -> Self:
        """Raises RuntimeError where nothing can be counted: CodeCarbon itself tells nobody."""
        self._tracker.start()
        self._parts()
        if self._has_failed:
            self._tracker.stop()
            raise RuntimeError("CodeCarbon gives no count")
        return self

    def __exit__(self, *_: object) -> None:
        self._tracker.stop()

    def joules(self) -> float:
        return sum(self._parts().values())

    def take(self) -> EnergyUse | None:
        parts, carbon_g = self._parts(), self._newest.total.emissions * 1000
        failed, self._has_failed = self._has_failed, False
        if failed:
            return None
        use = EnergyUse(
            {part: joules - self._taken[part] for part, joules in parts.items() if joules},
            tuple(part for part in parts if parts[part] and part in self._estimated()),
            carbon_g - self._taken_g if self._has_country else None,
        )
        self._taken, self._taken_g = parts, carbon_g
        return use

    def _parts(self) -> dict[str, float]:
        """Joules since the start; what was counted less than 0.05 s ago is not counted anew."""
        if self._tracker.flush() is None:  # It passes over all of its errors, and says so by that.
            self._has_failed = True
        total = self._newest.total
        return {part: getattr(total, name, 0.0) * JOULES_PER_KWH for part, name in PARTS.items()}

    def _estimated(self) -> set[str]:
        """Memory always is: CodeCarbon multiplies the number of its modules by what one takes."""
        is_counted = any("Rapl" in hardware.description() for hardware in self._tracker._hardware)
        return {"memory"} if is_counted else {"cpu", "memory"}


def known_countries() -> list[str]:
    """The codes of the countries whose electricity CodeCarbon's own table has."""
    return sorted(DataSource().get_global_energy_mix_data())
