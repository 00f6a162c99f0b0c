"""What a setting that names a model points at: a Hugging Face folder, a PEFT adapter on its base, or a hub name."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from plumbob.configs.paths import (
    PACKAGE_PREFIX,
    folders_of_base,
    gguf_file_in,
    installed_folder,
    is_of_package,
)
from plumbob.configs.settings.models import ModelRef
from plumbob.configs.settings.tuning.any_tuning import ADAPTER_TYPES, SIZE_KEYS
from plumbob.configs.settings.tuning.soft_prompts import MultitaskPromptTuning
from plumbob.core.errors import UserError
from plumbob.core.outside import from_outside, read_json_object
from plumbob.models.adapter import CONFIG_FILE, WEIGHTS_FILE
from plumbob.models.files.gguf_files import plain_folder_of
from plumbob.models.files.weight_files import check_file, check_weights

BASE_KEY = "base_model_name_or_path"
MODEL_FILES = ("config.json", CONFIG_FILE)
"""By which a folder is known as a model's or an adapter's."""

HUB_NAME = re.compile(r"[A-Za-z0-9_][\w.-]*(/[A-Za-z0-9_][\w.-]*)?", re.ASCII)

MAX_NUMBER = 65_536
"""Of these: no rank is wider than the layers of the largest models."""

TOKENIZER_FILES = ("tokenizer_config.json", "tokenizer.json", "chat_template.jinja")


@dataclass(frozen=True)
class ModelSource:
    """A base model, and the adapter on it when `model` named an adapter folder.

    Attributes:
        base: folder or hub name of the full model.
        adapter: the adapter's folder, or None.
    """

    base: str
    adapter: Path | None

    @property
    def tokenizer_folder(self) -> str:
        """The adapter's folder where it carries a tokenizer that differs from its base's; otherwise the base."""
        if self.adapter is None or not (self.adapter / TOKENIZER_FILES[0]).exists():
            return self.base
        own, base = (
            [_content(Path(folder) / name) for name in TOKENIZER_FILES] for folder in (self.adapter, self.base)
        )
        return self.base if own == base else str(self.adapter)


def resolve_package_folder(name: str, key: str) -> str:
    """`package:NAME/FOLDER` becomes that folder inside the installed Python package; any other name stays as it is.

    Where the folder has a model in a GGUF file, it becomes the folder of the cache with that model in plain form.

    Raises:
        UserError: the package is not installed, has no such folder, or a GGUF file that cannot be read.
    """
    if not is_of_package(name):
        return name
    package = name.removeprefix(PACKAGE_PREFIX).partition("/")[0]
    what = f"{key}={name}: the Python package {package} cannot be looked for"
    with from_outside(what, "install it, or give a folder"):
        folder = installed_folder(name)
    if folder is None:
        raise UserError(f"{key}={name}: the Python package {package} is not installed; install it, or give a folder")
    if not folder.is_dir():
        raise UserError(f"{key}={name}: {folder} is no folder")
    gguf = gguf_file_in(folder)
    return str(folder if gguf is None else plain_folder_of(gguf, key))


def resolve_model(ref: ModelRef) -> ModelSource:
    """Find out what a setting names.

    Raises:
        UserError: the folder is missing, holds neither a model nor an adapter, an adapter of a kind that cannot be
            trained further, or weights that are not whole.
    """
    key, model = ref.setting, resolve_package_folder(ref.name, ref.setting)
    with from_outside(f"{key}={model}: cannot be looked at", "give a folder that may be read"):
        folder = Path(model).expanduser()
        is_folder = folder.is_dir()
        if folder.is_file():
            raise UserError(f"{key}={model}: is a file; a model is a folder with config.json")
        files = {path.name for path in folder.iterdir()} if is_folder else set()
    if not is_folder:
        if _looks_like_a_path(model):
            raise UserError(f"{key}={model}: no such folder")
        if not HUB_NAME.fullmatch(model):
            raise UserError(
                f"{key}={model}: there is no such folder, and it is no hub name, which is NAME or TEAM/NAME in "
                f"letters, digits, '-', '_' and '.'"
            )
        return ModelSource(model, None)
    if CONFIG_FILE in files:
        return _resolve_adapter(ref, folder)
    if "config.json" in files:
        check_weights(folder, key)
        return ModelSource(str(folder), None)
    raise UserError(f"{key}={model}: the folder has neither config.json (a model) nor {CONFIG_FILE} (a PEFT adapter)")


def _resolve_adapter(ref: ModelRef, folder: Path) -> ModelSource:
    config = read_adapter_config(folder)
    kind = config.get("peft_type")
    if kind == MultitaskPromptTuning.peft_type:
        raise UserError(
            f"{ref}: is a soft prompt of several tasks, and a text is read with that of one: give the folder of one of "
            f"them, such as {folder}/tasks/NAME, which fine-tuning here leaves beside it"
        )
    if kind not in ADAPTER_TYPES:
        raise UserError(
            f"{ref}: is an adapter of peft_type {kind}, and only {', '.join(ADAPTER_TYPES)} can be "
            f"trained further; merge it into its base first (peft's merge_and_unload) and give the result"
        )
    _check_numbers(folder, config, SIZE_KEYS.get(str(kind)))
    check_file(folder / WEIGHTS_FILE, ref.setting)
    with from_outside(f"{BASE_KEY} of {folder}: cannot be looked for", "give a folder that may be read"):
        base = base_of(folder, config)
        is_adapter = (Path(base) / CONFIG_FILE).exists()
    if is_adapter:
        raise UserError(
            f"{ref}: was trained on {base}, which is an adapter itself; merge that one into its base first (peft's "
            f"merge_and_unload), and write the merged model's folder into base_model_name_or_path of "
            f"{folder / CONFIG_FILE}"
        )
    return ModelSource(resolve_model(replace(ref, name=base, setting=f"{BASE_KEY} of {folder}")).base, folder)


def _check_numbers(folder: Path, config: Mapping[str, Any], named: str | None) -> None:
    """Raises UserError where an adapter's rank, or what it is `named` instead, or its alpha is no number as it has."""
    number = None if named is None else config.get(named)
    if named is not None and not (type(number) is int and 1 <= number <= MAX_NUMBER):
        raise UserError(
            f"{folder / CONFIG_FILE}: {named} is {json.dumps(number)[:60]}, and must be a whole number from 1 to "
            f"{MAX_NUMBER:,}; save the adapter again"
        )
    alpha = config.get("lora_alpha")
    if alpha is not None and type(alpha) not in (int, float):
        raise UserError(
            f"{folder / CONFIG_FILE}: lora_alpha is {json.dumps(alpha)[:60]}, and must be a number; save the adapter "
            f"again"
        )


def base_of(folder: Path, config: Mapping[str, Any]) -> str:
    """The folder or hub name of an adapter's base.

    A relative folder is looked for within the adapter's folder, beside that folder, and in the working folder; what is
    found is given by its absolute path.

    Args:
        folder: the adapter's.
        config: the content of its `adapter_config.json`.

    Raises:
        UserError: no base is named, or the folder is not there.
    """
    base, fix = config.get(BASE_KEY), f"write the base model's folder into {BASE_KEY} of {folder / CONFIG_FILE}"
    if not base or not isinstance(base, str):
        raise UserError(f"{folder / CONFIG_FILE}: {BASE_KEY} is missing; {fix}")
    looked_at = folders_of_base(folder, base)
    found = next((each for each in looked_at if any((each / name).exists() for name in MODEL_FILES)), None)
    if found is not None:
        return str(found.resolve())
    if _looks_like_a_path(base) and not Path(base).expanduser().is_dir():
        where = f" as {', '.join(map(str, looked_at))}" if looked_at else ""
        raise UserError(f"{BASE_KEY} of {folder}={base}: no such folder{where}; {fix}")
    return base


def _looks_like_a_path(name: str) -> bool:
    return Path(name).expanduser().is_absolute() or name.startswith((".", "~")) or name.count("/") > 1


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """What PEFT wrote beside an adapter's weights. Raises UserError when either cannot be read."""
    if not (folder / WEIGHTS_FILE).exists():
        raise UserError(f"{folder / WEIGHTS_FILE}: is missing; save the adapter as safetensors, PEFT's own default")
    return read_json_object(folder / CONFIG_FILE, f"{folder / CONFIG_FILE}: cannot be read", "save the adapter again")


def served_rank(source: ModelSource, new_rank: int) -> int:
    """The rank that a sampler must hold: the largest of the model's adapter, 0 without one; of a new one on a model."""
    if source.adapter is None:
        return new_rank
    config = read_adapter_config(source.adapter)
    return max(map(int, (config.get("r", 0), *(config.get("rank_pattern") or {}).values())))


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None
