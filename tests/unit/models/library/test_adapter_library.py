"""Adapters go into a library as plain PEFT folders, with what is known of them, and come out of it."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from plumbob.core.errors import UserError
from plumbob.models.adapter import load_adapter
from plumbob.models.library.adapter_library import AdapterLibrary
from plumbob.models.library.adding import add_adapter
from plumbob.models.library.library_entry import ENTRY_FILE, DataFile, LibraryEntry, TrainingFacts
from tests.support.libraries import write_adapter, write_other_base
from tests.support.plain_transformers import load_plain
from tests.support.tiny_policy import write_policy

IDS = torch.arange(2, 14)[None]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_policy(tmp_path_factory.mktemp("base"))


@pytest.fixture
def library(tmp_path: Path) -> AdapterLibrary:
    return AdapterLibrary(tmp_path / "adapters")


@pytest.fixture
def folder(base: str, tmp_path: Path) -> Path:
    return write_adapter(tmp_path / "made", base)


def add(library: AdapterLibrary, folder: Path, name: str, facts: TrainingFacts | None = None) -> LibraryEntry:
    return add_adapter(library, folder, name, "sums", facts or TrainingFacts()).entry


def test_what_is_added_is_what_plain_peft_loads_and_the_folder_stays(
    library: AdapterLibrary, folder: Path, base: str
) -> None:
    (folder / "README.md").write_text("a page")
    (folder / "optimizer.pt").write_bytes(b"a pickle")
    (folder / "checkpoint-3").mkdir()
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    added = add_adapter(library, folder, "sums", "sums in words", TrainingFacts())
    assert added.left_out == ("checkpoint-3", "optimizer.pt")
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    place = library.folder_of("sums")
    files = {path.name for path in place.iterdir()}
    assert files == {"README.md", "adapter_config.json", "adapter_model.safetensors", ENTRY_FILE}
    given, found = (load_plain(str(each))(IDS).logits for each in (folder, place))
    assert torch.equal(given, found)


def test_facts_are_kept_and_the_others_are_called_unknown(library: AdapterLibrary, folder: Path, base: str) -> None:
    data = {"data.demonstrations": DataFile(file="/rows.jsonl", digest="ab")}
    facts = TrainingFacts(run="/runs/sft", stage="sft", quantization={}, data=data, scores={"heldout_loss": 1.5})
    entry = add(library, folder, "sums", facts)
    # Rank 4 on q, k, v, o of 2 layers (128 in; 128, 64, 64, 128 out) and gate, up (256 out) and down (256 in).
    per_layer = 4 * (256 + 192 + 192 + 256 + 384 + 384 + 384)
    assert (entry.method, entry.rank, entry.num_parameters) == ("lora", 4, 2 * per_layer)
    assert entry.num_bytes == (folder / "adapter_model.safetensors").stat().st_size
    assert (entry.base, entry.task, entry.source) == (str(Path(base).resolve()), "sums", str(folder.resolve()))
    assert entry.base_digest is not None and len(entry.base_digest) == len(entry.digest) == 32
    content = json.loads((library.folder_of("sums") / ENTRY_FILE).read_text())
    assert set(content) == set(LibraryEntry.model_fields) and content["quantization"] == {}
    assert {name for name, value in content.items() if value == "unknown"} == {"trained"}
    assert content["data"] == {"data.demonstrations": {"file": "/rows.jsonl", "digest": "ab"}}
    assert library.entry("sums") == entry and library.entry("sums").trained is None
    nothing = add(library, folder, "nothing")
    content = json.loads((library.folder_of("nothing") / ENTRY_FILE).read_text())
    unknown = {"quantization", "data", "scores", "run", "stage", "trained"}
    assert {name for name, value in content.items() if value == "unknown"} == unknown
    assert [entry.name for entry in library.entries()] == ["nothing", "sums"] and nothing.digest == entry.digest


def test_an_adapter_of_another_library_brings_what_that_knew(
    library: AdapterLibrary, folder: Path, tmp_path: Path
) -> None:
    other = AdapterLibrary(tmp_path / "theirs")
    add(other, folder, "sums", TrainingFacts(stage="dpo", scores={"kl": 2.0}))
    copied = add_adapter(library, other.folder_of("sums"), "theirs", None, TrainingFacts()).entry
    assert (copied.name, copied.task, copied.stage, copied.scores) == ("theirs", "sums", "dpo", {"kl": 2.0})


def test_a_relative_base_is_the_same_model_from_the_library(
    library: AdapterLibrary, folder: Path, base: str, tmp_path: Path
) -> None:
    shutil.copytree(base, tmp_path / "beside")
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": "beside"}))
    entry = add(library, folder, "sums")
    assert entry.base == str((tmp_path / "beside").resolve())
    assert load_adapter(library.folder_of("sums")).config["base_model_name_or_path"] == entry.base


def test_what_cannot_be_added_leaves_nothing(library: AdapterLibrary, folder: Path, base: str, tmp_path: Path) -> None:
    add(library, folder, "sums")
    with pytest.raises(UserError, match=r"--name=sums: .*adapters/sums is there already; give another name"):
        add(library, folder, "sums")
    for name in ("../out", ".hidden", "a b", ""):
        with pytest.raises(UserError, match="expected letters, digits"):
            add(library, folder, name)
    with pytest.raises(UserError, match="is a full model, and a library holds adapters"):
        add(library, Path(base), "base")
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    shutil.copy(folder / "adapter_config.json", pickled)
    (pickled / "adapter_model.bin").write_bytes(b"a pickle")
    with pytest.raises(UserError, match="save the adapter as safetensors"):
        add(library, pickled, "pickled")
    changed = write_other_base(base, tmp_path / "changed")
    with pytest.raises(UserError, match=r"is not the model that the run /runs/r began with \(digest 0f0f, now "):
        add(
            library,
            write_adapter(tmp_path / "on", str(changed)),
            "on",
            TrainingFacts(run="/runs/r", base_digest="0f0f"),
        )
    assert library.names() == ["sums"] and [path.name for path in library.folder.iterdir()] == ["sums"]


def test_entries_alone_are_removed(library: AdapterLibrary, folder: Path) -> None:
    assert library.names() == []
    add(library, folder, "sums")
    add(library, folder, "words")
    (library.folder / "notes").mkdir()
    (library.folder / "notes" / "mine.txt").write_text("kept")
    with pytest.raises(UserError, match=r"notes: no adapter in the library .* is called that; there are: sums, words"):
        library.remove("notes")
    with pytest.raises(UserError, match=r"summs: .* did you mean sums?"):
        library.remove("summs")
    with pytest.raises(UserError, match="no adapter in the library"):
        library.remove("../adapters/sums")
    library.remove("sums")
    assert library.names() == ["words"] and (library.folder / "notes" / "mine.txt").exists() and folder.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "library_entry.json: cannot be read"),
        ("[]", "expected a JSON object"),
        ('{"name": "sums"}', "library_entry.json: task: Field required; add the adapter again"),
    ],
)
def test_a_damaged_entry_is_one_message(library: AdapterLibrary, folder: Path, content: str, message: str) -> None:
    add(library, folder, "sums")
    (library.folder / "sums" / ENTRY_FILE).write_text(content)
    with pytest.raises(UserError, match=message):
        library.entries()
