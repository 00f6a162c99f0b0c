"""What a run began with, by digest: rows of its files, files of its models, functions: every resume compares them."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from plumbob.configs.paths import NamedInputs
from plumbob.core.activities import activities
from plumbob.core.atomic_files import write_atomically
from plumbob.core.errors import UserError
from plumbob.core.programs.function_source import source_file
from plumbob.data.record_digest import Inputs
from plumbob.data.row_digest import digest_of_rows
from plumbob.driver.run_folder.folder import INPUTS_FILE, MODELS_FILE
from plumbob.models.fingerprint import digests_of_model


@activities.during("comparing the data with those that the run began with")
def check_rows(named: NamedInputs, folder: Path) -> None:
    """Compare the rows of the files with those that a run which has begun there began with.

    Raises:
        UserError: some are not the same any more, or cannot be read.
    """
    began_with = _read(folder / INPUTS_FILE, "rows")
    if began_with:
        rows_of(named).check(began_with)


@activities.during("comparing the models with those that the run began with")
def check_models(named: NamedInputs, folder: Path) -> None:
    """Compare the models with those that a run which has begun there began with; what has been added is passed over.

    Raises:
        UserError: some are not the same any more.
    """
    began_with = _read(folder / MODELS_FILE, "models")
    for key, name in named.models:
        if name not in began_with:
            continue
        files = digests_of_model(name, key)
        changed = sorted(file for file, digest in began_with[name].items() if files.get(file) != digest)
        if changed:
            raise UserError(
                f"{key}={name}: this is not the model that the run began with: {', '.join(changed)} changed. Put it "
                f"back, or start a new run"
            )


def check_sources(named: NamedInputs, changed: Iterable[str]) -> None:
    """Raises UserError where a function or class of the user's is not in the file that the run began with any more."""
    keys = {function: key for key, function in named.functions}
    for function in changed:
        raise UserError(
            f"{keys[function]}={function}: {source_file(function)} is not the source that the run began with, and may "
            f"do otherwise. Put it back, or start a new run"
        )


@activities.during("taking digests of the data and the models")
def new_digests(named: NamedInputs, folder: Path) -> dict[str, Mapping[str, Any]]:
    """What a run is to know its input by when it resumes: file of its folder -> content, of those not there yet."""
    digests: dict[str, Mapping[str, Any]] = {}
    if not (folder / INPUTS_FILE).exists():
        digests[INPUTS_FILE] = rows_of(named).digests
    if not (folder / MODELS_FILE).exists():
        digests[MODELS_FILE] = {name: digests_of_model(name, key) for key, name in named.models}
    return digests


def write_digests(digests: Mapping[str, Mapping[str, Any]], folder: Path) -> None:
    for name, content in digests.items():
        write_atomically(folder / name, json.dumps(content, indent=2) + "\n")


def rows_of(named: NamedInputs) -> Inputs:
    """By digest, all rows of all files that the settings name: not as a stage takes them, but whole."""
    files = named.files
    times = Counter(key for key, _ in files)
    digests = {path: digest_of_rows(path) for path in {path for _, path in files}}
    # Of a setting that names several files each is known by its path too.
    names = [key if times[key] == 1 else f"{key}={path}" for key, path in files]
    return Inputs(
        {name: f"{key}={path}" for name, (key, path) in zip(names, files, strict=True)},
        {name: digests[path] for name, (_, path) in zip(names, files, strict=True)},
    )


def _read(path: Path, what: str) -> dict[str, Any]:
    """The digests that were kept; none of a run that was begun before they were."""
    try:
        content: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        return content
    except ValueError as error:
        raise UserError(
            f"{path}: expected digests as JSON: {error}; delete it to resume with the {what} as they are"
        ) from error
