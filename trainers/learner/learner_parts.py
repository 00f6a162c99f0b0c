"""What a learner is made from: a module, its loss terms, how it is written, and what optimizes it."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import nn
from transformers import GenerationConfig

from plumbob.configs.paths import absolute
from plumbob.configs.settings.data import ReadingSettings
from plumbob.configs.settings.models import AlignedPolicySettings, PolicySettings
from plumbob.configs.settings.training import OptimizerSettings
from plumbob.configs.settings.tuning.adapters import AdaLoraTuning
from plumbob.data.batch import Batch
from plumbob.data.texts.chat_text import PROMPT_TEMPLATE
from plumbob.data.texts.turns import assistant_turn
from plumbob.models.adapter import ModelRole
from plumbob.models.loading import OpenedPolicy, open_policy
from plumbob.models.tuning.methods import method_of
from plumbob.trainers.learner.export import Artifact, FullModel, PolicyAdapter, SelectedWeights
from plumbob.trainers.learner.learner_protocol import LossSum, LossTerm

if TYPE_CHECKING:
    from plumbob.models.policy import PolicyModel


@dataclass(frozen=True)
class LearnerParts:
    """A kind of run's learner before it is sharded.

    Attributes:
        module: what is trained, its weights loaded.
        loss_terms: what one update goes down, in order, each by a forward and backward of its own.
        artifact: how the result is written.
        optimizer: settings of all groups of parameters.
        learning_rates: of groups whose rate is not the optimizer's.
    """

    module: nn.Module
    loss_terms: Sequence[LossTerm[Any]]
    artifact: Artifact
    optimizer: OptimizerSettings
    learning_rates: Mapping[str, float] = field(default_factory=dict)


def tuned_policy(
    policy: PolicySettings | AlignedPolicySettings, roles: tuple[ModelRole, ...], seed: int, reading: ReadingSettings
) -> tuple["PolicyModel", Artifact]:
    """The policy in its roles, and how it is written: with the prompt template that its data were read with.

    Raises:
        UserError: it cannot be loaded.
    """
    opened = open_policy(policy.ref)
    if reading.prompt_template is not None:
        opened.tokenizer.init_kwargs[PROMPT_TEMPLATE] = reading.prompt_template
    module = method_of(policy.tuning).policy(opened, roles, seed)
    return module, policy_artifact(opened, module)


def policy_artifact(opened: OpenedPolicy, module: "PolicyModel") -> Artifact:
    """The adapter alone where there is one, which its base stays as it is beside; else a whole model."""
    model, tokenizer = module.causal_lm, opened.tokenizer
    generation = with_all_ends(model.generation_config, tokenizer)
    if module.adapters["policy"] is None:
        if not all(parameter.requires_grad for parameter in model.parameters()):
            return SelectedWeights(opened, "causal_lm.", generation)
        model.generation_config = generation
        return FullModel(model, "causal_lm.", tokenizer)
    own = None if generation is model.generation_config else generation
    return PolicyAdapter(model, "causal_lm.", absolute(opened.source.base), tokenizer, own)


def orthogonality_pass(tuning: AdaLoraTuning, policy: nn.Module) -> LossTerm[Batch]:
    """What keeps the ranks of AdaLoRA apart from one another, so that each has an importance of its own."""
    from plumbob.models.tuning.layers.adalora_layers import orthogonality

    def loss_sum(_: Any, rows: Batch) -> LossSum:
        """The same for every row: its mean over the batch is it."""
        distance = rows.num_rows * orthogonality(policy, "policy")
        return LossSum(tuning.orthogonality * distance, {"orthogonality": distance.detach()})

    return LossTerm("policy", loss_sum, lambda batch: float(batch.num_rows))


def with_all_ends(generation: GenerationConfig, tokenizer: Any) -> GenerationConfig:
    """The same, or a copy that also names what the chat template ends a turn with: it was learnt, and is to be stopped
    at."""
    turn = assistant_turn(tokenizer)
    named = generation.eos_token_id
    ids = named if isinstance(named, list) else [tokenizer.eos_token_id if named is None else named]
    ends = [] if turn is None else [end for end in turn.ends.values() if end not in ids]
    if not ends:
        return generation
    extended = deepcopy(generation)
    extended.eos_token_id = [*ids, *ends]
    return extended
