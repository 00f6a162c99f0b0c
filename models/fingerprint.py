"""Digests of a model's files, made fast: of large ones they take samples."""

import hashlib
import json
from pathlib import Path

from plumbob.models.adapter import CONFIG_FILE
from plumbob.models.resolution import BASE_KEY, base_of, read_adapter_config, resolve_package_folder

NUM_SAMPLES, SAMPLE_BYTES = 64, 16_384
"""Of a file that is larger than all of them. Training all weights changes nearly every byte of them."""

TENSORS = "tensors"
"""Behind the name of a file of weights, with the digest of how each of its tensors begins: what trains some of them
alone changes bytes that no sample may meet."""

SUFFIXES = frozenset({".json", ".safetensors", ".model", ".txt", ".jinja", ".py"})


def digests_of_model(name: str, key: str) -> dict[str, str]:
    """File -> 32 hex digits, of a folder with a model, and of its base's where it is an adapter. None of a hub's name.

    Args:
        key: the setting to name in an error.

    Raises:
        UserError: an adapter's settings or weights are not there.
    """
    folder = Path(resolve_package_folder(name, key)).expanduser()
    if not folder.is_dir():
        return {}
    files = [path for path in folder.iterdir() if path.suffix in SUFFIXES and path.is_file()]
    found = {path.name: _digest_of(path) for path in files}
    tensors = {path.name: _digest_of_tensors(path) for path in files if path.suffix == ".safetensors"}
    found |= {f"{file} {TENSORS}": digest for file, digest in tensors.items() if digest is not None}
    if (folder / CONFIG_FILE).exists():
        config = read_adapter_config(folder)
        base = digests_of_model(base_of(folder, config), key)
        found |= {f"{config[BASE_KEY]}/{file}": digest for file, digest in base.items()}
    return found


def _digest_of(path: Path) -> str:
    digest = hashlib.blake2b(f"{path.stat().st_size} ".encode(), digest_size=16)
    _feed(digest, path)
    return digest.hexdigest()


def _digest_of_tensors(path: Path) -> str | None:
    """Of `SAMPLE_BYTES` of each tensor, or all of it; None of a file that is read whole, or is no safetensors."""
    size = path.stat().st_size
    if size < (NUM_SAMPLES + 1) * SAMPLE_BYTES:
        return None
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= size - 8:
            return None
        digest = hashlib.blake2b(digest_size=16)
        try:
            header = json.loads(file.read(length))
            offsets = [each["data_offsets"] for name, each in sorted(header.items()) if name != "__metadata__"]
            for begin, end in offsets:
                file.seek(8 + length + begin)
                digest.update(file.read(min(end - begin, SAMPLE_BYTES)))
        except (ValueError, TypeError, KeyError, AttributeError):
            return None
    return digest.hexdigest()


def _feed(digest: hashlib.blake2b, path: Path) -> None:
    """The file, or as many samples of it at equal distances, its beginning and end among them."""
    last = path.stat().st_size - SAMPLE_BYTES
    with path.open("rb") as file:
        if last < NUM_SAMPLES * SAMPLE_BYTES:
            digest.update(file.read())
            return
        for number in range(NUM_SAMPLES):
            file.seek(last * number // (NUM_SAMPLES - 1))
            digest.update(file.read(SAMPLE_BYTES))
