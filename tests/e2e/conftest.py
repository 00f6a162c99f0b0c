"""What the end-to-end tests share: a tiny world, one Ray, one pipeline, and an adapter trained on its model."""

import os
import secrets
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available
from ray.cluster_utils import Cluster

from plumbob.configs.settings.data import ToyWorldSettings
from plumbob.data.toy_world.toy_files import build_world, write_world
from tests.support.small_run import (
    LENGTHS,
    PIPELINE,
    PPO,
    ROLLOUT,
    TEMPERATURE,
    TRANSFORMERS,
    WORKERS,
    Left,
    Stages,
    run_to_end,
)
from tests.support.terminal import Terminal


@pytest.fixture(scope="package")
def ray_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One Ray of 4 CPUs that runs join, as they do on a cluster: starting one for each of them would take minutes."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))  # Where rollout workers write bases as floats.
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    # As `ray start` does. A private Ray cluster of other tests makes this process expect a token from its callers.
    maybe_enable_token_auth_if_token_available()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "include_dashboard": False})
    yield cluster.address
    cluster.shutdown()


@pytest.fixture(scope="package")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of a tiny world: text, demonstrations, pairs and prompts with their held-out sides."""
    folder = tmp_path_factory.mktemp("world")
    sizes = ToyWorldSettings(num_cars=2, num_texts=100, num_demonstrations=64, num_pairs=64, num_heldout_pairs=16)
    write_world(build_world(sizes, seed=0), folder)
    return folder


@pytest.fixture(scope="package")
def terminal() -> Terminal:
    """Where `pipeline` is shown, so wide that no line is broken."""
    return Terminal()


@pytest.fixture(scope="package")
def pipeline(tmp_path_factory: pytest.TempPathFactory, stage: Stages, terminal: Terminal) -> Left:
    """`plumbob run toy` on a terminal, every stage once with a few steps, on a private Ray cluster with vLLM."""
    stage.close()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(terminal):
        patch.setenv("TERM", "xterm")
        patch.setenv("COLUMNS", "400")
        return run_to_end(tmp_path_factory.mktemp("runs"), "tiny", "toy", PIPELINE, WORKERS, ROLLOUT)


@pytest.fixture(scope="package")
def stage(tmp_path_factory: pytest.TempPathFactory, ray_address: str) -> Iterator[Stages]:
    stages = Stages(tmp_path_factory.mktemp("runs"), ray_address)
    yield stages
    stages.close()


@pytest.fixture(scope="package")
def pretrained(pipeline: Left) -> str:
    return str(pipeline.folder / "pretrain/policy")


@pytest.fixture(scope="package")
def sft_full(pipeline: Left) -> str:
    """A full model, fine-tuned from `pretrained`."""
    return str(pipeline.folder / "sft/policy")


@pytest.fixture(scope="package")
def reward_model(pipeline: Left) -> str:
    return str(pipeline.folder / "reward/reward_model")


@pytest.fixture(scope="package")
def sft_settings(world: Path, pretrained: str) -> dict[str, object]:
    """5 steps of 12 demonstrations with LoRA, a checkpoint after each second one."""
    return {
        **{"policy.model": pretrained, "data.demonstrations": world / "demonstrations.jsonl"},
        **{"data.heldout_fraction": 0.2, "policy.tuning.rank": 4, "sft.learning_rate": 1e-2},
        **{"sft.batch_size": 12, "sft.save_every": 2},
        **LENGTHS,
    }


@pytest.fixture(scope="package")
def sft_lora(stage: Stages, sft_settings: dict[str, object]) -> Left:
    return stage("sft-lora", "sft", sft_settings)


@pytest.fixture(scope="package")
def ppo_settings(world: Path, sft_lora: Left, reward_model: str) -> dict[str, object]:
    """3 steps from the SFT adapter, sampled with transformers."""
    files = {"data.prompts": world / "prompts.jsonl", "data.heldout_prompts": world / "heldout_prompts.jsonl"}
    return {
        **{"policy.model": sft_lora.policy, "reward.model": reward_model},
        "data.max_prompt_tokens": LENGTHS["data.max_prompt_tokens"],
        **files,
        **TRANSFORMERS,
        **ROLLOUT,
        **PPO,
        "rollout.chunk_size": 4,  # Two of a step's 8 responses: work for two workers.
    }


@pytest.fixture(scope="package")
def ppo_from_adapter(stage: Stages, ppo_settings: dict[str, object]) -> Left:
    assert ppo_settings["rollout.temperature"] == TEMPERATURE
    return stage("ppo", "ppo", ppo_settings)
