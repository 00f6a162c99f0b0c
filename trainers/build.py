"""From a run's settings to its learner on one rank: the model, what of it is trained, and the objective."""

from collections.abc import Mapping, Sequence
from typing import Any, assert_never

import torch
from torch import nn

from plumbob.configs.paths import absolute
from plumbob.configs.runs import (
    DpoRun,
    EvalRun,
    KtoRun,
    LearnerRun,
    PpoRun,
    PretrainEncoderRun,
    PretrainRun,
    RewardRun,
    SftRun,
)
from plumbob.configs.settings.algorithms import Gae
from plumbob.configs.settings.models import REWARD_MODEL, FullTuning, LoraTuning, ModelRef
from plumbob.configs.settings.training import OptimizerSettings
from plumbob.models.adapter import ModelRole
from plumbob.models.loading import baseline_source, load_tokenizer, resolve_model
from plumbob.models.masked_lm import MaskedWordModel, load_masked_lm
from plumbob.models.policy import PolicyModel
from plumbob.models.tuning.roles import adapted_policy, frozen_reference, full_policy, trainable_groups
from plumbob.reward.bert_model import new_reward_model
from plumbob.trainers.forgetting.next_token import NEXT_TOKEN_PASSES
from plumbob.trainers.forgetting.replay import replay_passes
from plumbob.trainers.learner.engine import Engine, ForwardOnly, ParameterGroup, Rank
from plumbob.trainers.learner.export import Artifact, FullModel, NoArtifact, PolicyAdapter
from plumbob.trainers.learner.learner import Learner
from plumbob.trainers.learner.learner_protocol import Pass
from plumbob.trainers.offline.dpo import dpo_passes, roles_of
from plumbob.trainers.offline.kto import kto_passes
from plumbob.trainers.offline.pretrain import MASKED_WORD_PASSES
from plumbob.trainers.offline.reward_batch import RewardModule
from plumbob.trainers.offline.reward_model import reward_passes
from plumbob.trainers.online.objective import ppo_passes


def build_learner(run: LearnerRun, rank: Rank) -> Learner:
    """Load, adapt and shard the model of a run. Collective: every rank of the group calls it.

    Raises:
        UserError: the model cannot be used as the run asks.
    """
    if isinstance(run, EvalRun):
        assert run.policy is not None, "only a policy has a baseline"
        baseline = frozen_reference(baseline_source(run.policy), run.policy.dtype, run.policy.trust_remote_code)
        return Learner(baseline, (), ForwardOnly(baseline), NoArtifact(), rank, run.learner)
    torch.manual_seed(run.seed)
    module, passes, artifact, optimizer, rates = _parts(run)
    if run.learner.gradient_checkpointing:
        _checkpoint_gradients(module)
    groups = [
        ParameterGroup(name, parameters, rates.get(name, optimizer.learning_rate))
        for name, parameters in _groups(module).items()
    ]
    engine = Engine(module, groups, optimizer, run.learner.zero_stage, rank)
    return Learner(module, passes, engine, artifact, rank, run.learner)


def models_of(run: LearnerRun) -> tuple[str | None, ...]:
    """Names of the models that `build_learner` loads, as the run gives them."""
    if isinstance(run, EvalRun):
        return () if run.policy is None else (run.policy.model, run.policy.baseline)
    section = run.reward if isinstance(run, PretrainEncoderRun | RewardRun) else run.policy
    return (section.model,) if isinstance(section.model, str) else ()


Parts = tuple[nn.Module, Sequence[Pass[Any]], Artifact, OptimizerSettings, Mapping[str, float]]
"""The module, its passes, how it is written, the optimizer, and learning rates that differ from the optimizer's."""


def _parts(run: PretrainRun | PretrainEncoderRun | SftRun | RewardRun | DpoRun | KtoRun | PpoRun) -> Parts:
    module: nn.Module
    artifact: Artifact
    match run:
        case PretrainRun():
            assert isinstance(run.policy.model, str), "a new model is built before its learners start"
            module, artifact = _full(run.policy.model, run.policy.dtype, run.policy.trust_remote_code)
            return module, NEXT_TOKEN_PASSES, artifact, run.pretrain, {}
        case PretrainEncoderRun():
            assert isinstance(run.reward.model, str), "a new encoder is built before its learners start"
            encoder, tokenizer = load_masked_lm(run.reward.model)
            module = MaskedWordModel(encoder)
            return module, MASKED_WORD_PASSES, FullModel(encoder, "encoder.", tokenizer), run.pretrain, {}
        case RewardRun():
            assert isinstance(run.reward.model, str), "a new encoder is built before its learners start"
            new = new_reward_model(ModelRef(run.reward.model, REWARD_MODEL))
            reward = RewardModule(new.model, "token_type_ids" in new.tokenizer.model_input_names)
            artifact = FullModel(new.model, "classifier.", new.tokenizer)
            return reward, reward_passes(run.reward_training.objective), artifact, run.reward_training, {}
        case SftRun():
            match run.policy.tuning:
                case FullTuning():
                    module, artifact = _full(run.policy.model, run.policy.dtype, run.policy.trust_remote_code)
                case LoraTuning():
                    module, artifact = _adapted(run, run.policy.tuning, ("policy",))
                case _:
                    assert_never(run.policy.tuning)
            return module, replay_passes(NEXT_TOKEN_PASSES, run.replay), artifact, run.sft, {}
        case DpoRun():
            module, artifact = _adapted(run, run.policy.tuning, roles_of(run.dpo.loss))
            return module, dpo_passes(run.dpo.loss), artifact, run.dpo, {}
        case KtoRun():
            module, artifact = _adapted(run, run.policy.tuning, ("policy", "reference"))
            return module, kto_passes(run.kto), artifact, run.kto, {}
        case PpoRun():
            critic = run.ppo.estimator if isinstance(run.ppo.estimator, Gae) else None
            roles: tuple[ModelRole, ...] = ("policy", "reference", "value") if critic else ("policy", "reference")
            module, artifact = _adapted(run, run.policy.tuning, roles)
            rates = {"value": critic.value_learning_rate} if critic else {}
            passes = replay_passes(ppo_passes(run.ppo, run.rollout.temperature), run.replay)
            return module, passes, artifact, run.ppo, rates
        case _:
            assert_never(run)


def _full(model: str, dtype: Any, trust_remote_code: bool) -> tuple[PolicyModel, FullModel]:
    source = resolve_model(model, "policy.model")
    module = full_policy(source, dtype, trust_remote_code)
    tokenizer = load_tokenizer(source, "policy.model", trust_remote_code)
    return module, FullModel(module.causal_lm, "causal_lm.", tokenizer)


def _adapted(
    run: SftRun | DpoRun | KtoRun | PpoRun, tuning: LoraTuning, roles: tuple[ModelRole, ...]
) -> tuple[PolicyModel, PolicyAdapter]:
    policy = run.policy
    source = resolve_model(policy.model, "policy.model")
    module = adapted_policy(source, tuning, policy.dtype, policy.trust_remote_code, roles, run.seed)
    tokenizer = load_tokenizer(source, "policy.model", policy.trust_remote_code)
    return module, PolicyAdapter(module.causal_lm, "causal_lm.", absolute(source.base), tokenizer)


def _checkpoint_gradients(module: nn.Module) -> None:
    """Whichever Hugging Face model it is around."""
    for model in module.children():
        if enable := getattr(model, "gradient_checkpointing_enable", None):
            enable({"use_reentrant": False})


def _groups(module: nn.Module) -> Mapping[str, Mapping[str, nn.Parameter]]:
    if isinstance(module, PolicyModel):
        return trainable_groups(module)
    return {"model": dict(module.named_parameters())}
