"""Measures reward models on pairs, and policies on prompts against a baseline."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plumbob.cluster.session import Session
from plumbob.configs.runs import EvalRun
from plumbob.configs.settings.rewards import ScorerSettings
from plumbob.core.statistics import Interval, calibration_error, compare, mean_interval, proportion_interval
from plumbob.data.chat import Render, chat_renderer, plain_dialogue
from plumbob.data.length_checks import check_context
from plumbob.data.prompts import EncodedPrompt, encode_prompts
from plumbob.data.reading.readers import read_annotated_pairs, read_prompts
from plumbob.data.records import Ranking
from plumbob.driver.stages.model_sampling import ModelSampling
from plumbob.models.loading import ModelSource, baseline_source, context_tokens, load_tokenizer, resolve_model
from plumbob.models.tuning.targets import check_served
from plumbob.reward.agreement import agreement_metrics, annotator_metrics
from plumbob.reward.open_scorer import check_reward
from plumbob.reward.scorer import Scorer
from plumbob.rollout.requests import sample_requests
from plumbob.rollout.rollout_records import Rollout
from plumbob.trainers.learner.learner_protocol import Learners
from plumbob.trainers.online.objective import TrajectoryBatch, forward_actions
from plumbob.trainers.online.trajectories import collate_rollouts

Figures = dict[str, Any]
Judge = Callable[[str, str], float]
"""(prompt, response) -> how good it is; stands outside all that was trained."""

EVALUATION_STEP = -1
"""Stands where the step does in the seeds of sampled responses."""


@dataclass(frozen=True)
class EvalInput:
    """Pairs for the reward model, encoded prompts for the policy; either may be empty."""

    pairs: tuple[Ranking, ...]
    prompts: tuple[EncodedPrompt, ...]
    pad_id: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Measured:
    """One policy's responses. Arrays are [prompts, samples].

    Attributes:
        rollouts: prompt by prompt, in order.
        scores: the reward model's.
        gold: the judge's; None where there is none.
        kl: log pi - log pi_baseline of each whole response, in nats; its mean is the KL from the baseline.
    """

    rollouts: tuple[Rollout, ...]
    scores: NDArray[np.float64]
    gold: NDArray[np.float64] | None
    kl: NDArray[np.float64]


def prepare_eval(run: EvalRun) -> EvalInput:
    """Read and check pairs and prompts. Raises UserError; starts and writes nothing."""
    check_reward(_scorer(run).reward)
    render: Render = plain_dialogue
    prompts: tuple[EncodedPrompt, ...] = ()
    pairs: tuple[Ranking, ...] = ()
    notes: tuple[str, ...] = ()
    pad_id = 0
    if run.policy is not None:
        source = resolve_model(run.policy.model, "policy.model")
        tokenizer = load_tokenizer(source, "policy.model", run.policy.trust_remote_code)
        render, pad_id = chat_renderer(tokenizer), tokenizer.pad_token_id
        engine, trusted = run.rollout.engine, run.policy.trust_remote_code
        check_served(source, "policy.model", trusted, engine)
        check_served(baseline_source(run.policy), "policy.baseline", trusted, engine)
    if run.policy is not None and run.data.prompts is not None:
        read = read_prompts(run.data.prompts, run.data, render)
        encoded = encode_prompts(tokenizer, read.records, run.data.max_prompt_tokens)
        order = np.random.default_rng(run.seed).permutation(len(encoded.records))[: run.evaluation.num_prompts]
        prompts = tuple(encoded.records[place] for place in order)
        longest = max(len(prompt.ids) for prompt in prompts)
        check_context(
            longest, run.rollout.max_tokens, context_tokens(source, "policy.model", run.policy.trust_remote_code)
        )
        notes += read.notes + encoded.notes
    if run.data.pairs is not None:
        read_of_pairs = read_annotated_pairs(run.data.pairs, run.data, render, use_margin=False)
        pairs, notes = read_of_pairs.records, notes + read_of_pairs.notes
    return EvalInput(pairs, prompts, pad_id, notes)


def run_eval(run: EvalRun, data: EvalInput, session: Session) -> Figures:
    """The figures of `plumbob eval`."""
    scorer = session.scorers(_scorer(run))
    figures: Figures = {"notes": list(data.notes)} if data.notes else {}
    if data.pairs:
        figures |= measure_reward_model(scorer, data.pairs)
    if run.policy is not None:
        source = resolve_model(run.policy.model, "policy.model")
        measured = measure_policies(run, data, session, scorer, {"policy": source}, None)
        if run.policy.baseline is None and source.adapter is None:
            # A full model has no base of its own to be compared with.
            return figures | response_figures(measured["policy"]) | {"baseline": None}
        figures |= policy_figures(measured["policy"], measured["baseline"])
        figures["baseline"] = run.policy.baseline or source.base
    return figures


def _scorer(run: EvalRun) -> ScorerSettings:
    """The run's scorer; pairs alone are compared by one model's raw scores, which need no calibration."""
    return run.reward.uncalibrated() if run.policy is None else run.reward


def measure_reward_model(scorer: Scorer, pairs: Sequence[Ranking]) -> Figures:
    """Accuracy on pairs with its interval, and how well sigmoid(margin) tells the probability of being preferred.

    An ensemble is measured by its total, which is no logit: of its margins no probability can be told.
    """
    chosen, rejected = (scorer.score([(pair.prompt, pair.responses[place]) for pair in pairs]) for place in (0, 1))
    is_raw = "raw" in chosen[0].parts
    margins = np.array(
        [
            good.parts["raw"] - bad.parts["raw"] if is_raw else good.total - bad.total
            for good, bad in zip(chosen, rejected, strict=True)
        ]
    )
    accuracy = proportion_interval(float(((np.sign(margins) + 1) / 2).sum()), len(margins))
    figures: Figures = {
        "accuracy": accuracy.mean,
        "accuracy_ci95": accuracy.ci95,
        "num_pairs": len(pairs),
        "mean_margin": float(margins.mean()),
    }
    if is_raw:
        figures["calibration_error"] = calibration_error(margins)
    return figures | annotator_metrics(pairs, list(margins[:, None])) | agreement_metrics(pairs)


def measure_policies(
    run: EvalRun,
    data: EvalInput,
    session: Session,
    scorer: Scorer,
    policies: Mapping[str, ModelSource],
    judge: Judge | None,
) -> dict[str, Measured]:
    """Every policy and the baseline on the same prompts with the same seeds; the baseline is under "baseline"."""
    assert run.policy is not None, "prompts are answered by a policy"
    serving = ModelSampling(session, run.rollout, run.policy.dtype, run.policy.trust_remote_code)
    requests = sample_requests(data.prompts, run.evaluation.samples_per_prompt, EVALUATION_STEP, run.seed)
    learners = session.learners(run)
    shape = (len(data.prompts), run.evaluation.samples_per_prompt)
    measured = {}
    for name, source in {"baseline": baseline_source(run.policy), **policies}.items():
        rollouts = serving.of(source).sample(requests)
        texts = [(rollout.request.prompt, rollout.response) for rollout in rollouts]
        scores = np.array([score.total for score in scorer.score(texts)]).reshape(shape)
        gold = None if judge is None else np.array([judge(*text) for text in texts]).reshape(shape)
        kl = kl_from_baseline(rollouts, data.pad_id, learners, run.rollout.temperature).reshape(shape)
        measured[name] = Measured(tuple(rollouts), scores, gold, kl)
    return measured


def kl_from_baseline(
    rollouts: Sequence[Rollout], pad_id: int, learners: Learners, temperature: float
) -> NDArray[np.float64]:
    """log pi - log pi_baseline of each whole response, the policy's side as the sampler gave it. [responses], nats."""
    trajectories = collate_rollouts(rollouts, pad_id)
    batch = TrajectoryBatch(trajectories.input_ids, trajectories.attention_mask, trajectories.action_mask, temperature)
    baseline = learners.compute(batch, "reference", forward_actions)
    difference = np.where(trajectories.action_mask.numpy(), trajectories.sampler_logprobs.numpy() - baseline, 0.0)
    return difference.sum(axis=1, dtype=np.float64)


def response_figures(policy: Measured) -> Figures:
    """What a policy's responses are by themselves, whatever they are compared with."""
    figures: Figures = {
        "reward": float(policy.scores.mean()),
        "answer_tokens": float(np.mean([len(rollout.token_ids) for rollout in policy.rollouts])),
        "missing_eos_share": float(np.mean([rollout.finish_reason != "stop" for rollout in policy.rollouts])),
    }
    return figures if policy.gold is None else figures | {"gold_score": float(policy.gold.mean())}


def policy_figures(policy: Measured, baseline: Measured) -> Figures:
    """A policy's figures, those against the baseline with their 95% intervals; the judge's where there is one."""
    reward = compare(policy.scores, baseline.scores)
    figures = response_figures(policy) | {
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
        figures |= {
            "gold_gain": gold.gain.mean,
            "gold_gain_ci95": gold.gain.ci95,
            "win_rate": gold.win_rate.mean,
            "win_rate_ci95": gold.win_rate.ci95,
            "reward_win_rate": reward.win_rate.mean,
        }
    return figures


def write_samples(path: Path, measured: Mapping[str, Measured], num_shown: int) -> None:
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
