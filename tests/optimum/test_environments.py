"""The environments that ship, learnt by the real loop: their best policies are known, and read what they are told."""

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from plumbob.configs.load_run import load_run
from plumbob.configs.runs import OnlineRun
from plumbob.data.prompts import EncodedPrompt, encode_prompts
from plumbob.data.reading.readers import read_prompts
from plumbob.data.texts.chat_text import chat_renderer
from plumbob.data.toy_world.language import NAMES, facts
from plumbob.models.adapter import Adapter
from plumbob.reward.open_scorer import open_scorer
from plumbob.rollout.environments.openings import openings_of
from plumbob.rollout.environments.shipped.calculator import calculated, question
from plumbob.rollout.environments.shipped.twenty_questions import KEYWORDS, PROMPT, TwentyQuestions, rows
from plumbob.rollout.episodes.episode_sampler import with_environment
from plumbob.rollout.requests import sample_requests
from plumbob.rollout.rollout_records import Rollout, SampleRequest
from plumbob.rollout.samplers.open_sampler import open_sampler
from plumbob.rollout.samplers.sampler import Sampler, SamplerSpec, sample
from plumbob.trainers.learner.checkpoint import Checkpoints
from plumbob.trainers.metrics.metrics_log import MetricsLog
from plumbob.trainers.online.online_input import OnlineInput
from plumbob.trainers.online.online_loop import OnlineState, OnlineWorkers, run_online
from plumbob.trainers.online.recorder import OnlineRecorder
from plumbob.verify.local_learner import open_learner
from tests.support.recording_listener import Watching
from tests.support.word_policy import Dialogue, write_word_policy

SHIPPED = "plumbob.rollout.environments.shipped"
CARS = NAMES[:4]
NUMBERS = (13, 17, 19, 23, 29, 31, 37, 41, 43, 46, 47, 53)
EXPRESSIONS = [f"{a} * {b}" for a in NUMBERS for b in NUMBERS]
RLOO = [
    *("rollout.engine.kind=transformers", "rollout.max_tokens=48", "data.max_prompt_tokens=32", "seed=1"),
    *("reward.parts=[{kind: environment}]", "online.learning_rate=0.003", "online.prompts_per_step=4"),
    *("online.samples_per_prompt=16", "online.minibatch_size=64", "learner.micro_batch_size=64"),
]


class OneSampler:
    """A sampler as all rollout workers."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler

    def sample(self, requests: Sequence[SampleRequest]) -> list[Rollout]:
        return sample(self._sampler, requests)

    def load(self, adapter: Adapter) -> None:
        self._sampler.load(adapter)


def learnt(
    folder: Path, policy: str, trained_on: Sequence[Any], tried_on: Sequence[Any], *overrides: str
) -> tuple[list[float], list[Rollout]]:
    """The reward of each step of a run, and what the policy that it reached does on other rows, 16 times on each."""
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in trained_on))
    (folder / "others.jsonl").write_text("".join(json.dumps(row) + "\n" for row in tried_on))
    run = load_run("rloo", [f"policy.model={policy}", f"data.prompts={folder}/rows.jsonl", *RLOO, *overrides])
    assert isinstance(run, OnlineRun) and run.rollout.environment is not None
    tokenizer, rollout = AutoTokenizer.from_pretrained(policy), run.rollout

    def prompts(file: str) -> tuple[EncodedPrompt, ...]:
        with openings_of(rollout.environment, run.seed) as opening:
            read = read_prompts(f"{folder}/{file}", run.data, chat_renderer(tokenizer), True, opening)
        return tuple(encode_prompts(tokenizer, read.records, run.data.max_prompt_tokens).records)

    spec = SamplerSpec(
        run.policy.ref,
        "rollout-0",
        rollout.engine,
        rollout.temperature,
        rollout.max_tokens,
        16,
        environment=rollout.environment,
    )
    sampler = with_environment(open_sampler(spec), spec)
    state = OnlineState(run, OnlineInput(prompts("rows.jsonl"), tokenizer.pad_token_id, ()))
    workers = OnlineWorkers(OneSampler(sampler), open_scorer(run.reward.reward, "cpu"), open_learner(run))
    watching = Watching()
    with MetricsLog(folder, watching) as log, OnlineRecorder(run.stage, run.online, folder, log, watching) as record:
        run_online(run, tokenizer.pad_token_id, state, workers, Checkpoints(folder / "checkpoints", 1), record)
    found = sample(
        sampler, sample_requests(prompts("others.jsonl"), 16, run.online.num_steps, run.seed, with_rows=True)
    )
    sampler.close()
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["metrics"]["reward"] for line in lines], found


def rewards_of(rollouts: Sequence[Rollout]) -> float:
    return float(np.mean([rollout.episode.reward for rollout in rollouts if rollout.episode is not None]))


# ----------------------------------------------------------------------------------------------------- twenty questions


def games() -> Iterator[Dialogue]:
    """Of players who ask or name a car at random; four times in ten they name one that the answer allows."""
    rng = random.Random(0)
    while True:
        game, car = TwentyQuestions(num_cars=4), rng.choice(CARS)
        game.reset({"car": car}, 0)
        dialogue, asked = [{"role": "user", "content": PROMPT}], ""
        for _ in range(3):
            allowed = [one for one in CARS if asked and facts()[one][asked] == facts()[car][asked]]
            word = rng.choice(allowed if allowed and rng.random() < 0.4 else [*KEYWORDS, *CARS])
            dialogue.append({"role": "assistant", "content": word})
            reply = game.step(dialogue[-1])
            if reply["done"]:
                break
            dialogue += reply["messages"]
            asked = word if word in KEYWORDS else asked
        yield dialogue


@pytest.mark.slow
def test_twenty_questions_are_asked(tmp_path: Path) -> None:
    """Of four cars in two turns. The best policy asks a fact and names the car, whose reward is 1 - 0.02.

    One that only guesses is right at once for one car in four, and at its second guess for another:
    (1 + 0.98 - 2 * 0.04) / 4 = 0.475 at most.
    """
    policy = write_word_policy(tmp_path / "policy", games(), 300)
    settings = (
        f"rollout.environment.source={SHIPPED}.twenty_questions:TwentyQuestions",
        "rollout.environment.arguments={num_cars: 4, num_questions: 2}",
        "online.num_steps=60",
        "online.kl.coefficient=0.02",
    )
    curve, found = learnt(tmp_path, policy, list(rows(4)), list(rows(4)), *settings)
    print("twenty questions:", [round(reward, 2) for reward in curve], round(rewards_of(found), 3))
    assert curve[0] < 0.4 and rewards_of(found) > 0.55
    assert len(found) == 4 * 16  # A row is a game of its own, though all have the same prompt.


# ----------------------------------------------------------------------------------------------------------- calculator


def sums() -> Iterator[Dialogue]:
    """Of people who calculate or guess, and then repeat the result or guess, each as often."""
    rng = random.Random(0)
    results = [str(calculated(expression)) for expression in EXPRESSIONS]
    while True:
        expression = rng.choice(EXPRESSIONS)
        result = str(calculated(expression))
        dialogue = [{"role": "user", "content": question(expression)}]
        if rng.random() < 0.5:
            dialogue.append({"role": "assistant", "content": f"calculate({expression})"})
            dialogue.append({"role": "user", "content": result})
            result = result if rng.random() < 0.5 else rng.choice(results)
        else:
            result = rng.choice(results)
        yield [*dialogue, {"role": "assistant", "content": result}]


@pytest.mark.slow
def test_the_calculator_is_used(tmp_path: Path) -> None:
    """Also for products that the policy was never asked in the run, of which it knows one in a hundred by heart."""
    policy = write_word_policy(tmp_path / "policy", sums(), 400)
    asked, others = ([{"expression": one} for one in EXPRESSIONS[start::2]] for start in (0, 1))
    settings = (
        f"rollout.environment.source={SHIPPED}.calculator:Calculator",
        "rollout.environment.arguments={role: user}",
        "online.num_steps=40",
        "online.kl.coefficient=0.01",
    )
    curve, found = learnt(tmp_path, policy, asked, others[:16], *settings)
    calls = [len(rollout.episode.turns) == 2 for rollout in found if rollout.episode is not None]
    print("calculator:", [round(reward, 2) for reward in curve], round(rewards_of(found), 3))
    assert curve[0] < 0.4 and rewards_of(found) > 0.5 and np.mean(calls) > 0.75
