"""Learner ranks in processes of their own, and a tiny learner for them: hidden size 32, odd-sized LoRA matrices."""

import gc
import multiprocessing
import os
import socket
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from plumbob.configs.base import Dtype
from plumbob.configs.settings.algorithms import Clipped, Gae
from plumbob.configs.settings.training import OnlineSettings
from plumbob.configs.settings.tuning.adapters import LoraTuning
from plumbob.configs.settings.tuning.any_tuning import AnyTuning
from plumbob.configs.settings.tuning.quantization import Nf4Quantization
from plumbob.configs.settings.workers import LearnerSettings
from plumbob.models.adapter import ModelRole
from plumbob.models.policy import PolicyModel
from plumbob.models.tuning.methods import method_of
from plumbob.models.tuning.roles import add_teachers, trainable_groups
from plumbob.trainers.learner.engine import Engine, ParameterGroup, Rank, join_group
from plumbob.trainers.learner.export import NoArtifact
from plumbob.trainers.learner.learner import Learner
from plumbob.trainers.learner.learner_protocol import LossTerm, UpdatePlan
from plumbob.trainers.online.experience import CriticTargets, Experience, LossKl, learns_whole_kl
from plumbob.trainers.online.objective import online_loss_terms
from plumbob.trainers.online.row_masks import loss_weights
from tests.support.opened_models import opened_policy

ROLES: tuple[ModelRole, ...] = ("policy", "reference", "value")
CALL_TIMEOUT_S = 300.0
TEMPERATURE = 0.8

_rank: Rank


class Ranks:
    """Processes that are one torch.distributed group; `run` calls a module's function in all of them."""

    def __init__(self, world_size: int, extensions: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            master = f"127.0.0.1:{probe.getsockname()[1]}"
        self.extensions = extensions
        # A server that has imported the heavy packages once; processes are forked from it.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["tests.support.learner_ranks", "tests.support.preloaded_deepspeed"])
        self._pools = [
            ProcessPoolExecutor(1, context, _join, (Rank(index, world_size, master), extensions))
            for index in range(world_size)
        ]

    def run(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """The results by rank; the first failure is raised."""
        calls = [pool.submit(function, *arguments) for pool in self._pools]
        ended, running = wait(calls, CALL_TIMEOUT_S, FIRST_EXCEPTION)
        for call in ended:
            call.result()
        if running:
            raise TimeoutError(f"{len(running)} of {len(calls)} ranks were still running after {CALL_TIMEOUT_S:.0f} s")
        return [call.result() for call in calls]

    def close(self) -> None:
        """End the processes, also one that waits for a rank that has failed."""
        for pool in self._pools:
            for process in list(pool._processes.values()):
                process.terminate()
            pool.shutdown(wait=True, cancel_futures=True)


def _join(rank: Rank, extensions: Path) -> None:
    global _rank
    gc.freeze()  # DeepSpeed collects garbage for each engine that it makes: of what was imported nothing is.
    os.environ |= {"TORCH_EXTENSIONS_DIR": str(extensions), "CUDA_VISIBLE_DEVICES": ""}
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", FutureWarning)  # Of torch, at every collective that DeepSpeed makes.
    join_group(rank, use_cuda=False)
    _rank = rank


def this_rank() -> Rank:
    return _rank


def write_tiny_llama(folder: Path, vocab_size: int = 40, initializer_range: float = 0.3, seed: int = 0) -> Path:
    """Intermediate size 37, so that with an odd LoRA rank some matrices have an odd number of elements."""
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=32,
        initializer_range=initializer_range,
        bos_token_id=None,
        eos_token_id=0,
    )
    torch.manual_seed(seed)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@dataclass(frozen=True)
class LearnerCase:
    """How a tiny learner is set up.

    Attributes:
        adapter_std: of its random adapters; 0 leaves them as LoRA begins, and weights of the model as they are.
        tuning: None is LoRA of the rank.
        learner: further settings of it.
    """

    folder: Path
    zero_stage: int = 0
    micro_batch_size: int = 8
    gradient_checkpointing: bool = False
    adapter_std: float = 0.2
    seed: int = 0
    lora_rank: int = 3
    teachers: tuple[Path, ...] = ()
    quantization: Nf4Quantization | None = None
    tuning: AnyTuning | None = None
    dtype: Dtype = "float32"
    learner: Mapping[str, str] = field(default_factory=dict)


PPO = OnlineSettings(
    learning_rate=1e-3,
    policy_loss=Clipped(clip_range=0.5),
    max_grad_norm=1.0,
    estimator=Gae(value_learning_rate=3e-3, value_clip_range=None),
)


def tiny_learner(
    case: LearnerCase, online: OnlineSettings = PPO, loss_terms: tuple[LossTerm[Any], ...] | None = None
) -> Learner:
    """A policy, its reference and, where the estimator has one, a critic on one base, on this process's rank."""
    tuning = case.tuning or LoraTuning(rank=case.lora_rank, alpha=2.0 * case.lora_rank)
    critic = online.estimator if isinstance(online.estimator, Gae) else None
    roles = ROLES if critic else ROLES[:2]
    opened = opened_policy(case.folder, quantization=case.quantization, dtype=case.dtype)
    model = method_of(tuning).policy(opened, roles, case.seed)
    _randomise(model, case)
    add_teachers(model, [opened_policy(folder) for folder in case.teachers])
    if case.gradient_checkpointing:
        model.causal_lm.gradient_checkpointing_enable({"use_reentrant": False})
    rates = {"policy": online.learning_rate} | ({"value": critic.value_learning_rate} if critic else {})
    groups = [ParameterGroup(name, group, rates[name]) for name, group in trainable_groups(model).items()]
    given = {"micro_batch_size": case.micro_batch_size, "zero_stage": case.zero_stage, **case.learner}
    settings = LearnerSettings.model_validate(given)
    engine = Engine(model, groups, online, settings, case.zero_stage, _rank)
    return Learner(model, loss_terms or online_loss_terms(online, TEMPERATURE), engine, NoArtifact(), _rank, settings)


def _randomise(model: PolicyModel, case: LearnerCase) -> None:
    if case.adapter_std:
        generator = torch.Generator().manual_seed(case.seed + 1)
        with torch.no_grad():
            for group in trainable_groups(model).values():
                for parameter in group.values():
                    parameter.normal_(0.0, case.adapter_std, generator=generator)


def ragged_experience(online: OnlineSettings = PPO, return_scale: float = 1.0) -> Experience:
    """Eight responses of 1 to 6 tokens after prompts of 2 to 4, every number drawn from a fixed seed."""
    generator = torch.Generator().manual_seed(7)
    prompts = torch.tensor([2, 3, 4, 2, 4, 3, 2, 2])
    lengths = prompts + torch.tensor([6, 1, 3, 2, 6, 5, 1, 4])
    columns = torch.arange(10)
    attention = columns < lengths[:, None]
    actions = attention & (columns >= prompts[:, None])
    draw = lambda: torch.where(actions, torch.randn(8, 10, generator=generator), 0.0)  # noqa: E731
    input_ids = torch.randint(1, 40, (8, 10), generator=generator) * attention
    advantages, critic = draw(), CriticTargets(values=draw(), returns=draw() * return_scale)
    return Experience(
        input_ids=input_ids,
        attention_mask=attention,
        action_mask=actions,
        old_logprobs=torch.where(actions, -3.7, 0.0),
        advantages=advantages,
        loss_weights=loss_weights(actions, online.loss_mean),
        importance_weights=actions.float(),
        critic=critic if isinstance(online.estimator, Gae) else None,
        kl=LossKl(draw() - 3.7 * actions, online.kl.coefficient) if online.kl.place == "loss" else None,
        teachers=torch.tensor([0, 1, 1, 0, 1, 0, 0, 1]) if learns_whole_kl(online.estimator) else None,
    )


def padded(experience: Experience, num_columns: int, on_left: bool = False) -> Experience:
    """The same with more padding, whose every number is one that would be noticed; all of it on one side."""
    columns = torch.arange(experience.attention_mask.shape[1] + num_columns)
    shifts = len(columns) - experience.attention_mask.sum(dim=1, keepdim=True) if on_left else torch.tensor([[0]])

    def wider(tensors: dict[str, Any]) -> dict[str, Any]:
        return {
            name: torch.nn.functional.pad(tensor, (0, num_columns), value=0 if name.endswith("mask") else 5).gather(
                1, ((columns - shifts) % len(columns)).expand(len(tensor), -1)
            )
            for name, tensor in tensors.items()
            if isinstance(tensor, torch.Tensor) and tensor.ndim > 1
        }

    critic = experience.critic and replace(experience.critic, **wider(vars(experience.critic)))
    kl = experience.kl and replace(experience.kl, **wider(vars(experience.kl)))
    return replace(experience, **wider(vars(experience)), critic=critic, kl=kl)


WHOLE = UpdatePlan(minibatch_size=8, num_epochs=1, learning_rate_scale=1.0, seed=0)
IN_TWO = UpdatePlan(minibatch_size=4, num_epochs=1, learning_rate_scale=1.0, seed=0)


def numpy_state(learner: Learner) -> dict[str, np.ndarray]:
    """Parameters, moments and step, as what travels between processes."""
    assert isinstance(learner.engine, Engine)
    return {name: tensor.clone().numpy() for name, tensor in learner.engine.state(learner.engine.sizes())}
