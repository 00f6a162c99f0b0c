"""What a run's folder knows of the adapter that it made: of which stage, on which data, from which base, how good."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from plumbob.configs.paths import ADAPTER_CONFIG_FILE
from plumbob.configs.renamed_keys import with_new_names
from plumbob.configs.resolved_copy import RESOLVED_FILE
from plumbob.core.errors import UserError
from plumbob.core.outside import from_outside, read_json_object
from plumbob.driver.run_folder.folder import SUMMARY_FILE, find_run
from plumbob.driver.run_folder.inputs import INPUTS_FILE, MODELS_FILE
from plumbob.models.library.base_digest import digest_of_base
from plumbob.models.library.library_entry import NOT_QUANTISED, DataFile, TrainingFacts
from plumbob.models.resolution import base_of, read_adapter_config
from plumbob.trainers.learner.export import TASKS_FOLDER

RESULT = "policy"
"""In the folder of a run or of a stage."""

NO_SCORES = frozenset({"seconds", "peak_memory_gib"})
"""Numbers of a stage's summary that say nothing of what it made, beside all counts."""


def find_adapter(text: str) -> Path:
    """The adapter's folder that RUN_OR_FOLDER means: one itself, or the result of a run by its folder or name.

    Raises:
        UserError: it is neither.
    """
    given = Path(text).expanduser()
    with from_outside(f"{text}: cannot be looked at", "give a folder that may be read"):
        if (given / ADAPTER_CONFIG_FILE).is_file():
            return given
        run = given if any((given / name).exists() for name in (RESULT, "config.json")) else find_run(text)
        if (run / RESULT / ADAPTER_CONFIG_FILE).is_file():
            return run / RESULT
        stages = sorted(str(path.parent) for path in run.glob(f"*/{RESULT}/{ADAPTER_CONFIG_FILE}"))
    if stages:
        raise UserError(f"{run}: several stages made adapters; give the folder of one: {', '.join(stages)}")
    raise UserError(f"{run}: has no adapter as its result ({RESULT}/{ADAPTER_CONFIG_FILE})")


def facts_of(adapter: Path) -> TrainingFacts:
    """Of an adapter that lies where its run wrote it; of any other nothing is known.

    Raises:
        UserError: a file of the run is damaged.
    """
    place = adapter.resolve()
    # A soft prompt of one task lies below that of all.
    result = place.parents[1] if place.parent.name == TASKS_FOLDER else place
    run = next((each for each in result.parents[:2] if (each / RESOLVED_FILE).is_file()), None)
    if run is None:
        return TrainingFacts()
    resolved, inputs, models, summary = (
        _read(run / file) for file in (RESOLVED_FILE, INPUTS_FILE, MODELS_FILE, SUMMARY_FILE)
    )
    with from_outside(f"{run}: its files are not as a run writes them", "copy the adapter's folder, and add that"):
        config = with_new_names(resolved["config"])
        stage = config["kind"] if result.parent == run else result.parent.name
        stages = summary.get("stages", {})
        # The stage of a run that is one is called by what was asked for, such as grpo.
        if stage not in stages and result.parent == run and len(stages) == 1:
            stage = next(iter(stages))
        policy = config.get("policy", {})
        return TrainingFacts(
            run=str(run),
            stage=str(stage),
            trained=resolved.get("time"),
            base_digest=digest_of_base(_files_of_base(models, base_of(place, read_adapter_config(place)))),
            quantization=policy.get("quantization") or NOT_QUANTISED,
            data={key: DataFile(file=_file_of(key, config), digest=digest) for key, digest in inputs.items()} or None,
            scores=_scores(stages.get(stage, {})) or None,
        )


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


def _scores(stage: Mapping[str, Any]) -> dict[str, float]:
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
