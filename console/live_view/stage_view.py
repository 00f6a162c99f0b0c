"""The lines of a stage that runs: how far it is, what its step measured and took, its alarms, one of its responses."""

from dataclasses import dataclass, field

from rich.console import RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from plumbob.console.live_view.filled_lines import INDENT, filled
from plumbob.console.live_view.phase_bar import PIECES, PLAIN_PIECES, longest_first, phase_line, phase_words
from plumbob.console.live_view.stage_clock import StageClock
from plumbob.console.tables import duration, escaped, heldout_metrics, number, step_metrics
from plumbob.trainers.metrics.energy_use import JOULES_PER_WH
from plumbob.trainers.metrics.step_record import ResponseSample, StepRecord
from plumbob.trainers.online.step_metrics import ALARM

BAR_FROM_WIDTH = 50
PHASE_CELLS = 24
NUM_PHASES = 4
"""That are shown by name."""


@dataclass
class RunningStage:
    """What is shown of a stage that runs.

    Attributes:
        heldout: of the newest step after which held-out records were measured.
        alarms: monitor -> the step since which its alarm shows.
        sample: of the newest step that had one.
    """

    name: str
    clock: StageClock = field(default_factory=StageClock.start)
    step: StepRecord | None = None
    remaining_s: float = 0.0
    heldout: tuple[str, ...] = ()
    alarms: dict[str, int] = field(default_factory=dict)
    sample: ResponseSample | None = None

    def stepped(self, record: StepRecord) -> None:
        self.step, self.remaining_s = record, self.clock.remaining_s(record)
        measured = heldout_metrics(record)
        if measured:
            self.heldout = (*measured, f"(step {record.step})")
        shown = [name.removeprefix(ALARM) for name in record.metrics if name.startswith(ALARM)]
        self.alarms = {name: self.alarms.get(name, record.step) for name in shown}
        self.sample = record.sample or self.sample

    def lines(self, width: int, has_unicode: bool) -> list[RenderableType]:
        shown: list[RenderableType] = [self._progress(width)]
        if self.step is not None:
            shown += filled([Text(words) for words in step_metrics(self.step)], width)
            shown += self._phases(self.step, width, PIECES if has_unicode else PLAIN_PIECES)
            shown += filled(_energy(self.step), width)
        shown += filled([Text(words) for words in self.heldout], width)
        alarms = [Text(f"warning: {name} since step {step}", "bold yellow") for name, step in self.alarms.items()]
        return [*shown, *filled(alarms, width), *self._response(width)]

    def _progress(self, width: int) -> Table:
        has_bar = width >= BAR_FROM_WIDTH
        columns = [Column(no_wrap=True, overflow="ellipsis"), *([Column(ratio=1)] if has_bar else [])]
        table = Table.grid(*columns, Column(no_wrap=True), Column(no_wrap=True), expand=has_bar, padding=(0, 2, 0, 0))
        table.pad_edge = False
        if self.step is None:
            bar, position, left = ProgressBar(total=None, pulse=True), "", duration(round(self.clock.elapsed_s()))
        else:
            bar = ProgressBar(total=self.step.num_steps, completed=self.step.step)
            position = f"{self.step.step}/{self.step.num_steps}"
            left = f"{duration(self.remaining_s)} left" if self.step.step < self.step.num_steps else "finishing"
        cells: list[RenderableType] = [Text(self.name), *([bar] if has_bar else [])]
        table.add_row(*cells, Text(position), Text(left, style="dim"))
        return table

    def _phases(self, step: StepRecord, width: int, pieces: str) -> list[RenderableType]:
        """The bar and its phases, on one line where they fit."""
        seconds = longest_first(step.seconds, NUM_PHASES)
        if not seconds:
            return []
        bar = phase_line(seconds, min(PHASE_CELLS, width - len(INDENT)), pieces)
        return filled([bar, *phase_words(seconds, pieces)], width)

    def _response(self, width: int) -> list[RenderableType]:
        if self.sample is None:
            return []
        return [
            Text(f"{INDENT}{title}  {escaped(text)}", style="dim", no_wrap=True, overflow="ellipsis", end="\n")
            for title, text in (
                ("prompt  ", self.sample.prompt),
                ("response", f"({number(self.sample.score)}) {self.sample.response}"),
            )
        ]


def _energy(step: StepRecord) -> list[Text]:
    """Of the host, in the step's phases; nothing where nobody counted."""
    joules, seconds = sum(step.joules.values()), sum(step.seconds.values())
    return (
        [Text(f"energy {joules / JOULES_PER_WH:.3g} Wh a step, {joules / seconds:.0f} W")] if joules and seconds else []
    )
