"""What could stand in the place of an argument: presets, settings, runs (`completed_by` says which where)."""

import re
from argparse import Action, Namespace
from collections.abc import Callable, Iterable
from pathlib import Path

Completer = Callable[..., Iterable[str]]
"""Called with `prefix`, what is typed of the word, and `parsed_args`, the words before it, by name."""

PRESETS = Path(__file__).parents[2] / "configs" / "presets"
"""As `configs.load_run` has it, which takes a while to import: who presses Tab waits."""

KIND = re.compile(r"^kind: *([\w-]+)", re.MULTILINE)
"""The line of a YAML file that says of which kind its run is."""

CHOICES = re.compile(r"\bone of ([^;]+?)(?: or \w+)?$")
"""In a setting's type in words."""


def completed_by(completer: Completer, action: Action) -> None:
    """Let argcomplete ask `completer` about this argument."""
    action.completer = completer  # type: ignore[attr-defined]


def configs(prefix: str, **_: object) -> list[str]:
    """Presets and YAML files."""
    from argcomplete.completers import FilesCompleter

    return [*(path.stem for path in PRESETS.glob("*.yaml")), *FilesCompleter(("yaml", "yml"))(prefix)]


def settings(prefix: str, parsed_args: Namespace, **_: object) -> list[str]:
    """`a.b=` of the kind of run that CONFIG is; behind the `=` what a choice may be."""
    from plumbob.configs.runs import RUN_KINDS
    from plumbob.configs.setting_docs import NUMBER, described_settings

    kind = _kind_of(getattr(parsed_args, "config", None))
    found = described_settings((kind,) if kind in RUN_KINDS else tuple(RUN_KINDS))
    key, is_given, _value = prefix.partition("=")
    if is_given:
        types = [setting.type for setting in found if setting.key == key]
        return [f"{key}={choice}" for words in types for choice in _choices(words)]
    keys = (setting.key for setting in found if setting.type != "group")
    return [f"{each}=" for each in dict.fromkeys(keys) if NUMBER not in each.split(".")]


def setting_names(prefix: str, parsed_args: Namespace, **_: object) -> list[str]:
    """Settings, and groups of them, without a value."""
    from plumbob.configs.setting_docs import described_settings

    return [setting.key for setting in described_settings()]


def configs_or_settings(prefix: str, parsed_args: Namespace, **_: object) -> list[str]:
    """For a command whose CONFIG may be left out."""
    return [*configs(prefix), *settings(prefix, parsed_args)]


def runs(prefix: str, **_: object) -> list[str]:
    """Names of runs below `runs/`, and folders."""
    from argcomplete.completers import DirectoriesCompleter

    return [*(path.parent.name for path in Path("runs").glob("*/resolved.json")), *DirectoriesCompleter()(prefix)]


def files(prefix: str, **_: object) -> list[str]:
    """Files and folders."""
    from argcomplete.completers import FilesCompleter

    return list(FilesCompleter()(prefix))


def _kind_of(config: object) -> str | None:
    """Of a preset or a YAML file; None where that cannot be told."""
    if not isinstance(config, str):
        return None
    preset = PRESETS / f"{config}.yaml"
    path = preset if preset.is_file() else Path(config)
    try:
        found = KIND.search(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeError):
        return None
    return None if found is None else found[1]


def _choices(words: str) -> list[str]:
    """Of a setting whose type is a choice."""
    if words.startswith("true or false"):
        return ["true", "false"]
    chosen = CHOICES.search(words)
    return [] if chosen is None else chosen[1].split(", ")
