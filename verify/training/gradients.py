"""One step's gradient of a trainer, and an enumerated one as that of the model's parameters.

P prompts, K responses, S states, V tokens, as in `verify.optima.response_tree`.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from plumbob.models.policy import PolicyModel
from plumbob.models.tuning.roles import trainable_groups
from plumbob.trainers.learner.engine import Engine
from plumbob.verify.local_learner import OneRank
from plumbob.verify.optima.response_tree import EOS, Array
from plumbob.verify.world.tiny_world import TinyWorld

BETA1 = 0.9
"""Of AdamW: the first moment moves by 1 - BETA1 of the gradient."""


def gradient_of(learners: OneRank, one_step: Callable[[], object]) -> dict[str, Tensor]:
    """Gradient of the trained parameters in one optimizer step, read from what it does to Adam's first moment."""
    before = _first_moments(learners)
    one_step()
    after = _first_moments(learners)
    return {name: (after[name] - BETA1 * before[name]) / (1 - BETA1) for name in after}


def _first_moments(learners: OneRank) -> dict[str, Tensor]:
    engine = learners.learner.engine
    assert isinstance(engine, Engine)
    names = trained_parameters(learners)
    state = dict(engine.state(names))
    return {name: state[f"exp_avg.{name}"].double() for name in names}


def trained_parameters(learners: OneRank) -> Mapping[str, torch.nn.Parameter]:
    """The policy's, or all of a reward model's."""
    model = learners.learner.model
    return trainable_groups(model)["policy"] if isinstance(model, PolicyModel) else dict(model.named_parameters())


def pulled_back(world: TinyWorld, learners: OneRank, logit_gradient: Array) -> dict[str, Tensor]:
    """A gradient by next-token logits [P, S, V] as one by the policy's parameters, through the model itself.

    Each state's entries sum to 0, so that their sum with the log-probs has them as its gradient by the logits.
    """
    tree = world.tree
    actions = [
        (p, s, a) for p in range(len(world.prompts)) for s in range(len(tree.states)) for a in range(tree.vocab_size)
    ]
    width = max(map(len, world.prompts)) + tree.depth
    ids = torch.full((len(actions), width), EOS)
    attention = torch.zeros(len(actions), width, dtype=torch.bool)
    action = attention.clone()
    for row, (p, s, a) in enumerate(actions):
        sequence = (*world.prompts[p], *tree.states[s], a)
        ids[row, : len(sequence)] = torch.tensor(sequence)
        attention[row, : len(sequence)] = True
        action[row, len(sequence) - 1] = True
    parameters = trained_parameters(learners)
    model = learners.learner.model
    assert isinstance(model, PolicyModel)
    with model.role("policy"):
        logprobs = model(ids, attention, action, 1.0).sum(dim=1)
        weighted = (torch.from_numpy(logit_gradient.reshape(-1)).to(logprobs) * logprobs).sum()
        gradients = torch.autograd.grad(weighted, list(parameters.values()))
    return {name: gradient.double() for name, gradient in zip(parameters, gradients, strict=True)}


def relative_error(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> float:
    """|found - expected| / |expected|, all parameters together."""
    error = sum(float((found[name] - expected[name]).square().sum()) for name in expected)
    size = sum(float(own.square().sum()) for own in expected.values())
    return float(np.sqrt(error / size))


def by_logits(world: TinyWorld, policy: Array, by_responses: Array) -> Array:
    """A gradient by responses' log-probs [P, K] as one by next-token logits, [P, S, V]; `policy`: log pi(y | x)."""
    tree = world.tree
    return tree.logit_gradient(tree.next_token_logprobs(policy), by_responses[..., None])
