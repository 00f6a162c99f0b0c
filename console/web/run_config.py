"""The settings of a run as a page compares them: flat, with defaults, meanings, and what is proven of them."""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from plumbob.configs.resolved_copy import RESOLVED_FILE, config_of
from plumbob.configs.runs import RUN_KINDS
from plumbob.configs.setting_docs import NUMBER, described_settings
from plumbob.console.web.run_files.run_content import json_lines, last_lines, read_object, text_at
from plumbob.console.web.run_files.run_index import RunLocation
from plumbob.console.web.verified_settings import VERIFIED_FILE, proofs_of

if TYPE_CHECKING:
    from plumbob.configs.setting_docs import DescribedSetting

MAX_SETTINGS = 5_000
MAX_VERIFIED_BYTES = 4 * 2**20
"""Of what `plumbob verify` printed, its last."""

PLACE_IN_LIST = re.compile(r"\.\d+(?=\.|$)")


def run_config(location: RunLocation) -> dict[str, Any]:
    """Damaged settings are none, and named in `damaged`."""
    damaged: list[str] = []
    resolved = read_object(location.file(RESOLVED_FILE), damaged)
    config = config_of(resolved)
    flat = dict(list(_flat(config, ""))[:MAX_SETTINGS])
    known = _known(text_at(config, "kind") or "", flat)
    return {
        "resolved": resolved,
        "flat": flat,
        "defaults": {key: setting.default for key, setting in known.items() if not setting.is_required},
        "meanings": {key: setting.meaning for key, setting in known.items() if setting.meaning},
        "proofs": proofs_of(flat, json_lines(last_lines(location.shared_file(VERIFIED_FILE), MAX_VERIFIED_BYTES))[0]),
        "damaged": damaged,
    }


def _flat(content: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """Dotted key -> value; a list of plain values is one."""
    match content:
        case Mapping() if content or not prefix:
            for name, value in content.items():
                yield from _flat(value, f"{prefix}.{name}" if prefix else str(name))
        case list() if any(isinstance(element, Mapping) for element in content):
            for number, element in enumerate(content):
                yield from _flat(element, f"{prefix}.{number}")
        case _:
            yield prefix, content


def _known(kind: str, flat: Mapping[str, Any]) -> dict[str, "DescribedSetting"]:
    """Key -> what it means, of the variants that were chosen."""
    found: dict[str, DescribedSetting] = {}
    if kind not in RUN_KINDS:
        return found
    settings = _described(kind)
    for key in flat:
        for setting in settings.get(PLACE_IN_LIST.sub(f".{NUMBER}", key), ()):
            chosen = (only.partition("=") for only in setting.only_with)
            if not setting.only_with or any(str(flat.get(chooser)) == choice for chooser, _, choice in chosen):
                found[key] = setting
    return found


@cache
def _described(kind: str) -> dict[str, list["DescribedSetting"]]:
    by_key: dict[str, list[DescribedSetting]] = {}
    for setting in described_settings((kind,)):
        by_key.setdefault(setting.key, []).append(setting)
    return by_key
