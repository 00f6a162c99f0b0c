"""The seconds of a step as one bar, a piece a phase, told apart by their letters where a terminal has no colours."""

from collections.abc import Mapping, Sequence

from rich.text import Text

from plumbob.console.tables import duration

PIECES = "█▓▒░"
PLAIN_PIECES = "#=+-"
"""For a terminal that has no Unicode."""

STYLES = ("cyan", "magenta", "green", "yellow")


def phase_bar(seconds: Mapping[str, float], num_cells: int) -> list[int]:
    """Cells of each phase, `num_cells` in all: the whole parts first, then one each for the largest remainders."""
    total = sum(seconds.values())
    if total <= 0:
        return [0] * len(seconds)
    exact = [num_cells * spent / total for spent in seconds.values()]
    cells = [int(part) for part in exact]
    largest = sorted(range(len(exact)), key=lambda index: cells[index] - exact[index])
    for index in largest[: num_cells - sum(cells)]:
        cells[index] += 1
    return cells


def phase_words(seconds: Mapping[str, float], pieces: Sequence[str] = PIECES) -> list[Text]:
    """Each phase with its piece and its seconds, the longest first."""
    return [
        Text.assemble((pieces[index % len(pieces)], STYLES[index % len(STYLES)]), f" {phase} {duration(float(spent))}")
        for index, (phase, spent) in enumerate(seconds.items())
    ]


def phase_line(seconds: Mapping[str, float], num_cells: int, pieces: Sequence[str] = PIECES) -> Text:
    """The bar itself."""
    cells = phase_bar(seconds, num_cells)
    parts = [(pieces[i % len(pieces)] * count, STYLES[i % len(STYLES)]) for i, count in enumerate(cells)]
    return Text.assemble(*parts)


def longest_first(seconds: Mapping[str, float], num_phases: int) -> dict[str, float]:
    """The longest phases; what the others took is together called "other"."""
    ordered = sorted(((phase, spent) for phase, spent in seconds.items() if spent > 0), key=lambda one: -one[1])
    shown, rest = ordered[:num_phases], ordered[num_phases:]
    return dict(shown) | ({"other": sum(spent for _, spent in rest)} if rest else {})
