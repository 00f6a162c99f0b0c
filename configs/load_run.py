"""A preset or YAML file and `a.b=c` overrides become a run's configuration; every error has its file and line."""

import os
from collections.abc import Sequence
from pathlib import Path

from plumbob.configs.renamed_keys import renamed_errors, with_new_names
from plumbob.configs.runs import RUN_KINDS, AnyRun
from plumbob.configs.validation import SettingError, complete, describe, nearest, setting_errors, shortened
from plumbob.configs.yaml_files import Source, overridden, read_source
from plumbob.core.errors import UserError
from plumbob.core.outside import from_outside

MAX_RUN_NAME_BYTES = 200
"""A folder's name has 255 at most, and what is written beside it ends in more."""

PRESETS = Path(__file__).parent / "presets"


def preset_names() -> list[str]:
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def load_run(config: str, overrides: Sequence[str] = (), resumes: bool = False, later: Sequence[str] = ()) -> AnyRun:
    """Read the preset or file named `config`; UserError lists everything wrong, one line each.

    Args:
        later: overrides of what the others made: with another `kind` the settings that they gave its group are gone.
        resumes: it may have begun already, so that no free name can be found for it.
    """
    path = _find(config)
    label = path.name if path.parent == PRESETS else str(path)
    run = build_run(overridden(overridden(read_source(path, label), overrides), later))
    if resumes and not run.name:
        raise UserError("--resume: expected the name of the run that may have begun: give name=")
    return run if run.name else run.model_copy(update={"name": free_name(Path(run.storage.path), path.stem)})


def free_name(storage: Path, name: str) -> str:
    """`name`, or the first of `name-2`, `name-3`, ... that no earlier run has taken."""
    taken, number = name, 1
    with from_outside(f"storage.path: {storage} cannot be looked into", "set storage.path to a folder that can be"):
        while (storage / taken).exists():
            number += 1
            taken = f"{name}-{number}"
    return taken


def load_eval(overrides: Sequence[str]) -> AnyRun:
    """The configuration of `plumbob eval` without a preset."""
    run = build_run(overridden(Source("eval", {"kind": "eval"}), overrides))
    return run if run.name else run.model_copy(update={"name": "eval"})


def _find(config: str) -> Path:
    if config in preset_names():
        return PRESETS / f"{config}.yaml"
    path = Path(config)
    if path.suffix in (".yaml", ".yml") or os.sep in config:
        with from_outside(f"{shortened(config)}: cannot be looked for", "give a .yaml file that may be read"):
            if not path.is_file():
                raise UserError(f"{config}: there is no such file; presets: {', '.join(preset_names())}")
        return path
    close = nearest(config, preset_names())
    hint = f"did you mean {close}? " if close else ""
    raise UserError(
        f"{shortened(config)}: unknown preset; {hint}presets: {', '.join(preset_names())}; or give a .yaml file"
    )


def build_run(source: Source) -> AnyRun:
    """The run of these settings. UserError lists everything wrong, one line each."""
    values = with_new_names(source.values)
    kind = values.get("kind")
    if not isinstance(kind, str) or kind not in RUN_KINDS:
        close = nearest(str(kind), list(RUN_KINDS))
        hint = f"; did you mean {close}?" if close else ""
        found = "is missing" if kind is None else f"is {describe(kind)}"
        raise UserError(f"{source.label}: kind {found}; expected one of {', '.join(RUN_KINDS)}{hint}")
    model = RUN_KINDS[kind]
    values = complete(model, values)
    errors = [*renamed_errors(source.values), *setting_errors(model, values), *_name_errors(values.get("name"))]
    if errors:
        raise UserError("\n".join(_line(error, source) for error in errors))
    run: AnyRun = model.model_validate(values)  # type: ignore[assignment]
    return run


def _name_errors(name: object) -> list[SettingError]:
    if not isinstance(name, str):
        return []
    if set(name) & set("/\\\0") or name in (".", "..") or not name.isprintable():
        return [SettingError("name", f"expected a folder's name without slashes, found {describe(name)}")]
    if len(name.encode()) > MAX_RUN_NAME_BYTES:
        return [SettingError("name", f"expected at most {MAX_RUN_NAME_BYTES} bytes, found {describe(name)}")]
    return []


def _line(error: SettingError, source: Source) -> str:
    if not error.key:
        return error.text
    line = source.line_of(error.key)
    where = {None: source.label, 0: "command line"}.get(line, f"{source.label}, line {line}")
    return f"{where}: {error.key}: {error.text}"
