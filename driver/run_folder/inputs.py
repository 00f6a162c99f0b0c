"""What the settings of a run name: files and models by absolute paths, and models by what is in them."""

import json
from pathlib import Path

from plumbob.configs.base import IsModel
from plumbob.configs.runs import Run
from plumbob.configs.schema import marked_texts
from plumbob.core.atomic_files import write_whole
from plumbob.core.errors import UserError
from plumbob.models.fingerprint import digests_of_model

MODELS_FILE = "models.json"
"""In a run's folder: name of a model -> file -> its digest when the run began."""


def check_models(config: Run, folder: Path) -> None:
    """Compare the models with those that a run which has begun there began with; what has been added is passed over.

    Raises:
        UserError: some are not the same any more.
    """
    path = folder / MODELS_FILE
    try:
        began_with = json.loads(path.read_text()) if path.exists() else {}
    except ValueError as error:
        raise UserError(
            f"{path}: expected digests as JSON: {error}; delete it to go on with the models as they are"
        ) from error
    for key, name in marked_texts(config, IsModel):
        if name not in began_with:
            continue
        files = digests_of_model(name, key)
        changed = sorted(file for file, digest in began_with[name].items() if files.get(file) != digest)
        if changed:
            raise UserError(
                f"{key}={name}: this is not the model that the run began with: {', '.join(changed)} changed. Put it "
                f"back, or start a new run"
            )


def note_models(config: Run, folder: Path) -> None:
    """Keep the digests of the models that a run begins with; those that are known stay."""
    path = folder / MODELS_FILE
    if not path.exists():
        digests = {name: digests_of_model(name, key) for key, name in marked_texts(config, IsModel)}
        write_whole(path, json.dumps(digests, indent=2) + "\n")
