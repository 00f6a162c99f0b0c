"""What goes to a hub, against a stand-in of its HTTP API; and what does not."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from plumbob.core.errors import UserError
from plumbob.driver.result.hub_upload import plan_upload, upload
from tests.support.hub_stand_in import TOKEN, HubRepository, HubStandIn, running_hub


@pytest.fixture(scope="module")
def hub() -> Iterator[HubStandIn]:
    with running_hub() as hub:
        yield hub


@pytest.fixture(autouse=True)
def of_the_stand_in(hub: HubStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address and the way of large files, which huggingface_hub reads when it is imported."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)


@pytest.fixture
def folder(adapter: str, tmp_path: Path) -> Path:
    copied = Path(shutil.copytree(adapter, tmp_path / "exported"))
    (copied / "README.md").write_text("---\ntags: []\n---\nA page.\n")
    return copied


def test_the_command_says_what_it_sends_and_sends_that_privately(hub: HubStandIn, folder: Path) -> None:
    plumbob = [sys.executable, "-m", "plumbob.console.cli", "push", str(folder), "team/sent"]
    variables = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run(plumbob, env=os.environ | variables, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("to team/sent, private: 3 files, ") and lines[-1] == f"sent: {hub.url}/team/sent"
    assert [line.split()[0] for line in lines[1:4]] == ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    assert "usage guidelines are missing: fill in USAGE.md (intended use, " in lines[4]
    assert "names the base by a folder of this machine" in lines[5]
    sent = hub.repositories["team/sent"]
    assert sent.is_private and sent.commits == ["exported, by plumbob push"]
    assert sent.files == {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_public_repository_is_asked_for(hub: HubStandIn, folder: Path) -> None:
    hub.repositories["team/open"] = HubRepository(is_private=False)
    with pytest.raises(UserError, match="team/open: is there already, and public: --public says that this is meant"):
        upload(plan_upload(folder, "team/open", is_public=False))
    assert hub.repositories["team/open"].files == {}
    assert upload(plan_upload(folder, "team/open", is_public=True)) == f"{hub.url}/team/open"
    assert len(hub.repositories["team/open"].files) == 3
    upload(plan_upload(folder, "team/new", is_public=True))
    assert hub.repositories["team/new"].is_private is False


def test_what_was_private_does_not_become_public_nor_is_said_to_be(hub: HubStandIn, folder: Path) -> None:
    closed = hub.repositories["team/closed"] = HubRepository(is_private=True)
    with pytest.raises(UserError, match=r"^team/closed: is private on http.*: make it public in its settings"):
        upload(plan_upload(folder, "team/closed", is_public=True))
    assert (closed.is_private, closed.files) == (True, {})
    upload(plan_upload(folder, "team/closed", is_public=False))
    assert (closed.is_private, len(closed.files)) == (True, 3)


def test_a_hub_that_refuses_is_told_of_with_what_to_do(
    hub: HubStandIn, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=rf"^others/x: {hub.url} refuses it \(403: .*; the token may not write there"):
        upload(plan_upload(folder, "others/x", is_public=False))
    monkeypatch.setenv("HF_TOKEN", "guess")
    with pytest.raises(UserError, match=r"refuses it \(401: .*; it knows no token of yours: `hf auth login`"):
        upload(plan_upload(folder, "team/x", is_public=False))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"^team/x: cannot be sent to http://127\.0\.0\.1:9: "):
        upload(plan_upload(folder, "team/x", is_public=False))
    assert "team/x" not in hub.repositories


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pytorch_model.bin", "is a pickle, which runs code in whoever loads it"),
        ("optimizer.pt", "is a pickle"),
        ("modeling.py", "is no part of a model's folder"),
        ("checkpoints/x", "is no part of a model's folder"),
        ("broken.safetensors", "broken.safetensors"),
    ],
)
def test_what_is_not_for_a_hub_is_refused_before_anything_is_sent(folder: Path, name: str, message: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("x")
    with pytest.raises(UserError, match=message):
        plan_upload(folder, "team/x", is_public=False)


def test_names_and_folders_that_are_none(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^x: a repository is TEAM/NAME"):
        plan_upload(folder, "x", is_public=False)
    with pytest.raises(UserError, match=r"has neither config\.json nor adapter_config\.json: write one with"):
        plan_upload(tmp_path, "team/x", is_public=False)
    with pytest.raises(UserError, match=r"^~nosuchuser/x: cannot be looked at"):
        plan_upload(Path("~nosuchuser/x"), "team/x", is_public=False)
