"""Weights with NaN in them are refused before anything starts, by every command that is given a model."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from plumbob.console.cli import main
from plumbob.models.adapter import save_adapter
from tests.support.tiny_policy import make_adapter, write_policy
from tests.support.tiny_scorer import write_scorer


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base, an adapter on it, a reward model, and prompts."""
    folder = tmp_path_factory.mktemp("sound")
    base = write_policy(folder / "base")
    save_adapter(make_adapter(base, 0, seed=1), folder / "adapter")
    write_scorer(folder / "reward")
    (folder / "prompts.jsonl").write_text("".join(f'{{"prompt": "number {number}"}}\n' for number in range(40)))
    (folder / "pairs.jsonl").write_text(
        "".join(f'{{"prompt": "number {number}", "chosen": " a", "rejected": " b"}}\n' for number in range(40))
    )
    return folder


SCORED = ("reward.max_tokens=32", "reward.normalize=false")
"""What the small reward model, which nothing calibrated, is asked for."""


def broken(folder: Path, into: Path, value: float) -> Path:
    """A copy of a model or an adapter of which the last number of the last tensor has that value."""
    shutil.copytree(folder, into)
    (weights,) = into.glob("*.safetensors")
    tensors = load_file(weights)
    name = max(tensors)
    tensors[name].view(-1)[-1] = value
    save_file(tensors, weights, {"format": "pt"})
    return into


Command = Callable[[Path, Path], list[str]]

POLICY: dict[str, Command] = {
    "run": lambda model, sound: ["run", "dpo", f"policy.model={model}", f"data.pairs={sound}/pairs.jsonl"],
    "plan": lambda model, sound: ["plan", "dpo", f"policy.model={model}", f"data.pairs={sound}/pairs.jsonl"],
    "sft": lambda model, sound: ["plan", "sft", f"policy.model={model}", f"data.demonstrations={sound}/pairs.jsonl"],
    "ppo": lambda model, sound: [
        *(
            "plan",
            "ppo",
            f"policy.model={model}",
            f"reward.model={sound}/reward",
            f"data.prompts={sound}/prompts.jsonl",
            *SCORED,
        )
    ],
    "eval": lambda model, sound: [
        *(
            "eval",
            f"policy.model={model}",
            f"reward.model={sound}/reward",
            f"data.prompts={sound}/prompts.jsonl",
            *SCORED,
        )
    ],
    "serve": lambda model, sound: ["serve", str(model), "--port=0"],
    "chat": lambda model, sound: ["chat", str(model)],
    "export": lambda model, sound: ["export", str(model), "merged"],
}


@pytest.mark.parametrize("command", POLICY)
@pytest.mark.parametrize("kind", ["adapter", "base"])
def test_a_policy_whose_weights_are_not_finite(
    command: str,
    kind: str,
    sound: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    model = broken(sound / kind, tmp_path / "broken", torch.nan if kind == "adapter" else torch.inf)
    status = main(POLICY[command](model, sound))
    said = capsys.readouterr().err
    assert status == 2, said
    assert f"={model}: {'adapter_' * (kind == 'adapter')}model.safetensors: " in said
    assert "has numbers that are NaN or infinite" in said and "Traceback" not in said
    assert not (tmp_path / "runs").exists() and not (tmp_path / "merged").exists()


REWARD: dict[str, Command] = {
    "ppo": lambda model, sound: [
        *(
            "run",
            "ppo",
            f"policy.model={sound}/base",
            f"reward.model={model}",
            f"data.prompts={sound}/prompts.jsonl",
            *SCORED,
        )
    ],
    "gold": lambda model, sound: [
        *("plan", "ppo", f"policy.model={sound}/base", f"reward.model={sound}/reward", f"gold_reward.model={model}"),
        *(f"data.prompts={sound}/prompts.jsonl", *SCORED, "gold_reward.max_tokens=32"),
    ],
    "eval": lambda model, sound: [
        *(
            "eval",
            f"policy.model={sound}/adapter",
            f"reward.model={model}",
            f"data.prompts={sound}/prompts.jsonl",
            *SCORED,
        )
    ],
    "serve-reward": lambda model, sound: ["serve-reward", str(model), "--port=0"],
}


@pytest.mark.parametrize("command", REWARD)
def test_a_reward_model_whose_weights_are_not_finite(
    command: str,
    sound: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    model = broken(sound / "reward", tmp_path / "broken", torch.nan)
    status = main(REWARD[command](model, sound))
    said = capsys.readouterr().err
    assert status == 2, said
    assert f"={model}: model.safetensors: " in said and "has numbers that are NaN or infinite" in said, said
    assert not (tmp_path / "runs").exists()


def test_a_library_takes_no_adapter_that_is_not_finite(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    model = broken(sound / "adapter", tmp_path / "broken", torch.nan)
    assert main(["adapters", "add", str(model), "--name", "sums"]) == 2
    assert "has numbers that are NaN or infinite" in capsys.readouterr().err
    assert not (tmp_path / "adapters/sums").exists()
    # As it was: it is taken.
    assert main(["adapters", "add", str(sound / "adapter"), "--name", "sums"]) == 0
