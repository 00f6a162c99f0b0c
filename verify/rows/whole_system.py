"""One row through all that a run has: Ray, vLLM as the sampler, a BERT as the scorer, journal and checkpoints."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from transformers import BertForSequenceClassification

from plumbob.configs.runs import OnlineRun
from plumbob.configs.settings.algorithms import FixedKl, Rloo
from plumbob.configs.settings.data import PromptDataSettings
from plumbob.configs.settings.models import REWARD_MODEL, ModelRef, NewBertSettings
from plumbob.configs.settings.rewards import ModelReward, ScorerSettings
from plumbob.configs.settings.training import OnlineSettings
from plumbob.configs.settings.workers import ClusterSettings, LearnerSettings, RolloutSettings, StorageSettings
from plumbob.driver.api import run
from plumbob.models.from_scratch import build_bert
from plumbob.reward.reward_models.bert_scorer import BertScorer
from plumbob.reward.reward_models.calibration import Calibration, save_calibration
from plumbob.reward.scorer import ScoreRequest
from plumbob.verify.local_learner import open_learner
from plumbob.verify.null_listener import NullListener
from plumbob.verify.optima.planted_bugs import OnlineTarget, online_bugs
from plumbob.verify.optima.response_tree import Array, Instance, gap_ratio, total_variation
from plumbob.verify.rows.bug_shift import Moved, moved
from plumbob.verify.rows.online_rows import WEIGHED, best
from plumbob.verify.world.problem import (
    DISTANCE,
    GAP,
    MAX_GRAD_NORM,
    UNSHAPED,
    Measurement,
    Problem,
    Size,
    make_problem,
)
from plumbob.verify.world.tiny_world import TinyWorld, response_logprobs

REWARD_STD = 0.5
"""Of the rewards over all responses: that of a uniform reward in [-1, 1] is 0.58."""
MAX_TOKENS = 16


@dataclass(frozen=True)
class WholeSystemRow:
    """RLOO as a user runs it; the reward of each response is what the reward model says of its text."""

    name: str = "RLOO, the whole pipeline"
    setting: str = "Ray, vLLM, BERT scorer, 40 responses"
    size: Size = field(default_factory=Size)
    num_steps: int = 120

    def measure(self, seed: int, folder: Path) -> tuple[Measurement, ...]:
        problem = make_problem(self.size, seed, folder)
        reward_model = make_reward_model(problem.world, seed, folder / "reward_model")
        settings = self.settings(problem, reward_model, folder)
        result = run(settings, NullListener())
        trained = problem.policy.model_copy(update={"model": str(result.folder / "policy")})
        learners = open_learner(settings.model_copy(update={"policy": trained}))
        reference = response_logprobs(problem.world, open_learner(settings).compute, "reference")
        rewards = scored(problem.world, reward_model)
        instance = Instance(problem.world.tree, problem.world.prompts, reference, rewards, self.size.beta)
        policy = response_logprobs(problem.world, learners.compute, "policy")
        return (
            Measurement("TV", float(total_variation(policy, instance.optimum).max()), DISTANCE),
            Measurement("gap", gap_ratio(policy, instance.optimum, instance.reference), GAP),
            Measurement("sampler gap", result.summary["stages"]["ppo"]["max_sampler_gap"], 1e-3),
        )

    @property
    def bug_targets(self) -> Mapping[str, OnlineTarget | None]:
        return {**online_bugs(best), **WEIGHED}

    def bug_shifts(self, seed: int, folder: Path) -> Moved:
        problem = make_problem(self.size, seed, folder)
        rewards = scored(problem.world, make_reward_model(problem.world, seed, folder / "reward_model"))
        instance = replace(problem, rewards=rewards).instance()
        return moved(lambda target: target(instance), best, self.bug_targets)

    def settings(self, problem: Problem, reward_model: Path, folder: Path) -> OnlineRun:
        prompts = folder / "prompts.jsonl"
        texts = [problem.world.prompt_text(prompt) for prompt in range(problem.size.num_prompts)]
        prompts.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
        return OnlineRun(
            name="ppo",
            seed=problem.seed,
            storage=StorageSettings(path=str(folder / "runs")),
            cluster=ClusterSettings(num_cpus=2),
            data=PromptDataSettings(prompts=str(prompts), heldout_fraction=0.0),
            policy=problem.policy,
            reward=ScorerSettings(model=str(reward_model), max_tokens=MAX_TOKENS, batch_size=256),
            rollout=RolloutSettings(max_tokens=self.size.depth, chunk_size=256),
            learner=LearnerSettings(micro_batch_size=1024),
            online=OnlineSettings(
                learning_rate=5e-3,
                schedule="linear",
                num_steps=self.num_steps,
                prompts_per_step=30,
                samples_per_prompt=34,
                minibatch_size=1020,
                max_grad_norm=MAX_GRAD_NORM,
                estimator=Rloo(),
                kl=FixedKl(coefficient=self.size.beta),
                shaping=UNSHAPED,
            ),
        )


def make_reward_model(world: TinyWorld, seed: int, folder: Path) -> Path:
    """A random BERT with one output, calibrated so that its scores of all responses have mean 0, spread REWARD_STD."""
    texts = [world.prompt_text(p) + " " + world.response_text(k) for p, k in world.pairs]
    encoder = folder.parent / "encoder"
    build_bert(
        NewBertSettings(vocab_size=64, hidden_size=64, num_heads=2, max_positions=MAX_TOKENS), texts, encoder, seed
    )
    torch.manual_seed(seed)
    model = BertForSequenceClassification.from_pretrained(encoder, num_labels=1)
    torch.nn.init.normal_(model.classifier.weight, std=1.0)
    model.save_pretrained(folder)
    for tokenizer_file in encoder.glob("token*"):
        (folder / tokenizer_file.name).write_bytes(tokenizer_file.read_bytes())
    raw = np.array(BertScorer(_reward(folder, is_calibrated=False)).raw_scores(_texts(world)))
    save_calibration(Calibration(float(raw.mean()), float(raw.std()) / REWARD_STD, len(raw), "every response"), folder)
    return folder


def _reward(folder: Path, is_calibrated: bool) -> ModelReward:
    return ModelReward(ModelRef(str(folder), REWARD_MODEL), 256, MAX_TOKENS, is_calibrated)


def scored(world: TinyWorld, reward_model: Path) -> Array:
    """What the reward model says of every response, [P, K]."""
    scores = BertScorer(_reward(reward_model, is_calibrated=True)).score(
        [ScoreRequest(*text) for text in _texts(world)]
    )
    return np.array([score.total for score in scores]).reshape(len(world.prompts), -1)


def _texts(world: TinyWorld) -> list[tuple[str, str]]:
    return [(world.prompt_text(p), world.response_text(k)) for p, k in world.pairs]
