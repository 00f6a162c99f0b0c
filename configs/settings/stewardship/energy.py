"""Whether a run's energy is counted, and where it was made."""

from typing import Annotated

from pydantic import Field

from plumbob.configs.base import Settings

CountryCode = Annotated[str, Field(pattern="^[A-Z]{3}$")]


class EnergySettings(Settings):
    """The energy of the driver's host while the run works, by the extra `energy`: measured where the machine has
    counters that may be read, else estimated, and called so."""

    count: bool = True
    """Whether it is counted. Without the extra it is not, and the summary has none."""
    country: CountryCode | None = None
    """Where the host stands, as the three letters of ISO 3166-1, such as FRA: what a kWh emits there gives the carbon
    dioxide. null counts none."""
