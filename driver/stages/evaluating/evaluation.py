"""Measures reward models on pairs, and policies on prompts: against a baseline, and each against each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from plumbob.cluster.session import Session
from plumbob.configs.runs import EvalRun
from plumbob.core.statistics import calibration_error, proportion_interval
from plumbob.data.records import Ranking
from plumbob.driver.input_sizes.token_lengths import tokens_of_prompts
from plumbob.driver.measures.library_scores import note_scores
from plumbob.driver.measures.policy_metrics import (
    ComparedResponses,
    Metrics,
    Responses,
    pass_metrics,
    policy_metrics,
    response_metrics,
    win_rates,
)
from plumbob.driver.measures.response_tables import RESPONSES_DIGEST, write_responses
from plumbob.driver.stages.evaluating.evaluation_input import (
    ALONE,
    BASELINE,
    EvalInput,
    EvaluatedPolicy,
    prepare_eval,
    scorer_of,
)
from plumbob.driver.stages.model_sampling import ModelSampling, rollout_of
from plumbob.driver.stages.stage import InputSizes, PreparedStage
from plumbob.models.loading import OpenedPolicy
from plumbob.reward.agreement import agreement_metrics, annotator_metrics
from plumbob.reward.reward_models.reward_prompts import FormScorer
from plumbob.reward.scorer import Scorer, ScoreRequest
from plumbob.rollout.requests import sample_requests
from plumbob.rollout.rollout_records import Rollout, SampleRequest
from plumbob.rollout.samplers.sampler import NUM_HELD
from plumbob.trainers.forgetting.retention import nats_per_token, perplexity
from plumbob.trainers.learner.learner_protocol import Learners
from plumbob.trainers.metrics.stage_result import StageResult
from plumbob.trainers.online.collection.collector import rows_of, score_requests
from plumbob.trainers.online.objective import TrajectoryBatch, forward_actions
from plumbob.trainers.online.trajectories import collate_rollouts

GoldReward = Callable[[str, str], float]
"""(prompt, response) -> how good it is; stands outside all that was trained."""

EVALUATION_STEP = -1
"""Stands where the step does in the seeds of sampled responses."""


def prepare(run: EvalRun) -> PreparedStage:
    """Read and check the input. Raises UserError; starts and writes nothing."""
    data = prepare_eval(run)
    return PreparedStage(
        data.notes, lambda context: run_eval(run, data, context.session), data.rows, lambda: _sizes(run, data)
    )


def _sizes(run: EvalRun, data: EvalInput) -> InputSizes:
    """Of the prompts that are asked."""
    if data.policy is None:
        return InputSizes()
    ids = [prompt.ids for prompt in data.policy.prompts]
    return InputSizes((tokens_of_prompts("data.prompts", ids, (), run.data.max_prompt_tokens),))


def run_eval(run: EvalRun, data: EvalInput, session: Session) -> StageResult:
    """The metrics of `plumbob eval`."""
    scorer: Scorer = session.start_scorers(scorer_of(run))
    metrics: Metrics = {}
    if data.pairs:
        of_pairs = scorer if data.pairs_scored is None else FormScorer(scorer, data.pairs_scored)
        metrics |= measure_reward_model(of_pairs, data.pairs)
    policy, settings = data.policy, run.policy
    if policy is not None and policy.scored is not None:
        scorer = FormScorer(scorer, policy.scored)
    if policy is None or settings is None:
        return StageResult(metrics, data.notes or None)
    measured = measure_policies(run, policy, session, scorer, policy.beside or {ALONE: policy.opened}, None)
    if run.evaluation.responses_file is not None:
        path = Path(run.evaluation.responses_file)
        metrics[RESPONSES_DIGEST] = write_responses(path, measured, run.evaluation.right_from)
    metrics[BASELINE] = None if policy.baseline is None else settings.baseline or policy.baseline.source.base
    perplexities = _perplexities(run, policy, session)
    if BASELINE in perplexities:
        metrics["baseline_perplexity"] = perplexities[BASELINE]
    policies = {
        name: _metrics_of(run, name, measured) | ({"perplexity": perplexities[name]} if name in perplexities else {})
        for name in policy.beside or (ALONE,)
    }
    opened = policy.beside or {ALONE: policy.opened}
    of_library = {name: (opened[name], found) for name, found in policies.items()}
    notes = data.notes + note_scores(run, policy.prompts, metrics[BASELINE], of_library)
    if not policy.beside:
        return StageResult(policies[ALONE] | metrics, notes or None)
    return StageResult(metrics | {"win_rates": win_rates(measured)}, notes or None, policies)


def _metrics_of(run: EvalRun, name: str, measured: Mapping[str, Responses]) -> Metrics:
    """A policy's own, and those against the baseline where there is one."""
    policy, baseline = measured[name], measured.get(BASELINE)
    metrics = response_metrics(policy) if baseline is None else policy_metrics(policy, baseline)
    return metrics | pass_metrics(policy, run.evaluation.pass_at, run.evaluation.right_from)


def _perplexities(run: EvalRun, policy: EvaluatedPolicy, session: Session) -> Metrics:
    """Policy, or the baseline -> its perplexity on the text; nothing where there is no text.

    Learners compute as the baseline of an evaluation: each policy is that in turn.
    """
    if policy.text is None or run.policy is None:
        return {}
    refs = {name: opened.ref.name for name, opened in (policy.beside or {ALONE: policy.opened}).items()}
    if policy.baseline is not None:
        refs[BASELINE] = run.policy.baseline or policy.baseline.source.base
    found = {}
    for name, model in refs.items():
        as_baseline = run.model_copy(update={"policy": run.policy.model_copy(update={"baseline": model})})
        found[name] = perplexity(nats_per_token(policy.text, session.start_learners(as_baseline), "reference"))
    return found


def measure_reward_model(scorer: Scorer, pairs: Sequence[Ranking]) -> Metrics:
    """Accuracy on pairs with its interval, and how well sigmoid(margin) tells the probability of being preferred.

    An ensemble is measured by its total, which is no logit: its margins give no probability.
    """
    chosen, rejected = (
        scorer.score([ScoreRequest(pair.prompt, pair.responses[side]) for pair in pairs]) for side in (0, 1)
    )
    is_raw = "raw" in chosen[0].parts
    margins = np.array(
        [
            good.parts["raw"] - bad.parts["raw"] if is_raw else good.total - bad.total
            for good, bad in zip(chosen, rejected, strict=True)
        ]
    )
    accuracy = proportion_interval(float(((np.sign(margins) + 1) / 2).sum()), len(margins))
    metrics: Metrics = {
        "accuracy": accuracy.mean,
        "accuracy_ci95": accuracy.ci95,
        "num_pairs": len(pairs),
        "mean_margin": float(margins.mean()),
    }
    num_failed = sum(bool(score.failures) for score in (*chosen, *rejected))
    if num_failed:
        metrics["reward_failures"] = num_failed
    if is_raw:
        metrics["calibration_error"] = calibration_error(margins)
    return metrics | annotator_metrics(pairs, list(margins[:, None])) | agreement_metrics(pairs)


class PolicySampling:
    """Asks one policy after another the same prompts with the same seeds, and has the responses scored."""

    def __init__(self, run: EvalRun, policy: EvaluatedPolicy, session: Session, scorer: Scorer) -> None:
        self._serving, self._scorer = ModelSampling(session, rollout_of(run)), scorer
        self._rows = rows_of(policy.prompts)
        self._shape = (len(policy.prompts), run.evaluation.samples_per_prompt)
        has_environment = run.rollout.environment is not None
        self._requests = sample_requests(
            policy.prompts, self._shape[1], EVALUATION_STEP, run.seed, with_rows=has_environment
        )

    def responses(self, opened: OpenedPolicy, gold_reward: GoldReward | None) -> Responses:
        return self._scored(self._serving.serve(opened).sample(self._requests), gold_reward)

    def responses_beside(
        self, adapters: Mapping[str, OpenedPolicy], gold_reward: GoldReward | None
    ) -> dict[str, Responses]:
        """Of adapters on one base, which an engine holds at once: it makes their responses to a prompt together."""
        names, found = list(adapters), {}
        for held in (names[start : start + NUM_HELD] for start in range(0, len(names), NUM_HELD)):
            group, versions = self._serving.load_adapters([adapters[name] for name in held])
            rollouts = group.sample([_of_version(one, version) for one in self._requests for version in versions])
            for index, name in enumerate(held):
                own = zip(rollouts[index :: len(held)], self._requests, strict=True)
                found[name] = self._scored([replace(rollout, request=request) for rollout, request in own], gold_reward)
        return found

    def _scored(self, rollouts: Sequence[Rollout], gold_reward: GoldReward | None) -> Responses:
        asked = score_requests(rollouts, self._rows)
        found = self._scorer.score(asked)
        scores = np.array([score.total for score in found]).reshape(self._shape)
        gold = None
        if gold_reward is not None:
            gold = np.array([gold_reward(one.prompt, one.response) for one in asked]).reshape(self._shape)
        num_failed = sum(bool(score.failures) for score in found)
        parts = tuple(score.parts for score in found)
        return Responses(tuple(rollouts), scores, gold, num_failed=num_failed, parts=parts)


def _of_version(request: SampleRequest, version: int) -> SampleRequest:
    """The same prompt and seed for one of several adapters, told from those of the others."""
    return replace(request, version=version, group_id=f"{request.group_id}/{version}")


def measure_policies(
    run: EvalRun,
    policy: EvaluatedPolicy,
    session: Session,
    scorer: Scorer,
    policies: Mapping[str, OpenedPolicy],
    gold_reward: GoldReward | None,
) -> dict[str, Responses]:
    """Every policy on the same prompts with the same seeds; the baseline, where there is one, is under "baseline".

    Beside a baseline they are ComparedResponses. Adapters that one engine holds at once are sampled from together.
    """
    sampling = PolicySampling(run, policy, session, scorer)
    learners = None if policy.baseline is None else session.start_learners(run)
    found: dict[str, Responses] = {}
    if policy.baseline is not None:
        found[BASELINE] = sampling.responses(policy.baseline, gold_reward)
    held = {name: opened for name, opened in policies.items() if name in policy.held}
    found |= sampling.responses_beside(held, gold_reward)
    found |= {name: sampling.responses(one, gold_reward) for name, one in policies.items() if name not in held}
    if learners is not None:
        found = {name: _compared(one, run, policy, learners) for name, one in found.items()}
    order = ([BASELINE] if BASELINE in found else []) + list(policies)
    return {name: found[name] for name in order}


def _compared(found: Responses, run: EvalRun, policy: EvaluatedPolicy, learners: Learners) -> ComparedResponses:
    kl = kl_from_baseline(found.rollouts, policy.pad_id, learners, run.rollout.temperature)
    return ComparedResponses(
        found.rollouts,
        found.scores,
        found.gold,
        kl.reshape(found.scores.shape),
        num_failed=found.num_failed,
        parts=found.parts,
    )


def kl_from_baseline(
    rollouts: Sequence[Rollout], pad_id: int, learners: Learners, temperature: float
) -> NDArray[np.float64]:
    """log pi - log pi_baseline of each whole response, the policy's side as the sampler gave it. [responses], nats."""
    trajectories = collate_rollouts(rollouts, pad_id)
    batch = TrajectoryBatch(trajectories.input_ids, trajectories.attention_mask, trajectories.action_mask, temperature)
    baseline = learners.compute(batch, "reference", forward_actions)
    difference = np.where(trajectories.action_mask.numpy(), trajectories.sampler_logprobs.numpy() - baseline, 0.0)
    return difference.sum(axis=1, dtype=np.float64)
