"""Runs beside one another: settings that differ, and which differences of results are larger than the noise."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from plumbob.configs.renamed_keys import with_new_names
from plumbob.configs.resolved_copy import RESOLVED_FILE
from plumbob.configs.resume_rules import flat
from plumbob.core.errors import UserError
from plumbob.core.noise.differences import Difference, MeasuredMetric, difference, larger_than_noise
from plumbob.core.outside import from_outside, read_json_object
from plumbob.driver.comparison.run_measurements import measurements
from plumbob.driver.run_folder.folder import INPUTS_FILE, MODELS_FILE

OF_THE_PLACE = ("name", "storage.path")
"""Settings that differ between any two runs, and say nothing."""


@dataclass(frozen=True)
class ComparedDifference:
    """Of one metric, a run's less the baseline's.

    Attributes:
        is_larger: than the noise, over all differences of the comparison together.
    """

    difference: Difference
    is_larger: bool


@dataclass(frozen=True)
class ComparedMetric:
    """One metric of all runs, in their order; None where a run has none, or the baseline has nothing to compare with.

    Attributes:
        differences: of each run but the first, which is the baseline.
    """

    name: str
    values: tuple[MeasuredMetric | None, ...]
    differences: tuple[ComparedDifference | None, ...]

    def as_dict(self, runs: Sequence[str]) -> dict[str, Any]:
        """As JSON for scripts, by run."""
        values = {
            run: None if one is None else {"value": one.value, "ci95": one.ci95, "num_prompts": one.num_prompts}
            for run, one in zip(runs, self.values, strict=True)
        }
        differences = {
            run: None if one is None else {**asdict(one.difference), "is_larger_than_noise": one.is_larger}
            for run, one in zip(runs[1:], self.differences, strict=True)
        }
        return {"metric": self.name, "values": values, "differences": differences}


@dataclass(frozen=True)
class ComparedRuns:
    """What `compare_runs` finds.

    Attributes:
        runs: what they are called, the baseline first.
        settings: dotted key -> its value in each; those alone that differ. None stands for a key that a run has not.
        inputs: setting or model -> digest in each, where the same name meant other rows or files.
    """

    runs: tuple[str, ...]
    settings: Mapping[str, tuple[Any, ...]]
    inputs: Mapping[str, tuple[str | None, ...]]
    metrics: tuple[ComparedMetric, ...]

    def as_dict(self) -> dict[str, Any]:
        """As JSON for scripts."""
        return {
            "runs": list(self.runs),
            "settings": {key: list(values) for key, values in self.settings.items()},
            "inputs": {key: list(values) for key, values in self.inputs.items()},
            "metrics": [metric.as_dict(self.runs) for metric in self.metrics],
        }


def compare_runs(folders: Sequence[Path]) -> ComparedRuns:
    """Compare each run with the first.

    Raises:
        UserError: one is given twice, or its files are damaged.
    """
    twice = next((folder for index, folder in enumerate(folders) if folder in folders[:index]), None)
    if len(folders) < 2 or twice is not None:
        raise UserError(f"{twice or folders[0]}: a run is compared with others: give two runs or more, each once")
    configs = [_config(folder) for folder in folders]
    inputs = [{**_digests(folder / INPUTS_FILE), **_digests(folder / MODELS_FILE)} for folder in folders]
    names = [folder.name for folder in folders]
    return ComparedRuns(
        tuple(names if len(set(names)) == len(names) else map(str, folders)),
        {key: row for key, row in _rows(configs).items() if key not in OF_THE_PLACE and len(set(map(repr, row))) > 1},
        {key: row for key, row in _rows(inputs).items() if len({one for one in row if one is not None}) > 1},
        tuple(_compared_metrics([measurements(folder) for folder in folders])),
    )


def _compared_metrics(measured: Sequence[Mapping[str, MeasuredMetric]]) -> list[ComparedMetric]:
    rows = _rows(measured)
    found: dict[tuple[str, int], Difference] = {}
    for name, (baseline, *others) in rows.items():
        for index, other in enumerate(others):
            if baseline is not None and other is not None:
                found[name, index] = difference(other, baseline)
    larger = dict(zip(found, larger_than_noise(list(found.values())), strict=True))
    return [
        ComparedMetric(
            name,
            values,
            tuple(
                ComparedDifference(found[name, index], larger[name, index]) if (name, index) in found else None
                for index in range(len(values) - 1)
            ),
        )
        for name, values in rows.items()
    ]


def _rows(columns: Sequence[Mapping[str, Any]]) -> dict[str, tuple[Any, ...]]:
    """Key -> its value in each, None where there is none; in the order in which they are met."""
    return {key: tuple(column.get(key) for column in columns) for key in dict.fromkeys(k for c in columns for k in c)}


def _config(folder: Path) -> dict[str, Any]:
    path = folder / RESOLVED_FILE
    what = f"{path}: expected the settings of a run as JSON"
    with from_outside(what):
        return flat(with_new_names(read_json_object(path, what)["config"]))


def _digests(path: Path) -> dict[str, str]:
    """By dotted name; none where there is no file, as in a run of an earlier version."""
    if not path.exists():
        return {}
    what = f"{path}: expected digests as JSON"
    with from_outside(what):
        return {name: str(digest) for name, digest in flat(read_json_object(path, what)).items()}
