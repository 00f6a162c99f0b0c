"""A comparison, measured: both sides in turn, A B A B, and what became of it as rows."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median

from benchmarks.material import Material
from benchmarks.peer_run import PeerRun, run_peer
from benchmarks.plumbob_run import HELD_OUT, PlumbobRun, SideError, run_plumbob
from benchmarks.row_medians import Row, compared, not_measured
from benchmarks.rows import PeerComparison
from benchmarks.workload import Workload
from plumbob.core.errors import UserError

MADE = {"dpo": "pairs/s", "reward": "pairs/s", "sft": "records/s"}
"""Method -> the unit of its rate; of the others responses/s."""


@dataclass
class BothSides:
    """Both sides' runs of one comparison; the n-th of each were made one after the other."""

    work: Workload
    plumbob: list[PlumbobRun] = field(default_factory=list)
    peer: list[dict[str, PeerRun]] = field(default_factory=list)

    @property
    def best(self) -> str:
        """The peer's fastest variant in the first repeat."""
        return min(self.peer[0], key=lambda name: self.peer[0][name].seconds(self.work))

    def step_seconds(self, run: PlumbobRun) -> float:
        return median(run.steps) if self.work.is_online else run.whole_s / self.work.num_steps


def measure(comparison: PeerComparison, material: Material, folder: Path, repeats: int) -> BothSides:
    """Run both sides in turn. From the second repeat on the peer runs its defaults and its best variant alone.

    Raises:
        SideError, UserError, ValueError: a side could not do the work, or there is nothing to do it with.
    """
    measured = BothSides(comparison.workload(material))
    left_out: set[str] = set()
    for _ in range(repeats):
        measured.plumbob.append(run_plumbob(measured.work, folder / "plumbob"))
        measured.peer.append(run_peer(measured.work, folder / "peer", left_out))
        left_out = set(measured.peer[0]) - {measured.best, "defaults"}
    return measured


def comparison_rows(comparison: PeerComparison, measured: BothSides | Exception) -> Iterator[Row]:
    """One row against the peer's defaults, and one against its best settings."""
    unit = MADE.get(comparison.method, "responses/s")
    for against, target in comparison.targets.items():
        name = f"{comparison.name} / {against}"
        if isinstance(measured, Exception):
            yield not_measured(name, unit, target, True, f"{type(measured).__name__}: {measured}")
            continue
        variant = "defaults" if against == "defaults" else measured.best
        num, work = comparison.batch_size, measured.work
        yield compared(
            name,
            unit,
            [num / measured.step_seconds(run) for run in measured.plumbob],
            [num / each[variant].seconds(work) for each in measured.peer],
            target=target,
            higher_is_better=True,
            note=_note(measured, variant),
        )


def _note(measured: BothSides, variant: str) -> str:
    run, peer = measured.plumbob[-1], measured.peer[-1][variant]
    phases = sorted(
        {name for each in run.phases[1:] for name in each} - {HELD_OUT}, key=lambda name: -run.phase_s(name)
    )
    parts = ", ".join(f"{name} {run.phase_s(name):.2f}" for name in phases)
    lengths = ""
    if peer.response_tokens is not None:
        ours = mean(each["answer_tokens_mean"] for each in run.metrics)
        lengths = f"; tokens {ours:.1f} and {peer.response_tokens:.1f}"
    return f"TRL {variant}; Plumbob's step in s: {parts}{lengths}"


def try_measure(comparison: PeerComparison, material: Material, folder: Path, repeats: int) -> BothSides | Exception:
    """As `measure`; what kept it from being measured is returned, for the row to say."""
    try:
        return measure(comparison, material, folder, repeats)
    except (SideError, UserError, ValueError, OSError, LookupError) as error:
        return error
