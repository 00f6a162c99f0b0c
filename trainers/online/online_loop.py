"""The loop of all online RL algorithms (PPO, RLOO, GRPO, RAFT, online DPO, ...): sample, score, learn, publish."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from plumbob.configs.runs import OnlineRun
from plumbob.core.errors import NUM_NAMED, NotFinite
from plumbob.data.prompts import PromptCursor
from plumbob.reward.scorer import Scorer
from plumbob.rollout.journal_files import check_written, step_writers
from plumbob.rollout.requests import RolloutWorkers
from plumbob.rollout.rollout_heads import Response
from plumbob.trainers.algorithms.kl import initial_coefficient, next_coefficient
from plumbob.trainers.distillation.teachers import teacher_numbers
from plumbob.trainers.forgetting.replay import replay_blocks
from plumbob.trainers.learner.checkpoint import Checkpoint, Checkpoints
from plumbob.trainers.learner.learner_protocol import UpdatePlan, merge_results, update_seed
from plumbob.trainers.learner.lr_schedule import learning_rate_scale
from plumbob.trainers.learner.ranks.rank_learner import RowLearners
from plumbob.trainers.online.collection.async_collector import AsyncCollector
from plumbob.trainers.online.collection.collector import Collector, StepResponses
from plumbob.trainers.online.collection.sample_ledger import SampleLedger
from plumbob.trainers.online.objective import (
    MAX_TRUSTED_GAP,
    rows_to_probe,
)
from plumbob.trainers.online.objectives.movement import SQUARED_GAP
from plumbob.trainers.online.online_input import OnlineInput
from plumbob.trainers.online.part_rewards import are_learnt, combined_scores, have_actions, with_totals
from plumbob.trainers.online.ranks.dealing import Deal
from plumbob.trainers.online.ranks.rank_step import StepOrder, evaluate_rows, learn_rows, write_rows
from plumbob.trainers.online.recorder import OnlineRecorder
from plumbob.trainers.online.trajectories import group_numbers


class OnlineState:
    """Where the loop stands; a checkpoint keeps it beside the learners' tensors.

    Attributes:
        step: steps done, which is also the policy's version.
        kl_coefficient: beta of the next step.
        cursor: where in the prompts the next step begins; steps that are sampled asynchronously do not move it.
        ledger: what became of every response.
        trusts_sampler: whether the sampler's log-probs are used as pi_old: until the mismatch exceeds MAX_TRUSTED_GAP.
        replayed: text that is learnt beside each batch, found by the step alone.
        retained: nats a token of the text that must not be forgotten, before the first step; None measures none.
    """

    def __init__(self, run: OnlineRun, data: OnlineInput) -> None:
        self.step = 0
        self.kl_coefficient = initial_coefficient(run.online.kl)
        self.cursor = PromptCursor(data.train, run.seed, data.mixture)
        self.ledger = SampleLedger()
        self.trusts_sampler = run.online.old_logprobs == "sampler" and run.online.max_staleness == 0
        self.replayed = data.replayed
        self.retained: float | None = None

    def as_dict(self) -> dict[str, Any]:
        return {
            "kl_coefficient": self.kl_coefficient,
            "cursor": self.cursor.state(),
            "ledger": self.ledger.completed(),
            "retained": self.retained,
            "trusts_sampler": self.trusts_sampler,
        }

    def restore(self, checkpoint: Checkpoint) -> None:
        self.step, self.kl_coefficient = checkpoint.step, checkpoint.state["kl_coefficient"]
        self.cursor.load_state(checkpoint.state["cursor"])
        self.ledger.load_state(checkpoint.state["ledger"])
        self.retained = checkpoint.state["retained"]
        # Checkpoints from before this setting: as their runs began, with the learner's own.
        self.trusts_sampler = checkpoint.state.get("trusts_sampler", False)


@dataclass(frozen=True)
class OnlineWorkers:
    """Who does the work; each may be one process or many, here or elsewhere."""

    samplers: RolloutWorkers
    scorer: Scorer
    learners: RowLearners


def run_online(
    run: OnlineRun,
    pad_id: int,
    state: OnlineState,
    workers: OnlineWorkers,
    checkpoints: Checkpoints,
    recorder: OnlineRecorder,
) -> None:
    """Sample, score, learn, commit, publish: every response is learnt from by the version that sampled it."""
    publish(workers, state, recorder)
    collector = Collector(run, state.cursor, workers.samplers, workers.scorer, state.ledger, recorder.phase)
    while state.step < run.online.num_steps and not recorder.is_stopped:
        responses = collector.collect(state.step)
        learn(run, pad_id, responses, state, workers.learners, recorder)
        commit(responses, state, workers, checkpoints, recorder)
        publish(workers, state, recorder)
    finish(state, recorder)


def run_online_asynchronous(
    run: OnlineRun,
    pad_id: int,
    state: OnlineState,
    workers: OnlineWorkers,
    checkpoints: Checkpoints,
    recorder: OnlineRecorder,
) -> None:
    """The same, with sampling and scoring in a thread beside learning, at most `online.max_staleness` versions ahead.

    The responses of step n, which version n learns from, may be sampled from version n - max_staleness on; those in
    flight continue with the newer weights of a publish (partial rollouts). The seconds of "sample" are those for which
    the learners were blocked.
    """
    publish(workers, state, recorder)
    with AsyncCollector(run, state.step, state.cursor, workers.samplers, workers.scorer, state.ledger) as collector:
        while state.step < run.online.num_steps and not recorder.is_stopped:
            collector.allow_up_to(min(state.step + run.online.max_staleness, run.online.num_steps - 1))
            with recorder.phase("sample"):
                responses, next_prompts = collector.take()
            learn(run, pad_id, responses, state, workers.learners, recorder)
            state.cursor.load_state(next_prompts)  # A resumed run samples the steps in flight again.
            commit(responses, state, workers, checkpoints, recorder)
            publish(workers, state, recorder)
    finish(state, recorder)


def learn(
    run: OnlineRun,
    pad_id: int,
    responses: StepResponses,
    state: OnlineState,
    learners: RowLearners,
    recorder: OnlineRecorder,
) -> None:
    """From responses and their scores to the next policy version and the next KL coefficient.

    Each rank computes and learns from its own rows; the driver knows lengths and scores of all of them.
    """
    online, rollouts = run.online, responses.rollouts
    scale = learning_rate_scale(online, state.step, online.num_steps)
    plan = UpdatePlan(online.rows_per_update, online.num_epochs, scale, update_seed(run.seed, state.step))
    order = StepOrder(run, pad_id, state.step, state.kl_coefficient, plan)
    with naming_prompts(rollouts):
        with recorder.phase("logprobs"):
            is_tried = uses_sampler_logprobs(state, rollouts)
            probed = rows_to_probe(rollouts, state.step, run.rollout.chunk_size) if is_tried else None
            deal = Deal(responses, learners.num_ranks)
            own = deal.to_compute(probed, teacher_numbers(run, rollouts, responses.rows))
            learners.on_ranks("computing log-probs", evaluate_rows, order, own, deal.rollouts())
        scores = combined_scores(run, responses.scores, are_learnt(online, rollouts), group_numbers(rollouts))
        with recorder.phase("learn"):
            num_rows = online.rows_per_update * online.updates_per_epoch
            replayed = replay_blocks(state.replayed, num_rows, state.step, run.seed)
            results = learners.on_ranks("updating", learn_rows, order, deal.to_learn(scores, replayed))
    stats = with_totals(run, results[0].stats, responses.scores, have_actions(rollouts))
    of_tokens, metrics = results[0].of_tokens, merge_results([result.update for result in results])
    metrics |= {
        "kl_coefficient": state.kl_coefficient,
        "learning_rate": scale * online.learning_rate,
        **of_tokens.teachers,
    }
    squared_gap = metrics.pop(SQUARED_GAP, None)
    if of_tokens.took_sampler and squared_gap is not None:
        metrics["sampler_gap_rms"] = math.sqrt(squared_gap)
    state.step += 1
    gap = max(stats.sampler_gap_max, metrics.get("sampler_gap_rms", 0.0))
    breach = gap if state.trusts_sampler and gap > MAX_TRUSTED_GAP else None
    state.trusts_sampler &= breach is None
    write = partial(write_journal, learners, order)
    recorder.record_update(responses, of_tokens, stats, state.step, metrics, breach, write)
    state.kl_coefficient = next_coefficient(online.kl, state.kl_coefficient, stats.kl_mean, stats.num_responses)


def write_journal(learners: RowLearners, order: StepOrder, folder: Path) -> None:
    """Have each rank write its rows of a step, which appears in `folder` once all are on the disk.

    Raises:
        RunFailed: the driver does not see what a rank has written.
    """
    with step_writers(folder, order.step + 1, learners.num_ranks) as paths:
        sizes = learners.on_ranks("writing the journal", write_rows, order, paths)
        for path, size in zip(paths, sizes, strict=True):
            check_written(path, size)


def uses_sampler_logprobs(state: OnlineState, rollouts: Sequence[Response]) -> bool:
    """Whether pi_old is the sampler's in a step: not in the first, which compares all, nor with others' text."""
    return state.trusts_sampler and state.step > 0 and all(one.num_actions == one.num_tokens for one in rollouts)


@contextmanager
def naming_prompts(rollouts: Sequence[Response]) -> Iterator[None]:
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


def commit(
    responses: StepResponses,
    state: OnlineState,
    workers: OnlineWorkers,
    checkpoints: Checkpoints,
    recorder: OnlineRecorder,
) -> None:
    """Account for what was learnt from and keep what was learnt, before anyone sees the new version."""
    state.ledger.trained(responses.rollouts)
    state.ledger.dropped([rollout for rollout, _ in responses.dropped], "flat")
    recorder.record_final_counts(state.step, state.ledger.take_final())
    with recorder.phase("commit"):
        checkpoints.commit(state.step, workers.learners.save, state.as_dict())
    recorder.check_stop()


def publish(workers: OnlineWorkers, state: OnlineState, recorder: OnlineRecorder) -> None:
    """Weight sync to the rollout workers: the policy as it is now becomes their version `state.step`."""
    with recorder.phase("publish"):
        workers.samplers.load(workers.learners.policy_weights(state.step))
    state.ledger.published(state.step)


def finish(state: OnlineState, recorder: OnlineRecorder) -> None:
    """Account for what is left; rows are filed under the next step, so that a resume drops them."""
    state.ledger.stopped()
    recorder.record_final_counts(state.step + 1, state.ledger.take_final(has_ended=True))
