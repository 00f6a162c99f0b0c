"""Where the best policy is known, every estimator and DPO reach it: pi*(y|x) ∝ pi_ref(y|x) exp(r(x,y) / beta).

One prompt, and 13 responses over a vocabulary of 4: EOS alone, or one of three words and then any token, cut at two.
Rewards are log w with w in {1, 2, 4}, so that the Bradley-Terry probabilities w_i / (w_i + w_j) are exact in few pairs.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from plumbob.configs.runs import OnlineRun
from plumbob.configs.settings.algorithms import (
    DrGrpo,
    Estimator,
    FixedKl,
    Gae,
    Grpo,
    ReinforcePlusPlus,
    ReinforcePlusPlusBaseline,
    Rloo,
    ShapingSettings,
)
from plumbob.configs.settings.offline_objectives import DpoLoss
from plumbob.configs.settings.rewards import ScorerSettings
from plumbob.configs.settings.training import OnlineSettings
from plumbob.configs.settings.workers import RolloutSettings
from plumbob.data.tokenization import PairBatch, TokenSequence, collate
from plumbob.reward.scorer import Score
from plumbob.rollout.rollout_records import Rollout, SampleRequest
from plumbob.trainers.learner.learner import Learner
from plumbob.trainers.learner.learner_protocol import UpdatePlan
from plumbob.trainers.learner.lr_schedule import learning_rate_scale
from plumbob.trainers.offline.dpo import dpo_loss_terms, pair_logprobs, step_batch
from plumbob.trainers.online.collection.collector import StepResponses
from plumbob.trainers.online.objective import TrajectoryBatch, forward_actions, online_loss_terms
from plumbob.trainers.online.online_loop import learn
from plumbob.verify.local_learner import OneRank
from tests.support.learner_ranks import LearnerCase, Ranks, tiny_learner, write_tiny_llama

EOS = 0
PROMPT = (1, 2)
RESPONSES = ((EOS,), *((first, second) for first in (1, 2, 3) for second in (EOS, 1, 2, 3)))
WEIGHTS = np.array([2, 4, 1, 2, 1, 1, 1, 4, 2, 2, 1, 1, 4])
BETA = 0.5
GROUP_SIZE = 32
"""Responses that are compared with one another: large, because GRPO divides by the standard deviation of so many."""


def enumerated() -> TrajectoryBatch:
    """Every response once."""
    ids = torch.zeros(len(RESPONSES), 4, dtype=torch.long)
    attention = torch.zeros(len(RESPONSES), 4, dtype=torch.bool)
    for row, response in enumerate(RESPONSES):
        ids[row, : 2 + len(response)] = torch.tensor(PROMPT + response)
        attention[row, : 2 + len(response)] = True
    return TrajectoryBatch(ids, attention, attention & (torch.arange(4) >= 2), 1.0)


def token_logprobs(learner: Learner, role: Any) -> np.ndarray:
    return learner.compute(enumerated(), role, forward_actions)


def probabilities(learner: Learner, role: Any) -> np.ndarray:
    """Of the 13 responses, which are all that there are."""
    found: np.ndarray = np.exp(token_logprobs(learner, role).sum(axis=1, dtype=np.float64))
    assert abs(found.sum() - 1) < 1e-5
    return found / found.sum()


def tilted(reference: np.ndarray, beta: float) -> np.ndarray:
    found: np.ndarray = reference * WEIGHTS ** (1 / beta)
    return found / found.sum()


def distances(learner: Learner) -> tuple[float, float, float]:
    """Total variation from pi*, of the policy, of the reference, and of what a beta 10% too large would lead to."""
    reference = probabilities(learner, "reference")
    others = (probabilities(learner, "policy"), reference, tilted(reference, 1.1 * BETA))
    return tuple(float(np.abs(other - tilted(reference, BETA)).sum() / 2) for other in others)  # type: ignore


def draw(learner: Learner, num: int, version: int, random: np.random.Generator) -> StepResponses:
    """Exact draws from the policy as it is, with its own log-probs."""
    logprobs = token_logprobs(learner, "policy")
    rollouts, scores = [], []
    for place, chosen in enumerate(random.choice(len(RESPONSES), num, p=probabilities(learner, "policy"))):
        response = RESPONSES[chosen]
        request = SampleRequest("p", f"g{place // GROUP_SIZE}", place, place, "", np.array(PROMPT, np.int32))
        reason = "stop" if response[-1] == EOS else "length"
        written = np.ones(len(response), np.bool_)
        rollouts.append(
            Rollout(
                request,
                reason,  # type: ignore[arg-type]
                "",
                np.array(response, np.int32),
                logprobs[chosen, 2 : 2 + len(response)],
                np.full(len(response), version, np.int32),
                written,
                "here",
            )
        )
        scores.append(Score(float(np.log(WEIGHTS[chosen])), {}))
    return StepResponses(tuple(rollouts), tuple(scores), (), 1, 0)


def ppo_settings(estimator: Estimator, num_steps: int, num_samples: int) -> OnlineSettings:
    return OnlineSettings(
        learning_rate=3e-3,
        schedule="linear",
        num_steps=num_steps,
        prompts_per_step=num_samples,
        minibatch_size=num_samples // 2,
        kl=FixedKl(coefficient=BETA),
        estimator=estimator,
        shaping=ShapingSettings(clip=None, missing_eos_penalty=0.0),
    )


def run_ppo_to_its_end(
    case: LearnerCase, estimator: Estimator, num_steps: int, num_samples: int
) -> tuple[float, float, float]:
    online = ppo_settings(estimator, num_steps, num_samples)
    learner = tiny_learner(case, online, online_loss_terms(online, 1.0))
    # No more of a run is read than these.
    reward = ScorerSettings(model="rewards are exact")
    run: Any = SimpleNamespace(online=online, rollout=RolloutSettings(), reward=reward, seed=0)
    assert set(vars(run)) <= set(OnlineRun.model_fields)
    state: Any = SimpleNamespace(step=0, kl_coefficient=BETA, replayed=None, trusts_sampler=True)
    record: Any = SimpleNamespace(phase=lambda name: nullcontext(), record_update=lambda *_: None)
    learners: Any = OneRank(learner)
    random = np.random.default_rng(0)
    while state.step < num_steps:
        learn(run, EOS, draw(learner, num_samples, state.step, random), state, learners, record)
    return distances(learner)


def exact_pairs() -> list[tuple[int, int]]:
    """(chosen, rejected), each as often as the exact preference says: w_i times against w_j times, in lowest terms."""
    pairs: list[tuple[int, int]] = []
    for i in range(len(RESPONSES)):
        for j in range(i):
            common = int(np.gcd(WEIGHTS[i], WEIGHTS[j]))
            pairs += [(i, j)] * int(WEIGHTS[i] // common) + [(j, i)] * int(WEIGHTS[j] // common)
    return pairs


def sequences(responses: Sequence[int]) -> list[TokenSequence]:
    ids = [np.array(PROMPT + RESPONSES[response], np.int32) for response in responses]
    return [TokenSequence(row, np.arange(len(row)) >= 2) for row in ids]


def run_dpo_to_its_end(case: LearnerCase, num_steps: int) -> tuple[float, float, float]:
    settings = OnlineSettings(learning_rate=5e-3, schedule="linear")
    learner = tiny_learner(case, settings, dpo_loss_terms(DpoLoss(beta=BETA)))
    chosen, rejected = zip(*exact_pairs(), strict=True)
    pairs = PairBatch(collate(sequences(chosen), EOS), collate(sequences(rejected), EOS))
    batch = step_batch(pairs, learner.compute(pairs, "reference", pair_logprobs))
    for step in range(num_steps):
        plan = UpdatePlan(batch.num_rows, 1, learning_rate_scale(settings, step, num_steps), 0)
        learner.update(batch, plan)
    return distances(learner)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> LearnerCase:
    """A base that is spread over the four tokens, and adapters as LoRA begins them."""
    folder = write_tiny_llama(tmp_path_factory.mktemp("bandit"), vocab_size=4, initializer_range=0.1)
    return LearnerCase(folder, micro_batch_size=512, adapter_std=0.0, lora_rank=8)


@pytest.mark.parametrize(
    "estimator",
    [
        Gae(value_learning_rate=3e-3, value_clip_range=None),
        ReinforcePlusPlus(),
        ReinforcePlusPlusBaseline(),
        Rloo(),
        Grpo(),
        DrGrpo(),
    ],
    ids=lambda estimator: estimator.kind,
)
def test_each_estimator_reaches_the_best_policy(one_rank: Ranks, case: LearnerCase, estimator: Estimator) -> None:
    # With k1 in the reward. 0.005 to 0.009 is reached; a beta that is 10% off would be noticed.
    found, begun, wrong_beta = one_rank.run(run_ppo_to_its_end, case, estimator, 60, 256)[0]
    assert begun > 0.3 and wrong_beta > 0.02
    assert found < 0.015


def test_dpo_reaches_the_best_policy(one_rank: Ranks, case: LearnerCase) -> None:
    found, begun, wrong_beta = one_rank.run(run_dpo_to_its_end, replace(case, micro_batch_size=1024), 80)[0]
    assert begun > 0.3 and wrong_beta > 0.02
    assert found < 0.01
