"""An adapter of a library is on its own base, wherever that lies, and on no other."""

import json
import shutil
from pathlib import Path

import pytest

from plumbob.configs.settings.models import ModelRef
from plumbob.core.errors import UserError
from plumbob.models.library.adapter_library import AdapterLibrary
from plumbob.models.library.adding import add_adapter
from plumbob.models.library.base_digest import base_digest, digest_of_base, find_base
from plumbob.models.library.library_entry import TrainingFacts
from plumbob.models.library.moved_bases import locate_bases
from plumbob.models.loading import open_model, open_policy
from tests.support.libraries import write_adapter, write_other_base
from tests.support.tiny_policy import write_policy


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_policy(tmp_path_factory.mktemp("base"))


@pytest.fixture
def base(made: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "models" / "base"))


@pytest.fixture
def library(base: Path, tmp_path: Path) -> AdapterLibrary:
    """With two adapters on the base."""
    library = AdapterLibrary(tmp_path / "adapters")
    for seed, name in enumerate(("sums", "words"), 1):
        folder = write_adapter(tmp_path / f"made-{name}", str(base), seed)
        add_adapter(library, folder, name, None, TrainingFacts())
    return library


def ref(library: AdapterLibrary, name: str = "sums") -> ModelRef:
    return ModelRef(str(library.folder_of(name)), "policy.model")


def test_config_and_weights_are_what_a_base_is_known_by(base: Path, tmp_path: Path) -> None:
    digest = base_digest(str(base))
    copied = Path(shutil.copytree(base, tmp_path / "copied"))
    (copied / "tokenizer_config.json").write_text("{}")
    assert base_digest(str(copied)) == digest
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(config | {"rope_theta": 5e5}))
    assert base_digest(str(copied)) not in (digest, None)
    assert base_digest(str(write_other_base(str(base), tmp_path / "other"))) not in (digest, None)
    assert base_digest("TEAM/NAME") is None
    assert digest_of_base({"config.json": "a"}) is None and digest_of_base({"model.safetensors": "a"}) is None


def test_a_base_in_whose_place_another_stands_is_refused(library: AdapterLibrary, base: Path, tmp_path: Path) -> None:
    assert open_policy(ref(library)).source.base == str(base)
    other = write_other_base(str(base), tmp_path / "other")
    base.rename(tmp_path / "models" / "moved")
    shutil.copytree(other, base)
    for open_it in (open_policy, open_model):
        with pytest.raises(UserError) as refused:
            open_it(ref(library))
        message = str(refused.value)
        assert message.startswith(f"{library.folder}/sums: was trained on the base with the digest ")
        assert f"{base} is another model, with the digest {base_digest(str(base))}" in message
        assert f"plumbob adapters locate sums --library {library.folder} --bases FOLDER" in message
    # The same adapter in no library: nobody knows what it was trained on.
    plain = write_adapter(tmp_path / "plain", str(base))
    assert open_policy(ModelRef(str(plain), "policy.model")).source.base == str(base)


def test_a_base_that_moved_is_found_by_its_digest(library: AdapterLibrary, base: Path, tmp_path: Path) -> None:
    write_other_base(str(base), tmp_path / "models" / "a-like-it")
    # What else lies there: an adapter beside a config, whose base is nowhere now, and a model that cannot be read.
    odd = write_adapter(tmp_path / "models" / "adapter", str(base))
    (odd / "config.json").write_text("{}")
    damaged = tmp_path / "models" / "damaged"
    damaged.mkdir()
    (damaged / "config.json").write_text("{}")
    (damaged / "model.safetensors").write_bytes(b"none")
    (tmp_path / "models" / "deep").mkdir()
    moved = base.rename(tmp_path / "models" / "deep" / "er")
    with pytest.raises(UserError, match="no such folder"):
        open_policy(ref(library))
    nowhere = tmp_path / "nowhere"
    nowhere.mkdir()
    assert locate_bases(library, ["sums"], [nowhere]) == {"sums": None}
    found = locate_bases(library, ["sums"], [nowhere, tmp_path / "models"])
    assert found == {"sums": str(moved.resolve())}
    assert open_policy(ref(library)).source.base == str(moved.resolve())
    assert library.entry("sums").base == str(moved.resolve())
    with pytest.raises(UserError, match="no such folder"):
        open_policy(ref(library, "words"))
    # One that is where its adapter says is left alone, wherever else a copy lies.
    shutil.copytree(moved, nowhere / "copy")
    both = locate_bases(library, ["sums", "words"], [nowhere])
    assert both == {"sums": str(moved.resolve()), "words": str((nowhere / "copy").resolve())}


def test_what_nothing_can_be_found_by_is_told(library: AdapterLibrary, base: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--bases=.*absent: is no folder"):
        locate_bases(library, ["sums"], [tmp_path / "absent"])
    entry = library.entry("sums").model_copy(update={"base_digest": None})
    entry.write(library.folder_of("sums"))
    shutil.rmtree(base)
    with pytest.raises(UserError, match=r"sums: no digest of its base .* is known"):
        locate_bases(library, ["sums"], [tmp_path])
    assert find_base("0" * 32, [tmp_path]) is None
