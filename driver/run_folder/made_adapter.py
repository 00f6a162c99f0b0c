"""What a run's folder knows of the policy that it made: of which stage, on which data, from what, how good."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plumbob.configs.paths import ADAPTER_CONFIG_FILE
from plumbob.configs.renamed_keys import with_new_names
from plumbob.configs.resolved_copy import RESOLVED_FILE, configured_stage
from plumbob.core.outside import from_outside, read_json_object
from plumbob.driver.run_folder.folder import INPUTS_FILE, MODELS_FILE, SUMMARY_FILE
from plumbob.models.library.base_digest import digest_of_base
from plumbob.models.library.library_entry import NOT_QUANTISED, DataFile, TrainingFacts
from plumbob.models.quantization.forms import WEIGHTS_DTYPE
from plumbob.models.resolution import base_of, read_adapter_config
from plumbob.trainers.learner.export import TASKS_FOLDER

NO_SCORES = frozenset({"seconds", "peak_memory_gib", "energy"})
"""Numbers of a stage's summary that say nothing of what it made, beside all counts."""


@dataclass(frozen=True)
class RunRecord:
    """The files of the run that a policy is the result of.

    Attributes:
        folder: of the run.
        stage: of the run, such as sft.
        resolved: the content of its `resolved.json`, empty as the others where the file is not there.
        config: the settings in it, by today's names.
        inputs, models: digests of what it read when it began.
        summary: of the stage.
    """

    folder: Path
    stage: str
    resolved: Mapping[str, Any]
    config: Mapping[str, Any]
    inputs: Mapping[str, str]
    models: Mapping[str, Mapping[str, str]]
    summary: Mapping[str, Any]


def record_of(policy: Path) -> RunRecord | None:
    """Of an adapter, or a full model, that lies where its run wrote it; None of any other.

    Raises:
        UserError: a file of the run is damaged.
    """
    place = policy.resolve()
    # A soft prompt of one task lies below that of all.
    result = place.parents[1] if place.parent.name == TASKS_FOLDER else place
    run = next((each for each in result.parents[:2] if (each / RESOLVED_FILE).is_file()), None)
    if run is None:
        return None
    resolved, inputs, models, summary = (
        _read(run / file) for file in (RESOLVED_FILE, INPUTS_FILE, MODELS_FILE, SUMMARY_FILE)
    )
    with _as_written(run):
        config = with_new_names(resolved["config"])
        stage = configured_stage(config) if result.parent == run else result.parent.name
        stages = summary.get("stages", {})
        # The stage of a run that is one is called by what was asked for, such as grpo.
        if stage not in stages and result.parent == run and len(stages) == 1:
            stage = next(iter(stages))
        return RunRecord(run, str(stage), resolved, config, inputs, models, dict(stages.get(stage, {})))


def facts_of(policy: Path) -> TrainingFacts:
    """As far as its run's files say it; nothing is known of a policy that does not lie where a run wrote it.

    Raises:
        UserError: as `record_of`.
    """
    run = record_of(policy)
    if run is None:
        return TrainingFacts()
    with _as_written(run.folder):
        return TrainingFacts(
            run=str(run.folder),
            stage=run.stage,
            trained=run.resolved.get("time"),
            base_digest=_digest_of_base(policy.resolve(), run.models),
            quantization=_quantization(run.config.get("policy", {})),
            data=data_of(run) or None,
            scores=scores_of(run.summary) or None,
        )


def data_of(run: RunRecord) -> dict[str, DataFile]:
    """Setting -> the records that it named."""
    return {key: DataFile(file=_file_of(key, run.config), digest=digest) for key, digest in run.inputs.items()}


def _quantization(policy: Mapping[str, Any]) -> Mapping[str, Any]:
    """Settings of the bits that the base was kept in, with the dtype that it was in before."""
    settings = policy.get("quantization")
    return {**settings, WEIGHTS_DTYPE: policy["dtype"]} if settings else NOT_QUANTISED


def _as_written(run: Path) -> AbstractContextManager[None]:
    return from_outside(f"{run}: its files are not as a run writes them", "copy the policy's folder, and give that")


def _digest_of_base(place: Path, models: Mapping[str, Mapping[str, str]]) -> str | None:
    """Of an adapter's base; a full model has none."""
    if not (place / ADAPTER_CONFIG_FILE).is_file():
        return None
    return digest_of_base(_files_of_base(models, base_of(place, read_adapter_config(place))))


def _files_of_base(models: Mapping[str, Mapping[str, str]], base: str) -> dict[str, str]:
    """File -> digest when the run began, whether it began from the base or from an adapter on it."""
    for model, files in models.items():
        if model == base:
            return dict(files)
        below = {name.removeprefix(f"{base}/"): one for name, one in files.items() if name.startswith(f"{base}/")}
        if below:
            return below
    return {}


def _file_of(key: str, config: Mapping[str, Any]) -> str | None:
    """Which files a digest of `inputs.json` is of: the key says it where a setting names several."""
    setting, _, file = key.partition("=")
    if file:
        return file
    value: Any = config
    for part in setting.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value if isinstance(value, str) else None


def scores_of(stage: Mapping[str, Any]) -> dict[str, float]:
    """Of the metrics of a stage those that say how good what it made is."""
    return {
        name: value
        for name, value in stage.items()
        if isinstance(value, int | float)
        and not isinstance(value, bool)
        and name not in NO_SCORES
        and not name.startswith("num_")
    }


def _read(path: Path) -> dict[str, Any]:
    """Nothing of a file that is not there, such as the summary of a run that was stopped."""
    return read_json_object(path, f"{path}: cannot be read") if path.is_file() else {}
