"""Measures reward models on pairs, and policies on prompts against a baseline."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plumbob.cluster.session import Session
from plumbob.configs.runs import EvalRun
from plumbob.core.statistics import Interval, calibration_error, compare, mean_interval, proportion_interval
from plumbob.data.records import Ranking
from plumbob.driver.stages.evaluation_input import EvalInput, EvaluatedPolicy, prepare_eval, scorer_of
from plumbob.driver.stages.model_sampling import ModelSampling, rollout_of
from plumbob.driver.stages.stage import PreparedStage
from plumbob.models.loading import OpenedPolicy
from plumbob.reward.agreement import agreement_metrics, annotator_metrics
from plumbob.reward.reward_models.reward_prompts import FormScorer
from plumbob.reward.scorer import Scorer, ScoreRequest
from plumbob.rollout.requests import sample_requests
from plumbob.rollout.rollout_records import Rollout, SampleRequest
from plumbob.rollout.samplers.sampler import NUM_HELD
from plumbob.trainers.learner.learner_protocol import Learners
from plumbob.trainers.metrics.stage_result import StageResult
from plumbob.trainers.online.collector import rows_of, score_requests
from plumbob.trainers.online.objective import TrajectoryBatch, forward_actions
from plumbob.trainers.online.trajectories import collate_rollouts

Metrics = dict[str, Any]
GoldReward = Callable[[str, str], float]
"""(prompt, response) -> how good it is; stands outside all that was trained."""

EVALUATION_STEP = -1
"""Stands where the step does in the seeds of sampled responses."""


@dataclass(frozen=True)
class Responses:
    """One policy's responses. Arrays are [prompts, samples].

    Attributes:
        rollouts: prompt by prompt, in order.
        scores: the reward model's.
        gold: of the gold reward; None where there is none.
        num_failed: those that a part of the reward could not score, and gave what was set for that.
    """

    rollouts: tuple[Rollout, ...]
    scores: NDArray[np.float64]
    gold: NDArray[np.float64] | None
    num_failed: int = field(default=0, kw_only=True)


@dataclass(frozen=True)
class ComparedResponses(Responses):
    """Beside a baseline.

    Attributes:
        kl: log pi - log pi_baseline of each whole response, in nats; its mean is the KL from the baseline.
    """

    kl: NDArray[np.float64]


def prepare(run: EvalRun) -> PreparedStage:
    """Read and check the input. Raises UserError; starts and writes nothing."""
    data = prepare_eval(run)
    return PreparedStage(data.notes, lambda context: run_eval(run, data, context.session), data.rows)


def run_eval(run: EvalRun, data: EvalInput, session: Session) -> StageResult:
    """The metrics of `plumbob eval`."""
    scorer: Scorer = session.start_scorers(scorer_of(run))
    metrics: Metrics = {}
    if data.pairs:
        metrics |= measure_reward_model(scorer, data.pairs)
    policy, settings = data.policy, run.policy
    if policy is not None and policy.scored is not None:
        scorer = FormScorer(scorer, policy.scored)
    if policy is None or settings is None:
        return StageResult(metrics, data.notes or None)
    if policy.baseline is None:
        responses = PolicySampling(run, policy, session, scorer).responses(policy.opened, None)
        metrics |= response_metrics(responses) | {"baseline": None}
    elif policy.beside:
        metrics["baseline"] = settings.baseline or policy.baseline.source.base
        baseline, measured = measure_beside(run, policy, session, scorer)
        policies = {name: policy_metrics(one, baseline) for name, one in measured.items()}
        return StageResult(metrics, data.notes or None, policies)
    else:
        measured = measure_policies(run, policy, session, scorer, {"policy": policy.opened}, None)
        metrics |= policy_metrics(measured["policy"], measured["baseline"])
        metrics["baseline"] = settings.baseline or policy.baseline.source.base
    return StageResult(metrics, data.notes or None)


def measure_reward_model(scorer: Scorer, pairs: Sequence[Ranking]) -> Metrics:
    """Accuracy on pairs with its interval, and how well sigmoid(margin) tells the probability of being preferred.

    An ensemble is measured by its total, which is no logit: of its margins no probability can be told.
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

    def responses_beside(self, adapters: Mapping[str, OpenedPolicy]) -> dict[str, Responses]:
        """Of adapters on one base, which an engine holds at once: it makes their responses to a prompt together."""
        names, found = list(adapters), {}
        for held in (names[start : start + NUM_HELD] for start in range(0, len(names), NUM_HELD)):
            group, versions = self._serving.hold([adapters[name] for name in held])
            rollouts = group.sample([_of_version(one, version) for one in self._requests for version in versions])
            for index, name in enumerate(held):
                own = zip(rollouts[index :: len(held)], self._requests, strict=True)
                found[name] = self._scored([replace(rollout, request=request) for rollout, request in own], None)
        return found

    def _scored(self, rollouts: Sequence[Rollout], gold_reward: GoldReward | None) -> Responses:
        asked = score_requests(rollouts, self._rows)
        found = self._scorer.score(asked)
        scores = np.array([score.total for score in found]).reshape(self._shape)
        gold = None
        if gold_reward is not None:
            gold = np.array([gold_reward(one.prompt, one.response) for one in asked]).reshape(self._shape)
        return Responses(tuple(rollouts), scores, gold, num_failed=sum(bool(score.failures) for score in found))


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
) -> dict[str, ComparedResponses]:
    """Every policy and the baseline on the same prompts with the same seeds; the baseline is under "baseline"."""
    assert policy.baseline is not None, "there is nothing to compare with"
    sampling = PolicySampling(run, policy, session, scorer)
    learners = session.start_learners(run)
    return {
        name: _compared(sampling.responses(opened, gold_reward), run, policy, learners)
        for name, opened in {"baseline": policy.baseline, **policies}.items()
    }


def measure_beside(
    run: EvalRun, policy: EvaluatedPolicy, session: Session, scorer: Scorer
) -> tuple[ComparedResponses, dict[str, ComparedResponses]]:
    """The baseline, and each of the adapters that are held at once, on the same prompts with the same seeds."""
    assert policy.baseline is not None, "an adapter has a base"
    sampling = PolicySampling(run, policy, session, scorer)
    learners = session.start_learners(run)
    baseline = _compared(sampling.responses(policy.baseline, None), run, policy, learners)
    found = sampling.responses_beside(policy.beside)
    return baseline, {name: _compared(one, run, policy, learners) for name, one in found.items()}


def _compared(found: Responses, run: EvalRun, policy: EvaluatedPolicy, learners: Learners) -> ComparedResponses:
    kl = kl_from_baseline(found.rollouts, policy.pad_id, learners, run.rollout.temperature)
    return ComparedResponses(
        found.rollouts, found.scores, found.gold, kl.reshape(found.scores.shape), num_failed=found.num_failed
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


def response_metrics(policy: Responses) -> Metrics:
    """What a policy's responses are by themselves, whatever they are compared with."""
    metrics: Metrics = {
        "reward": float(policy.scores.mean()),
        "answer_tokens": float(np.mean([rollout.action_mask.sum() for rollout in policy.rollouts])),
        "missing_eos_share": float(np.mean([rollout.finish_reason != "stop" for rollout in policy.rollouts])),
    }
    if policy.num_failed:
        metrics["reward_failures"] = policy.num_failed
    return metrics if policy.gold is None else metrics | {"gold_score": float(policy.gold.mean())}


def policy_metrics(policy: ComparedResponses, baseline: ComparedResponses) -> Metrics:
    """A policy's metrics, those against the baseline with their 95% intervals; the gold reward's where there is one."""
    reward = compare(policy.scores, baseline.scores)
    metrics = response_metrics(policy) | {
        "reward_gain": reward.gain.mean,
        "reward_gain_ci95": reward.gain.ci95,
        "win_rate": reward.win_rate.mean,
        "win_rate_ci95": reward.win_rate.ci95,
        "kl": _mean(policy.kl).mean,
        "kl_ci95": _mean(policy.kl).ci95,
        "num_prompts": len(policy.scores),
    }
    if policy.gold is not None and baseline.gold is not None:
        gold = compare(policy.gold, baseline.gold)
        metrics |= {
            "gold_gain": gold.gain.mean,
            "gold_gain_ci95": gold.gain.ci95,
            "win_rate": gold.win_rate.mean,
            "win_rate_ci95": gold.win_rate.ci95,
            "reward_win_rate": reward.win_rate.mean,
        }
    return metrics


def write_samples(path: Path, measured: Mapping[str, ComparedResponses], num_shown: int) -> None:
    """`samples.jsonl`: the first prompts with every policy's response side by side."""
    first = next(iter(measured.values()))
    per_prompt = first.scores.shape[1]
    with path.open("w") as file:
        for prompt in range(min(num_shown, len(first.scores))):
            responses = {}
            for name, policy in measured.items():
                responses[name] = {
                    "text": policy.rollouts[prompt * per_prompt].response,
                    "reward": float(policy.scores[prompt, 0]),
                }
                if policy.gold is not None:
                    responses[name]["gold"] = float(policy.gold[prompt, 0])
            text = first.rollouts[prompt * per_prompt].request.prompt
            file.write(json.dumps({"prompt": text, "answers": responses}, ensure_ascii=False) + "\n")


def _mean(values: NDArray[np.float64]) -> Interval:
    """Over prompts, the samples of one averaged."""
    return mean_interval(values.mean(axis=1))
