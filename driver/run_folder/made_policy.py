"""Which policy a person means by RUN_OR_FOLDER: the result of a run, a folder of a model or adapter, a name."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from plumbob.configs.paths import ADAPTER_CONFIG_FILE, is_of_package
from plumbob.configs.validation import shortened
from plumbob.core.errors import UserError
from plumbob.core.outside import from_outside
from plumbob.driver.run_folder.folder import RUNS, find_run
from plumbob.models.resolution import HUB_NAME, MODEL_FILES

RESULT = "policy"
"""In the folder of a run or of a stage."""


def find_policy(text: str) -> str:
    """The model that RUN_OR_FOLDER means, as a setting would name it.

    A folder of a model or an adapter is itself; a run, by its folder or its name below `runs/`, is its result;
    `package:NAME/FOLDER` and TEAM/NAME of a hub stay as they are.

    Raises:
        UserError: it is none of these, or a run of several stages that made policies.
    """
    if is_of_package(text):
        return text
    if "/" in text and HUB_NAME.fullmatch(text):
        with _looked_at(text):
            if not Path(text).parent.exists() and not (RUNS / text).exists():
                return text
    return str(find_result(text, MODEL_FILES, "policy"))


def find_adapter(text: str) -> Path:
    """The adapter's folder that RUN_OR_FOLDER means: one itself, or the result of a run by its folder or name.

    Raises:
        UserError: it is neither.
    """
    return find_result(text, (ADAPTER_CONFIG_FILE,), "adapter")


def find_result(text: str, files: Sequence[str], what: str) -> Path:
    """The folder with one of `files` that RUN_OR_FOLDER is, or that is the result of it.

    Args:
        what: such a folder is called so in an error.

    Raises:
        UserError: there is none, or there are several.
    """

    def is_one(folder: Path) -> bool:
        return any((folder / name).is_file() for name in files)

    with _looked_at(text):
        given = Path(text).expanduser()
        if is_one(given):
            return given
        run = given if any((given / name).exists() for name in (RESULT, "config.json")) else find_run(text)
        if is_one(run / RESULT):
            return run / RESULT
        stages = sorted(str(path) for path in run.glob(f"*/{RESULT}") if is_one(path))
    if stages:
        raise UserError(f"{run}: several stages made one ({what}); give the folder of one: {', '.join(stages)}")
    raise UserError(f"{run}: has no {what} as its result ({RESULT}/{files[-1]}); a run that is not finished has none")


def _looked_at(text: str) -> AbstractContextManager[None]:
    return from_outside(f"{shortened(text)}: cannot be looked at", "give a folder that may be read")


def short_name(model: str) -> str:
    """Of a model, for people: of a run's result the run or stage."""
    path = Path(model)
    return path.parent.name if path.name == RESULT and path.parent.name else path.name
