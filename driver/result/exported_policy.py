"""A policy as a folder that a hub takes (`export_policy`): safetensors, tokenizer, a page of what is known of it."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from plumbob.configs.settings.models import ModelRef
from plumbob.core.atomic_files import flush_all, replaced, write_atomically
from plumbob.core.errors import UserError
from plumbob.core.outside import from_outside
from plumbob.driver.result.lineage import LINEAGE_FILE, lineage_of
from plumbob.driver.result.model_card import CardSubject, model_card
from plumbob.driver.result.usage_guidelines import USAGE_FILE, template, usage_notes
from plumbob.driver.run_folder.made_adapter import facts_of, record_of
from plumbob.driver.run_folder.made_policy import find_policy
from plumbob.models.adapter import CONFIG_FILE, WEIGHTS_FILE, load_adapter
from plumbob.models.library.adding import copy_tokenizer, write_config
from plumbob.models.library.base_digest import base_digest
from plumbob.models.loading import OpenedPolicy, open_policy
from plumbob.models.merging.merged_model import MergeProof, write_merged
from plumbob.models.quantization.forms import KeptBits
from plumbob.models.resolution import BASE_KEY, HUB_NAME, TOKENIZER_FILES, read_adapter_config, served_rank

CARD = "README.md"
CANNOT_WRITE = "give a folder that may be written, with room for the model"


@dataclass(frozen=True)
class ExportedPolicy:
    """What was written.

    Attributes:
        files: name -> bytes.
        left_out: names in the policy's folder that were not copied, being no part of a model's.
        notes: sentences about what others will miss.
        proof: of a merge; None where nothing was merged.
    """

    folder: Path
    files: dict[str, int]
    left_out: tuple[str, ...]
    notes: tuple[str, ...]
    proof: MergeProof | None


def export_policy(
    policy: str,
    folder: Path,
    merged: bool = False,
    dtype: str | None = None,
    dequantised: bool = False,
    base_name: str | None = None,
    usage: Path | None = None,
) -> ExportedPolicy:
    """Write it; the policy's own folder stays as it is.

    Args:
        policy: as `find_policy` takes it.
        folder: which is not there yet.
        merged: write an adapter and its base as one full model.
        dtype: of a merged model's weights; None is that of the base's own.
        dequantised: merge into the weights that the base had in few bits, as floats.
        base_name: what the base is called on a hub.
        usage: the file of the usage guidelines; None writes their template, to be filled in.

    Raises:
        UserError: it is no policy, the folder is there or cannot be written, or the options do not go together.
        RunFailed: what was merged is not what was written.
    """
    with from_outside(f"{folder}: cannot be looked at", CANNOT_WRITE):
        folder = folder.expanduser()
        if folder.exists():
            raise UserError(f"{folder}: is there already; give a folder that is not")
    opened = open_policy(ModelRef(find_policy(policy), "RUN_OR_FOLDER"))
    adapter = opened.source.adapter
    if merged and adapter is None:
        raise UserError(f"{opened.ref}: is a full model already: nothing to merge")
    if not merged and (dtype or dequantised):
        raise UserError("--dtype and --dequantised are of a merged model: give --merged too")
    if base_name is not None and not HUB_NAME.fullmatch(base_name):
        raise UserError(
            f"--base-name={base_name}: a hub name is NAME or TEAM/NAME in letters, digits, '-', '_' and '.'"
        )
    if adapter is None and not Path(opened.source.base).is_dir():
        raise UserError(f"{opened.ref}: is a name on a hub, where it is already")
    guidelines = _guidelines(usage)
    subject = _subject(opened, folder.name, merged, base_name, guidelines)
    # First: where they cannot be made nothing is written.
    card, lineage = model_card(subject), lineage_of(adapter or Path(opened.source.base))
    left_out, proof = tuple[str, ...](), None
    if merged and adapter is not None:
        bits = _kept_bits(adapter) if dequantised else None
        proof = write_merged(load_adapter(adapter), opened, folder, dtype, bits)
    else:
        with from_outside(f"{folder}: cannot be written", CANNOT_WRITE), replaced(folder) as partial:
            left_out = _copy(opened, partial, base_name)
            flush_all(partial)
    with from_outside(f"{folder / CARD}: cannot be written", CANNOT_WRITE):
        write_atomically(folder / CARD, card)
        write_atomically(folder / USAGE_FILE, guidelines)
        write_atomically(folder / LINEAGE_FILE, json.dumps(lineage | {"policy": folder.name}, indent=2) + "\n")
    files = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    return ExportedPolicy(folder, files, left_out, _notes(subject), proof)


def _copy(opened: OpenedPolicy, folder: Path, base_name: str | None) -> tuple[str, ...]:
    """The files of an adapter or a full model, with a tokenizer; gives the names that were left out."""
    adapter = opened.source.adapter
    left_out = copy_tokenizer(adapter or Path(opened.source.base), folder)
    if adapter is not None:
        shutil.copyfile(adapter / WEIGHTS_FILE, folder / WEIGHTS_FILE)
        config = read_adapter_config(adapter)
        write_config(folder, config | ({BASE_KEY: base_name} if base_name else {}))
    if not (folder / TOKENIZER_FILES[0]).exists():
        opened.tokenizer.save_pretrained(folder)
    return left_out


def _kept_bits(adapter: Path) -> KeptBits:
    """Of the base of an adapter while it was trained, or the default where nobody knows it."""
    known = facts_of(adapter).quantization
    if known is not None and not known:
        raise UserError("--dequantised: the adapter was trained on weights as they are stored: leave it out")
    return KeptBits.of(known or {})


def _guidelines(usage: Path | None) -> str:
    if usage is None:
        return template()
    with from_outside(f"--usage={usage}: cannot be read", f"give a text such as the {USAGE_FILE} of an exported model"):
        return usage.expanduser().read_text(encoding="utf-8")


def _subject(opened: OpenedPolicy, name: str, merged: bool, base_name: str | None, usage: str) -> CardSubject:
    adapter, base = opened.source.adapter, opened.source.base
    place = adapter or Path(base)
    run = record_of(place)
    kind, peft_type = "full model", None
    if adapter is not None:
        config = read_adapter_config(adapter)
        method = "DoRA" if config.get("use_dora") else str(config["peft_type"])
        rank = served_rank(opened.source, new_rank=0)
        trained = f"{method} of rank {rank}" if rank else method
        kind = f"{trained}, merged into its base" if merged else f"{trained} beside its base"
        peft_type = None if merged else str(config["peft_type"])
    on_hub = None if adapter is None or Path(base).exists() else base
    digest = None if adapter is None else base_digest(base)
    has_template = opened.tokenizer.chat_template is not None
    return CardSubject(name, base_name or on_hub, digest, kind, peft_type, has_template, run, usage)


def _notes(subject: CardSubject) -> tuple[str, ...]:
    notes = usage_notes(subject.usage)
    if subject.peft_type is None or subject.base is not None:
        return notes
    return (
        *notes,
        f"{CONFIG_FILE} names the base by its folder on this machine, which others do not have: --base-name=TEAM/NAME "
        f"names it on a hub, and --merged needs none",
    )
