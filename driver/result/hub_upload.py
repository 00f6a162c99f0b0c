"""A folder of a model goes to a hub (`upload`): what would be sent, checked, and then sent in one commit."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from plumbob.core.errors import UserError
from plumbob.core.outside import from_outside, reason_of
from plumbob.driver.result.usage_guidelines import USAGE_FILE, usage_notes
from plumbob.models.adapter import CONFIG_FILE
from plumbob.models.files.weight_files import check_file
from plumbob.models.library.adding import COPIED
from plumbob.models.resolution import BASE_KEY, HUB_NAME, MODEL_FILES, read_adapter_config

PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy", ".npz"})
"""Suffixes of files that run whatever their writer liked in whoever loads them, or may."""


_FIXES = {
    401: "it knows no token of yours: `hf auth login`, or export HF_TOKEN",
    403: "the token may not write there: give it the right to, or another TEAM/NAME",
    404: "there is no such team, or the token may not see it",
}


@dataclass(frozen=True)
class Upload:
    """What is sent.

    Attributes:
        files: name in the folder and on the hub -> bytes.
        notes: sentences about what others will miss.
    """

    folder: Path
    repo: str
    is_public: bool
    files: dict[str, int]
    notes: tuple[str, ...]


def plan_upload(folder: Path, repo: str, is_public: bool) -> Upload:
    """Look at the folder; nothing is sent.

    Raises:
        UserError: it is no folder of a model, or something in it is not for a hub, such as a pickle.
    """
    if "/" not in repo or not HUB_NAME.fullmatch(repo):
        raise UserError(f"{repo}: a repository is TEAM/NAME in letters, digits, '-', '_' and '.'")
    with from_outside(f"{folder}: cannot be looked at", "give a folder that may be read"):
        folder = folder.expanduser()
        if not any((folder / name).is_file() for name in MODEL_FILES):
            raise UserError(f"{folder}: has neither {' nor '.join(MODEL_FILES)}: write one with `plumbob export`")
        found = sorted(path for path in folder.rglob("*") if path.is_dir() or path.is_symlink() or path.is_file())
    for path in found:
        _check_file(path)
    files = {path.name: path.stat().st_size for path in found}
    return Upload(folder, repo, is_public, files, tuple(_notes(folder)))


def _check_file(path: Path) -> None:
    if path.suffix in PICKLES:
        raise UserError(f"{path}: is a pickle, which runs code in whoever loads it: save the weights as safetensors")
    if path.is_dir() or path.is_symlink() or path.suffix not in COPIED:
        raise UserError(f"{path}: is no part of a model's folder ({', '.join(sorted(COPIED))}): take it out first")
    if path.suffix == ".safetensors":
        check_file(path, "OUT")


def _notes(folder: Path) -> Iterator[str]:
    if not (folder / "README.md").is_file():
        yield "there is no README.md: `plumbob export` writes one of what the run's files say"
    usage = folder / USAGE_FILE
    with from_outside(f"{usage}: cannot be read", "write it as text in UTF-8"):
        text = usage.read_text(encoding="utf-8") if usage.is_file() else ""
    yield from usage_notes(text)
    if (folder / CONFIG_FILE).is_file() and Path(str(read_adapter_config(folder).get(BASE_KEY, ""))).is_absolute():
        yield f"{CONFIG_FILE} names the base by a folder of this machine: export's --base-name gives its name on a hub"


def upload(planned: Upload) -> str:
    """Send it, as one commit to a repository that is made where it is not there; gives its address.

    The hub and the token are those that huggingface_hub finds: HF_ENDPOINT, HF_TOKEN, or what `hf auth login` left.

    Raises:
        UserError: the hub refuses it or cannot be reached, or the repository is public and should be private, or the
            other way about: a hub leaves one that is there as it is.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi()
    with _hub(api.endpoint, planned.repo):
        address = api.create_repo(planned.repo, private=not planned.is_public, exist_ok=True)
        is_private = api.model_info(planned.repo).private
        if is_private is False and not planned.is_public:
            raise UserError(f"{planned.repo}: is there already, and public: --public says that this is meant")
        if is_private and planned.is_public:
            raise UserError(
                f"{planned.repo}: is private on {api.endpoint}, with all that was sent there before: make it public in "
                f"its settings there, or leave --public out"
            )
        operations = [CommitOperationAdd(name, planned.folder / name) for name in planned.files]
        api.create_commit(planned.repo, operations, commit_message=f"{planned.folder.name}, by plumbob push")
    return str(address)


@contextmanager
def _hub(endpoint: str, repo: str) -> Iterator[None]:
    """Whatever comes back from a hub, as one message."""
    from huggingface_hub.errors import HfHubHTTPError

    with from_outside(f"{repo}: cannot be sent to {endpoint}"):
        try:
            yield
        except HfHubHTTPError as error:
            status = None if error.response is None else error.response.status_code
            fix = _FIXES.get(status or 0, "try again later, or another TEAM/NAME")
            raise UserError(f"{repo}: {endpoint} refuses it ({status}: {reason_of(error)}); {fix}") from error
