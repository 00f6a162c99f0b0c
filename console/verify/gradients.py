"""One step's gradient of the trainer against the enumerated one: catches what total variation is too coarse for.

The step lists every answer as often as its probability says, so that the two agree but for float32. A trainer's error
of a few percent in beta, gamma, temperature, mask or weights shows in full, where the policy that it leads to may be
nearly the right one.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from configs.objectives import Gae
from configs.schema import PpoRun
from console.verify.advantages_by_counts import advantages_of
from console.verify.local import OneRank
from console.verify.online import Draws, Silent, encoded_prompts
from console.verify.optima import kl_slope, step_gradient
from console.verify.tree import EOS, Array, Instance
from console.verify.world import World, answer_logprobs, every_answer, state_values
from models.policy import PolicyModel
from models.roles import trainable_groups
from reward.scorer import Score
from trainers.collect import Answers
from trainers.engine import Engine
from trainers.ppo import PpoInput, PpoState, learn
from trainers.ppo_objective import forward_actions

BETA1 = 0.9
"""Of AdamW: the first moment moves by 1 - BETA1 of the gradient."""


def listed_counts(policy: Array, num_answers: int) -> NDArray[np.int64]:
    """How often each answer stands in a step of `num_answers` to each prompt, in proportion to exp(policy) [P, K]."""
    shares = num_answers * np.exp(policy)
    counts = np.floor(shares).astype(np.int64)
    for row, share in zip(counts, shares, strict=True):
        missing = num_answers - row.sum()
        row[np.argsort(row - share)[:missing]] += 1
    return counts


def listed_step(world: World, rewards: Array, counts: NDArray[np.int64], learners: OneRank, version: int) -> Answers:
    """Every answer as often as `counts` [P, K] says; those to one prompt are one group."""
    draws = Draws(world, rewards, int(counts[0].sum()))
    tokens = learners.compute(every_answer(world), "policy", forward_actions)
    rollouts, scores = [], []
    for row, (prompt, answer) in enumerate(world.pairs):
        for index in range(counts[prompt, answer]):
            rollouts.append(draws.rollout(draws.request(prompt, str(prompt), index), answer, tokens[row], version))
            scores.append(Score(float(rewards[prompt, answer]), {}))
    return Answers(tuple(rollouts), tuple(scores), (), 1, 0)


def trainer_gradient(run: PpoRun, world: World, learners: OneRank, answers: Answers) -> dict[str, Tensor]:
    """Gradient of the policy's parameters in one step of the trainer, read from what it does to Adam's first moment.

    The weights stay: the step's learning rate is 0. `run` must not clip gradients.
    """
    state = PpoState(run, PpoInput(encoded_prompts(world), EOS, ()))
    state.step = int(answers.rollouts[0].versions[0])
    record: Any = Silent()
    return gradient_of(learners, lambda: learn(run, EOS, answers, state, learners, record))


def gradient_of(learners: OneRank, one_step: Callable[[], object]) -> dict[str, Tensor]:
    """Gradient of the trained parameters in one optimizer step, read from what it does to Adam's first moment."""
    before = _first_moments(learners)
    one_step()
    after = _first_moments(learners)
    return {name: (after[name] - BETA1 * before[name]) / (1 - BETA1) for name in after}


def _first_moments(learners: OneRank) -> dict[str, Tensor]:
    engine = learners.learner.engine
    assert isinstance(engine, Engine)
    state = engine.state()
    return {name: state[f"exp_avg.{name}"].double() for name in trained_parameters(learners)}


def trained_parameters(learners: OneRank) -> Mapping[str, torch.nn.Parameter]:
    """The policy's, or all of a reward model's."""
    model = learners.learner.model
    return trainable_groups(model)["policy"] if isinstance(model, PolicyModel) else dict(model.named_parameters())


def pulled_back(world: World, learners: OneRank, logit_gradient: Array) -> dict[str, Tensor]:
    """A gradient by next-token logits [P, S, V] as one by the policy's parameters, through the model itself.

    Each state's entries sum to 0, so that their sum with the log-probs has them as its gradient by the logits.
    """
    tree = world.tree
    places = [
        (p, s, a) for p in range(len(world.prompts)) for s in range(len(tree.states)) for a in range(tree.vocab_size)
    ]
    width = max(map(len, world.prompts)) + tree.depth
    ids = torch.full((len(places), width), EOS)
    attention = torch.zeros(len(places), width, dtype=torch.bool)
    action = attention.clone()
    for row, (p, s, a) in enumerate(places):
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


def enumerated_gradient(run: PpoRun, instance: Instance, world: World, learners: OneRank, counts: Array) -> Array:
    """Gradient of the step's loss by next-token logits, [P, S, V], from the papers' formulas."""
    tree, ppo = instance.tree, run.ppo
    policy = tree.next_token_logprobs(answer_logprobs(world, learners.compute, "policy"))
    in_loss = ppo.kl.place == "loss"
    rewarded = Instance(tree, instance.prompts, instance.reference, instance.rewards, 0.0 if in_loss else instance.beta)
    has_critic = isinstance(ppo.estimator, Gae)
    values = state_values(world, learners.compute) if has_critic else np.zeros((len(world.prompts), len(tree.states)))
    pushes = advantages_of(ppo.estimator, rewarded, policy, counts, values)
    if in_loss:
        assert ppo.kl.estimate != "k1"
        pushes = pushes - instance.beta * kl_slope(tree.along(policy - instance.reference_policy), ppo.kl.estimate)
    return step_gradient(instance, policy, pushes, counts, ppo.loss_mean == "answer")


def relative_error(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> float:
    """|found - expected| / |expected|, all parameters together."""
    error = sum(float((found[name] - expected[name]).square().sum()) for name in expected)
    size = sum(float(own.square().sum()) for own in expected.values())
    return float(np.sqrt(error / size))
