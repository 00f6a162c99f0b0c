"""From a run's settings to its learner on one rank: the model, what of it is trained, and the objective."""

from collections.abc import Mapping
from dataclasses import replace
from typing import assert_never

import torch
from torch import nn

from plumbob.configs.runs import (
    DpoRun,
    EvalRun,
    KtoRun,
    LearnerRun,
    OnlineRun,
    PretrainEncoderRun,
    PretrainRun,
    RewardRun,
    Run,
    SftRun,
)
from plumbob.configs.settings.models import ModelRef, NewBertSettings, NewLlamaSettings, PolicySettings
from plumbob.configs.settings.tuning.adapters import AdaLoraTuning
from plumbob.models.loading import open_baseline
from plumbob.models.policy import PolicyModel
from plumbob.models.tuning.idle_reference import idle_reference
from plumbob.models.tuning.roles import frozen_reference, trainable_groups
from plumbob.trainers.algorithms.rank_allocation import RankAllocation
from plumbob.trainers.learner.engine import Engine, ForwardOnly, ParameterGroup, Rank
from plumbob.trainers.learner.export import NoArtifact
from plumbob.trainers.learner.learner import Learner
from plumbob.trainers.learner.learner_parts import LearnerParts, orthogonality_pass
from plumbob.trainers.offline import dpo, kto, pretrain, sft
from plumbob.trainers.offline.reward_modelling import reward_model
from plumbob.trainers.online import online_input


def build_learner(run: LearnerRun, rank: Rank) -> Learner:
    """Load, adapt and shard the model of a run. Collective: every rank of the group calls it.

    Raises:
        UserError: the model cannot be used as the run asks.
    """
    if isinstance(run, EvalRun):
        opened = None if run.policy is None else open_baseline(run.policy)
        assert opened is not None, "without a baseline there are no learners"
        baseline = frozen_reference(opened)
        return Learner(baseline, (), ForwardOnly(baseline), NoArtifact(), rank, run.learner)
    torch.manual_seed(run.seed)
    parts = _parts(run)
    if run.learner.gradient_checkpointing:
        _checkpoint_gradients(parts.module)
    allocation = _rank_allocation(run, parts.module)
    if allocation is not None:
        parts = replace(
            parts, loss_terms=(orthogonality_pass(allocation.schedule.tuning, parts.module), *parts.loss_terms)
        )
    groups = [
        ParameterGroup(name, parameters, parts.learning_rates.get(name, parts.optimizer.learning_rate))
        for name, parameters in _groups(parts.module).items()
    ]
    trains_float32 = all(p.dtype == torch.float32 for group in groups for p in group.parameters.values())
    stage = run.learner.resolved_zero_stage(trains_float32)
    engine = Engine(parts.module, groups, parts.optimizer, run.learner, stage, rank, allocation)
    idle = None if run.learner.offload_reference == "none" else idle_reference(parts.module)
    return Learner(parts.module, parts.loss_terms, engine, parts.artifact, rank, run.learner, idle)


def models_of(run: LearnerRun) -> tuple[str, ...]:
    """Names of the models that `build_learner` loads, as the run gives them."""
    refs: tuple[ModelRef | NewLlamaSettings | NewBertSettings | None, ...]
    match run:
        case EvalRun():
            refs = () if run.policy is None else (run.policy.ref, run.policy.baseline_ref)
        case PretrainEncoderRun() | RewardRun():
            refs = (run.reward.encoder,)
        case PretrainRun() | SftRun() | DpoRun() | KtoRun():
            refs = (run.policy.ref,)
        case OnlineRun():
            refs = (run.policy.ref, *run.teacher_refs)
        case _:
            assert_never(run)
    return tuple(ref.name for ref in refs if isinstance(ref, ModelRef))


def _parts(run: PretrainRun | PretrainEncoderRun | SftRun | RewardRun | DpoRun | KtoRun | OnlineRun) -> LearnerParts:
    match run:
        case PretrainRun():
            return pretrain.learner_parts(run)
        case PretrainEncoderRun():
            return pretrain.encoder_learner_parts(run)
        case SftRun():
            return sft.learner_parts(run)
        case RewardRun():
            return reward_model.learner_parts(run)
        case DpoRun():
            return dpo.learner_parts(run)
        case KtoRun():
            return kto.learner_parts(run)
        case OnlineRun():
            return online_input.learner_parts(run)
        case _:
            assert_never(run)


def _rank_allocation(run: Run, module: nn.Module) -> RankAllocation | None:
    """Of a policy that is trained by AdaLoRA."""
    policy = getattr(run, "policy", None)
    if not isinstance(policy, PolicySettings) or not isinstance(policy.tuning, AdaLoraTuning):
        return None
    return RankAllocation(policy.tuning, _groups(module)["policy"])


def _checkpoint_gradients(module: nn.Module) -> None:
    """Of the Hugging Face models in it that are trained."""
    for model in module.children():
        if not any(parameter.requires_grad for parameter in model.parameters()):
            continue
        if enable := getattr(model, "gradient_checkpointing_enable", None):
            enable({"use_reentrant": False})
        else:
            _checkpoint_gradients(model)


def _groups(module: nn.Module) -> Mapping[str, Mapping[str, nn.Parameter]]:
    if isinstance(module, PolicyModel):
        return trainable_groups(module)
    return {"model": {name: each for name, each in module.named_parameters() if each.requires_grad}}
