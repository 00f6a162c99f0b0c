"""A digest of a model's folder, made fast: of large files it takes samples."""

import hashlib
import json
from pathlib import Path

from models.source import CONFIG_FILE, located

NUM_SAMPLES, SAMPLE_BYTES = 64, 16_384
"""Of a file that is larger than all of them. Training changes nearly every byte of the weights."""

SUFFIXES = frozenset({".json", ".safetensors", ".model", ".txt", ".jinja"})


def digest_of_model(name: str, key: str) -> str | None:
    """Of a folder with a model, and of the base's where it is an adapter; None for a name of the hub: 32 hex digits.

    Args:
        key: the setting to name in an error.
    """
    folder = Path(located(name, key)).expanduser()
    if not folder.is_dir():
        return None
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES and path.is_file()):
        digest.update(f"{path.name} {path.stat().st_size} ".encode())
        _feed(digest, path)
    if (folder / CONFIG_FILE).exists():
        base = json.loads((folder / CONFIG_FILE).read_text()).get("base_model_name_or_path")
        digest.update(f"{digest_of_model(base, key) if base else None}".encode())
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
