"""What each token of a response reads as, by the tokenizer that the run left or began with (`TokenTexts`)."""

import threading
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from plumbob.configs.paths import cached_folder, gguf_file_in, installed_folder, is_of_package, plain_model_name
from plumbob.configs.resolved_copy import RESOLVED_FILE
from plumbob.console.web.run_files.run_content import at, read_object
from plumbob.console.web.run_files.run_index import RunLocation

TOKENIZER_FILE = "tokenizer.json"
LEFT_BEHIND = ("policy", "sft/policy", "pretrain/policy", "new", "pretrain/new")
"""Below a stage's or a run's folder."""

MAX_TOKENIZER_BYTES = 256 * 2**20
MAX_TOKENIZERS = 8


class TokenTexts:
    """Reads a tokenizer once; asked from several threads."""

    def __init__(self) -> None:
        self._opened: dict[tuple[str, int], Any] = {}
        self._lock = threading.Lock()

    def of(self, location: RunLocation, stage_folder: str, ids: Sequence[int]) -> list[str] | None:
        """A text for each token; None where no tokenizer is found."""
        for path in _candidates(location, stage_folder):
            tokenizer = self._open(path)
            if tokenizer is not None:
                return texts_of(tokenizer, ids)
        return None

    def _open(self, path: Path) -> Any:
        """None where the file is no tokenizer."""
        try:
            found = path.stat()
            if found.st_size > MAX_TOKENIZER_BYTES:
                return None
            key = str(path), found.st_mtime_ns
        except OSError:
            return None
        with self._lock:
            if key not in self._opened:
                from tokenizers import Tokenizer

                while len(self._opened) >= MAX_TOKENIZERS:
                    del self._opened[next(iter(self._opened))]
                try:
                    self._opened[key] = Tokenizer.from_file(str(path))
                except Exception:  # Whatever its library raises of a file that is none.
                    self._opened[key] = None
            return self._opened[key]


def _candidates(location: RunLocation, stage_folder: str) -> Iterator[Path]:
    """What the run's stages left; then the folder, the package or the cached download of the model of its settings.

    The latter is the one file outside the served folder that is read: the settings name it, no request does.
    """
    for folder in dict.fromkeys((stage_folder, "")):
        for below in LEFT_BEHIND:
            path = location.file(folder, below, TOKENIZER_FILE)
            if path is not None:
                yield path
    model = at(read_object(location.file(RESOLVED_FILE), []), "config", "policy", "model")
    if not isinstance(model, str) or not model:
        return
    if is_of_package(model):
        yield from _of_package(model)
        return
    if Path(model).is_absolute():
        yield Path(model) / TOKENIZER_FILE
        return
    from huggingface_hub import try_to_load_from_cache

    try:
        cached = try_to_load_from_cache(model, TOKENIZER_FILE)
    except ValueError:  # No name of a model.
        return
    if isinstance(cached, str):
        yield Path(cached)


def _of_package(model: str) -> Iterator[Path]:
    """Of an installed package's model; of a GGUF file what the cache has of it, by its digest."""
    try:
        folder = installed_folder(model)
        gguf = None if folder is None else gguf_file_in(folder)
        found = folder if gguf is None else _plain_folder(gguf)
    except (ValueError, OSError):  # No name of a package, or what may not be read.
        return
    if found is not None:
        yield found / TOKENIZER_FILE


@cache
def _plain_folder(gguf: Path) -> Path:
    """The file is read whole once: a second of a small model's."""
    return cached_folder(plain_model_name(gguf))


def texts_of(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """What each token adds to the one before it: alone, a tokenizer may take off a space at the beginning."""
    num_tokens = tokenizer.get_vocab_size()
    known = [token if 0 <= token < num_tokens else 0 for token in ids]
    pairs = [known[max(index - 1, 0) : index + 1] for index in range(len(known))]
    both = tokenizer.decode_batch(pairs, skip_special_tokens=False)
    alone = tokenizer.decode_batch([[token] for token in known], skip_special_tokens=False)
    found = []
    for index, token in enumerate(ids):
        if not 0 <= token < num_tokens:
            found.append(f"[{token}]")
        elif index and both[index].startswith(alone[index - 1]):
            found.append(both[index][len(alone[index - 1]) :])
        else:
            found.append(alone[index])
    return found
