"""The energy of a stage: of its host by part, of its steps by phase, and what a thousand samples took."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from plumbob.trainers.metrics.step_record import StepRecord

JOULES_PER_WH = 3600.0


@dataclass(frozen=True)
class EnergyUse:
    """What a host consumed within some time, whoever used it.

    Attributes:
        joules: part of the host ("cpu", "gpu", "memory") -> joules.
        estimated: parts of which no counter tells it: of a CPU its load times its rated power, of memory its size.
        carbon_g: grams of CO2 equivalent; None where nothing is known of the electricity.
    """

    joules: Mapping[str, float]
    estimated: tuple[str, ...]
    carbon_g: float | None

    @property
    def total_j(self) -> float:
        """Joules of all parts."""
        return sum(self.joules.values())


def stage_energy(use: EnergyUse, earlier: Sequence[StepRecord], steps: Sequence[StepRecord]) -> dict[str, Any]:
    """A stage's part of the summary, in Wh, as JSON has it.

    Args:
        use: since this process began the stage, the start of its workers included.
        earlier: the steps that earlier processes of the run have made: of these their phases alone are known, not
            the starts of workers beside them.
        steps: all of the stage.
    """
    earlier_j = sum(sum(step.joules.values()) for step in earlier)
    total_j = use.total_j + earlier_j
    carbon_g = None if use.carbon_g is None or not use.total_j else use.carbon_g * total_j / use.total_j
    phases: dict[str, float] = {}
    for step in steps:
        for phase, joules in step.joules.items():
            phases[phase] = phases.get(phase, 0.0) + joules / JOULES_PER_WH
    num_samples = sum(step.num_samples for step in steps)
    return {
        "wh": total_j / JOULES_PER_WH,
        **{f"{part}_wh": joules / JOULES_PER_WH for part, joules in use.joules.items()},
        **({"earlier_wh": earlier_j / JOULES_PER_WH} if earlier_j else {}),
        "estimated": list(use.estimated),
        "carbon_g": carbon_g,
        "phases_wh": phases,
        **({"wh_per_1000_samples": total_j / JOULES_PER_WH / num_samples * 1000} if num_samples else {}),
    }


def energy_words(energy: Mapping[str, Any] | None) -> str:
    """Of a stage's part of the summary, such as "1.25 Wh, 0.07 g CO2e (cpu and memory estimated)"; "" of none."""
    if not energy or not isinstance(energy.get("wh"), int | float):
        return ""
    carbon_g, estimated = energy.get("carbon_g"), energy.get("estimated") or ()
    carbon = f", {carbon_g:.3g} g CO2e" if isinstance(carbon_g, int | float) else ""
    parts = f" ({' and '.join(map(str, estimated))} estimated)" if estimated else ""
    return f"{energy['wh']:.3g} Wh{carbon}{parts}"
