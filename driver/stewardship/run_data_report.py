"""The report on a run's own data (`data.checks.report`), which is kept in its folder."""

import json
from pathlib import Path

from plumbob.configs.base import IsFile
from plumbob.configs.runs import AnyRun
from plumbob.configs.schema import marked_texts
from plumbob.configs.settings.data import ReadingSettings, SplittingSettings
from plumbob.core.atomic_files import write_atomically
from plumbob.core.errors import UserError
from plumbob.data.audit.data_report import REPORT_JSON, DataReport, report_files

HELD_OUT = "heldout_"
"""How settings begin that name held-out files."""

BENCHMARKS = "checks.benchmarks"


def run_data_report(config: AnyRun, folder: Path) -> DataReport | None:
    """None where the run asks for none, or has one already. UserError where it reads no files."""
    data = config.data
    if not isinstance(data, SplittingSettings) or not data.checks.report or (folder / REPORT_JSON).exists():
        return None
    named = [(key, path) for key, path in marked_texts(data, IsFile) if key != BENCHMARKS]
    heldout = [path for key, path in named if key.startswith(HELD_OUT)]
    training = list(dict.fromkeys(path for key, path in named if not key.startswith(HELD_OUT)))
    if not training:
        raise UserError("data.checks.report=true: the run reads no file of its own that there could be a report on")
    own = {name: getattr(data, name) for name in ReadingSettings.model_fields if hasattr(data, name)}
    return report_files(training, heldout, data.checks, ReadingSettings(**own))


def write_data_report(report: DataReport | None, folder: Path) -> None:
    if report is not None:
        write_atomically(folder / REPORT_JSON, json.dumps(report.as_dict(), indent=2) + "\n")
