"""Proximal policy optimisation: sample, score, learn, publish."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from configs.schema import PpoRun
from data.checks import check_context
from data.holdout import hold_out
from data.prompts import EncodedPrompt, PromptCursor, chat_renderer, encode_prompts
from data.readers import read_prompts
from models.source import check_servable, context_tokens, load_tokenizer, resolve_model
from reward.scorer import Score, Scorer
from rollout.records import Rollout, SampleRequest
from rollout.requests import Samplers, sample_requests
from trainers.checkpoint import Checkpoint, Checkpoints
from trainers.errors import NotFinite
from trainers.experience import NUM_NAMED, collate_rollouts, make_experience
from trainers.kl import initial_kl_state, next_coefficient
from trainers.learners import Learners, UpdatePlan
from trainers.ppo_objective import evaluate
from trainers.ppo_recorder import PpoRecorder
from trainers.schedule import learning_rate_scale


@dataclass(frozen=True)
class PpoInput:
    """Encoded prompts, and sentences about rows that were left out."""

    train: tuple[EncodedPrompt, ...]
    pad_id: int
    notes: tuple[str, ...]


def prepare_ppo(run: PpoRun) -> PpoInput:
    """Read, check and encode the prompts. Raises UserError; starts and writes nothing."""
    policy, data = run.policy, run.data
    source = resolve_model(policy.model, "policy.model")
    check_servable(source, "policy.model", run.rollout.engine)
    tokenizer = load_tokenizer(source, "policy.model", policy.trust_remote_code)
    render = chat_renderer(tokenizer)
    split = hold_out(
        lambda path: read_prompts(path, data, render),
        data.prompts,
        data.heldout_prompts,
        lambda prompt: prompt.text,
        data,
        run.seed,
    )
    train = encode_prompts(tokenizer, split.train, data.max_prompt_tokens)
    longest = max(len(prompt.ids) for prompt in train.records)
    check_context(longest, run.rollout.max_tokens, context_tokens(source, "policy.model", policy.trust_remote_code))
    return PpoInput(train.records, tokenizer.pad_token_id, split.notes + train.notes)


# ----------------------------------------------------------------------------------------------------------- the loop


class PpoState:
    """Where the loop stands; a checkpoint keeps it beside the learners' tensors.

    Attributes:
        step: steps done, which is also the policy's version.
        kl_coefficient: beta of the next step.
        cursor: where in the prompts the next batch begins.
    """

    def __init__(self, run: PpoRun, data: PpoInput) -> None:
        self.step = 0
        self.kl_coefficient = initial_kl_state(run.ppo.kl)
        self.cursor = PromptCursor(data.train, run.seed)

    def as_dict(self) -> dict[str, Any]:
        return {"kl_coefficient": self.kl_coefficient, "cursor": self.cursor.state()}

    def take_over(self, checkpoint: Checkpoint) -> None:
        self.step, self.kl_coefficient = checkpoint.step, checkpoint.state["kl_coefficient"]
        self.cursor.load_state(checkpoint.state["cursor"])


@dataclass(frozen=True)
class PpoActors:
    """Who does the work; each may be one process or many, here or elsewhere."""

    samplers: Samplers
    scorer: Scorer
    learners: Learners


def run_ppo(
    run: PpoRun, pad_id: int, state: PpoState, actors: PpoActors, checkpoints: Checkpoints, record: PpoRecorder
) -> None:
    """Sample, score, learn, commit, publish: every answer is learnt from by the version that sampled it."""
    publish(actors, state, record)
    while state.step < run.ppo.num_steps:
        requests = next_requests(run, state, state.step)
        with record.phase("sample"):
            rollouts = actors.samplers.sample(requests)
        with record.phase("score"):
            scores = score(actors.scorer, rollouts)
        learn(run, pad_id, rollouts, scores, state, actors.learners, record)
        with record.phase("commit"):  # Before anyone sees the new version.
            checkpoints.commit(state.step, actors.learners.save, state.as_dict())
        publish(actors, state, record)


def run_ppo_overlapped(
    run: PpoRun, pad_id: int, state: PpoState, actors: PpoActors, checkpoints: Checkpoints, record: PpoRecorder
) -> None:
    """The same, with the next step's answers sampled while this step's are learnt from: one version behind."""
    publish(actors, state, record)
    with ThreadPoolExecutor(max_workers=1) as ahead:
        sampling = ahead.submit(actors.samplers.sample, next_requests(run, state, state.step))
        while state.step < run.ppo.num_steps:
            with record.phase("sample"):
                rollouts = sampling.result()
            resumed_from = state.cursor.state()  # A resumed run samples the batch in flight again.
            if state.step + 1 < run.ppo.num_steps:
                sampling = ahead.submit(actors.samplers.sample, next_requests(run, state, state.step + 1))
            with record.phase("score"):
                scores = score(actors.scorer, rollouts)
            learn(run, pad_id, rollouts, scores, state, actors.learners, record)
            with record.phase("commit"):
                checkpoints.commit(state.step, actors.learners.save, state.as_dict() | {"cursor": resumed_from})
            publish(actors, state, record)


def score(scorer: Scorer, rollouts: Sequence[Rollout]) -> list[Score]:
    return scorer.score([(rollout.request.prompt, rollout.response) for rollout in rollouts])


def learn(
    run: PpoRun,
    pad_id: int,
    rollouts: Sequence[Rollout],
    scores: Sequence[Score],
    state: PpoState,
    learners: Learners,
    record: PpoRecorder,
) -> None:
    """From answers and their scores to the next policy version and the next KL coefficient."""
    ppo = run.ppo
    trajectories = collate_rollouts(rollouts, pad_id)
    with record.phase("evaluate"):
        evaluated = evaluate(learners, trajectories, run.rollout.temperature)
    totals = torch.tensor([score.total for score in scores])
    scale = learning_rate_scale(ppo, state.step, ppo.num_steps)
    plan = UpdatePlan(ppo.minibatch_size, ppo.num_epochs, scale, run.seed + state.step)
    with naming_prompts(rollouts):
        experience, stats = make_experience(trajectories, totals, evaluated, ppo, state.kl_coefficient, state.step)
        with record.phase("learn"):
            metrics = learners.update(experience, plan)
    metrics["kl_coefficient"] = state.kl_coefficient
    state.step += 1
    record.learnt(rollouts, scores, evaluated, stats, state.step, metrics)
    state.kl_coefficient = next_coefficient(ppo.kl, state.kl_coefficient, stats.kl_mean, stats.num_answers)


@contextmanager
def naming_prompts(rollouts: Sequence[Rollout]) -> Iterator[None]:
    """An error about rows of the batch also says which prompts they answer."""
    try:
        yield
    except NotFinite as error:
        if not error.rows:
            raise
        named = [f"{row} (prompt {rollouts[row].request.prompt_id})" for row in error.rows[:NUM_NAMED]]
        more = len(error.rows) - len(named)
        rows = ", ".join(named) + (f" and {more} more" if more else "")
        raise NotFinite(f"{error}; no optimizer step was taken with it; the rows are {rows}", error.rows) from error


def publish(actors: PpoActors, state: PpoState, record: PpoRecorder) -> None:
    with record.phase("publish"):
        actors.samplers.load(actors.learners.adapter(state.step))


def next_requests(run: PpoRun, state: PpoState, step: int) -> list[SampleRequest]:
    prompts = state.cursor.next(run.ppo.prompts_per_step)
    return sample_requests(prompts, run.ppo.samples_per_prompt, step, run.seed)
