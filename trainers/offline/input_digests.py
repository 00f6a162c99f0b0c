"""What an offline stage reads, by digest: on other records a resumed run would silently compute something else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from plumbob.configs.settings.data import SplittingSettings
from plumbob.core.errors import UserError
from plumbob.data.record_digest import digest_of
from plumbob.trainers.forgetting.retention import RetainedText


@dataclass(frozen=True)
class Inputs:
    """By the setting that names a file of records, or would name one of those held out.

    Attributes:
        files: `SETTING=FILE`, where the records come from.
        digests: of the records as the stage takes them.
    """

    files: Mapping[str, str]
    digests: Mapping[str, str]

    def check(self, began_with: Mapping[str, str]) -> None:
        """Compare with the digests of the stage that goes on. Raises UserError when records differ."""
        changed = dict.fromkeys(self.files[name] for name in self.digests if self.digests[name] != began_with[name])
        if changed:
            raise UserError(
                f"{', '.join(changed)}: the records are not those that the run began with: a run is resumed on the "
                f"same files, limits, tokenizer and seed. Put them back, or start a new run"
            )


def inputs_of(
    data: SplittingSettings,
    kind: str,
    train: Sequence[Any],
    heldout: Sequence[Any],
    retained: RetainedText | None = None,
    replayed: Mapping[str, Sequence[Any]] | None = None,
) -> Inputs:
    """Of both sides of a split and of text beside them.

    Args:
        kind: of the data, as its setting is called.
        replayed: file -> its blocks.
    """
    setting, heldout_setting = f"data.{kind}", f"data.heldout_{kind}"
    path, heldout_path = getattr(data, kind), getattr(data, f"heldout_{kind}")
    taken = {setting: (f"{setting}={path}", train), heldout_setting: (f"{setting}={path}", heldout)}
    if heldout_path is not None:
        taken[heldout_setting] = (f"{heldout_setting}={heldout_path}", heldout)
    if retained is not None:
        taken["retention.text"] = (f"retention.text={retained.settings.text}", retained.text.blocks)
    for file, blocks in (replayed or {}).items():
        taken["replay.text"] = (f"replay.text={file}", blocks)
    return Inputs(
        {name: file for name, (file, _) in taken.items()},
        {name: digest_of(records) for name, (_, records) in taken.items()},
    )
