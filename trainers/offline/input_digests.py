"""What an offline stage reads, by digest: both sides of its split, and text beside them."""

from collections.abc import Mapping, Sequence
from typing import Any

from plumbob.configs.settings.data import MixtureSettings, SplittingSettings
from plumbob.data.encoded_files import by_setting
from plumbob.data.epoch_order import Mixture
from plumbob.data.record_digest import Inputs, digest_of
from plumbob.trainers.forgetting.retention import RetainedText


def inputs_of(
    data: SplittingSettings,
    kind: str,
    train: Sequence[Any],
    heldout: Sequence[Any],
    retained: RetainedText | None = None,
    replayed: Mapping[str, Sequence[Any]] | None = None,
    mixture: Mixture | None = None,
) -> Inputs:
    """The records as the stage takes them: tokens, so that another tokenizer is noticed too.

    Args:
        kind: of the data, as its setting is called.
        replayed: file -> its blocks.
        mixture: of the files that `train` is of; each of them counts by itself.
    """
    setting, heldout_setting = f"data.{kind}", f"data.heldout_{kind}"
    path, heldout_path = getattr(data, kind), getattr(data, f"heldout_{kind}")
    if mixture is None:
        taken = {setting: (f"{setting}={path}", train), heldout_setting: (f"{setting}={path}", heldout)}
    else:
        assert isinstance(data, MixtureSettings)
        taken = {name: (name, records) for name, records in by_setting(data, train, mixture)}
        taken[heldout_setting] = ("data.mixture, what is held out of it", heldout)
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
