"""The tokenizer of a model's folder: loaded, tried out, and refused where transformers would make one up."""

from typing import Any

from transformers import AutoTokenizer
from transformers.utils.hub import cached_file

from plumbob.core.errors import UserError
from plumbob.core.outside import from_outside
from plumbob.models.files.weight_files import give_folder

CONVERTED_VOCABULARIES = ("tokenizer.model", "tiktoken.model", "tekken.json")
"""Where a tokenizer of another library keeps its vocabulary: transformers converts these for every kind of model."""

SAVE_TOKENIZER = "save the model's own tokenizer there, with tokenizer.save_pretrained(FOLDER)"


def open_tokenizer(name: str, key: str, trust_remote_code: bool = False) -> Any:
    """The tokenizer of a folder or hub name.

    Raises:
        UserError: there is none. transformers then makes up one of the model's kind, with a vocabulary of its own.
    """
    what = f"{key}={name}: no tokenizer can be loaded"
    with from_outside(what, give_folder(name)):
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=trust_remote_code)
    files = sorted(set(tokenizer.vocab_files_names.values()))
    if files and not any(_has_file(name, file) for file in (*files, *CONVERTED_VOCABULARIES)):
        raise UserError(
            f"{what}: there is none of {', '.join(files)}; save the model's own "
            f"there, with tokenizer.save_pretrained(FOLDER)"
        )
    with from_outside(f"{key}={name}: the tokenizer cannot be used", SAVE_TOKENIZER):
        _try_out(tokenizer)
    return tokenizer


def _try_out(tokenizer: Any) -> None:
    """Use everything that is used later; raises whatever the tokenizer does."""
    longest = tokenizer.model_max_length
    if isinstance(longest, bool) or not isinstance(longest, int | float) or not longest >= 1:
        raise ValueError(f"its model_max_length is {longest!r}, and must be a number of tokens")
    ids = [*tokenizer(["A b c."], add_special_tokens=False)["input_ids"][0], *tokenizer("A b c.")["input_ids"]]
    if not all(isinstance(each, int) for each in (*ids, *_special_ids(tokenizer))):
        raise ValueError("its ids are no whole numbers")
    str(tokenizer.decode(ids, skip_special_tokens=True))


def _special_ids(tokenizer: Any) -> list[Any]:
    named = (getattr(tokenizer, f"{role}_token_id") for role in ("bos", "eos", "pad", "cls", "sep", "mask"))
    return [token_id for token_id in named if token_id is not None]


def _has_file(name: str, file: str) -> bool:
    try:
        return cached_file(name, file) is not None
    except OSError:
        return False
