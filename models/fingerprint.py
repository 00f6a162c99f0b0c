"""Digests of a model's files, made fast: of large ones they take samples."""

import hashlib
from pathlib import Path

from plumbob.models.adapter import CONFIG_FILE
from plumbob.models.resolution import BASE_KEY, base_of, read_adapter_config, resolve_package_folder

NUM_SAMPLES, SAMPLE_BYTES = 64, 16_384
"""Of a file that is larger than all of them. Training changes nearly every byte of the weights."""

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
    found = {path.name: _digest_of(path) for path in folder.iterdir() if path.suffix in SUFFIXES and path.is_file()}
    if (folder / CONFIG_FILE).exists():
        config = read_adapter_config(folder)
        base = digests_of_model(base_of(folder, config), key)
        found |= {f"{config[BASE_KEY]}/{file}": digest for file, digest in base.items()}
    return found


def _digest_of(path: Path) -> str:
    digest = hashlib.blake2b(f"{path.stat().st_size} ".encode(), digest_size=16)
    _feed(digest, path)
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
