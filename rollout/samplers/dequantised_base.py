"""A base with the weights that a quantised learner computes with: floats in a folder, which every engine can load.

stored weights --> 4 bits, as in the learner --> floats --> a folder of the user's cache, written once on each host
"""

import hashlib
import json
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from plumbob.configs.settings.models import ModelRef
from plumbob.configs.settings.tuning.quantization import Nf4Quantization
from plumbob.core.outside import from_outside
from plumbob.models.files.weight_files import cached_model, save_model
from plumbob.models.fingerprint import digests_of_model
from plumbob.models.loading import load_causal_lm, open_policy
from plumbob.models.quantization.forms import round_weights

FIX = "free space for a copy of the model there, or set rollout.quantised_base=stored"


def dequantised(ref: ModelRef) -> ModelRef:
    """The same base, as floats that have been through its quantization; itself where it has none.

    Args:
        ref: a full model.

    Raises:
        UserError: it cannot be loaded, or not be written.
    """
    quantization = ref.quantization
    if quantization is None:
        return ref
    plain = replace(ref, quantization=None)
    opened = open_policy(plain)

    def write(folder: Path) -> None:
        model = load_causal_lm(opened)
        round_weights(model, quantization)
        save_model(model, opened.tokenizer, folder)

    with from_outside(f"{ref}: the dequantised weights cannot be written into the cache", FIX):
        made_from = digests_of_model(ref.name, ref.setting) or {ref.name: opened.config._commit_hash}
        return replace(plain, name=str(cached_model(_name(ref, quantization, made_from), write)))


def _name(ref: ModelRef, quantization: Nf4Quantization, made_from: dict[str, str]) -> str:
    """Of the folder: with the digest of all that decides what is in it."""
    parts = [made_from, ref.dtype, quantization.model_dump(), version("bitsandbytes")]
    digest = hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=8).hexdigest()
    return f"{Path(ref.name).name}-{quantization.kind}-{digest}"
