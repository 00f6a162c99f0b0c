"""The stage of online alignment: rollout workers, scorers and learners are started concurrently, then the loop."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from plumbob.cluster.session import Session
from plumbob.cluster.worker_groups import SamplersApart, ScorerHere
from plumbob.configs.checks.input_checks import has_environment_part
from plumbob.configs.checks.objective_checks import check_gold_reward
from plumbob.configs.runs import OnlineRun
from plumbob.configs.settings.rewards import RuleReward
from plumbob.core.disk_errors import replace_text
from plumbob.data.encoded_files import by_setting
from plumbob.driver.input_sizes.learner_rows import LearnerRows
from plumbob.driver.input_sizes.token_lengths import tokens_of_prompts
from plumbob.driver.stages.concurrent_start import run_concurrently
from plumbob.driver.stages.model_sampling import sampler_spec
from plumbob.driver.stages.stage import InputSizes, PreparedStage, StageContext, training_stage
from plumbob.models.loading import OpenedPolicy
from plumbob.reward.bias.bias_probe import BiasProbe
from plumbob.reward.bias.group_differences import by_contrast
from plumbob.reward.gold_reward import SecondRewardScorer
from plumbob.reward.open_scorer import check_reward, open_scorer
from plumbob.reward.reward_models.reward_prompts import FormScorer, RewardPrompts
from plumbob.reward.scorer import Scorer, Unrewarded
from plumbob.reward.services.judge_answers import ANSWERS_FOLDER, judge_costs
from plumbob.rollout.samplers.open_sampler import serving_notes, serving_of
from plumbob.trainers.learner.checkpoint import Checkpoints
from plumbob.trainers.metrics.metrics_log import MetricsLog
from plumbob.trainers.metrics.stage_result import StageResult
from plumbob.trainers.online.monitors import monitor_result
from plumbob.trainers.online.online_input import OnlineInput, open_trainable_policy, prepare_online
from plumbob.trainers.online.online_loop import OnlineState, OnlineWorkers, run_online, run_online_asynchronous
from plumbob.trainers.online.recorder import OnlineRecorder, online_summary, steps_on_disk

NO_SECOND_REWARD_MODEL = (
    "over-optimisation is not watched: there is no gold_reward.model, a reward model that nothing learns from"
)

UNUSED_ENVIRONMENT = (
    "nothing learns from what the environment gives, which is kept in the journal: "
    "reward.parts has no part of kind environment"
)

SAMPLES_FROM_STORED = (
    "rollout workers sample from the weights as they are stored, and the learners compute with them in 4 bits: the "
    "first step measures how far apart the two are (sampler_gap_mean), online.importance corrects for it, and past "
    "online.monitors.sampler_gap.bound the run says so, or ends"
)

BIAS_FILE = "reward_bias.json"
"""Of the stage's folder: its reward's bias before its first step, as its summary has it."""

Rule = Callable[[str, str], float]
"""(prompt, response) -> how good the response is."""


def prepare(run: OnlineRun, rule: Rule | None = None) -> PreparedStage:
    """Read and check the input. Raises UserError; starts and writes nothing.

    `rule` is the gold reward, where the run names none.
    """
    has_gold_reward = run.gold_reward is not None or rule is not None
    check_gold_reward(run.online, has_gold_reward)
    rewards = [group.reward for group in (run.reward, run.gold_reward) if group is not None]
    for reward in rewards:
        check_reward(reward)
    opened = open_trainable_policy(run)
    scored = [RewardPrompts(reward) for reward in rewards]
    data = prepare_online(run, opened, scored)
    probe = None if run.bias is None or run.reward is None else BiasProbe(run.bias, run.reward.reward)
    loop = run_online_asynchronous if run.online.max_staleness else run_online

    def train(context: StageContext, log: MetricsLog) -> StageResult:
        workers = _start(context, run, opened, rule, scored)
        bias = _bias(context, run, probe)
        checkpoints = Checkpoints(context.folder / "checkpoints", run.online.keep_checkpoints, log.saved)
        state = OnlineState(run, data)
        context.control.ledger = state.ledger
        newest = checkpoints.newest(partial(context.listener.notify, context.stage))
        if newest is not None:
            workers.learners.load(newest.folder)
            state.restore(newest)
        elif data.retained is not None:
            state.retained = data.retained.nats_per_token(workers.learners)
        log.truncate_after(state.step)
        with OnlineRecorder(context.stage, run.online, context.folder, log, context.listener) as recorder:
            loop(run, data.pad_id, state, workers, checkpoints, recorder)
        workers.learners.export(context.folder / "policy")
        result = _result(context, run, data, state, workers)
        serving = serving_of(run.rollout, opened, run.policy.tuning)
        return result.with_metrics({"rollout_adapter": serving} | bias)

    is_watched = has_gold_reward or run.reward is None
    notes = data.notes if is_watched else (*data.notes, NO_SECOND_REWARD_MODEL)
    if run.rollout.environment is not None and not has_environment_part(run.reward):
        notes = (*notes, UNUSED_ENVIRONMENT)
    notes += serving_notes(run.rollout, opened, run.policy.tuning)
    notes += () if probe is None else (probe.note(),)
    if run.rollout.quantised_base == "stored":
        notes = (*notes, SAMPLES_FROM_STORED)
    return training_stage(notes, train, data.rows, lambda: _sizes(run, data))


def _sizes(run: OnlineRun, data: OnlineInput) -> InputSizes:
    """Of the responses, at most: how long they become is not known."""
    inputs = tuple(
        tokens_of_prompts(setting, [prompt.ids for prompt in prompts], left_out, run.data.max_prompt_tokens)
        for (setting, prompts), left_out in zip(
            by_setting(run.data, data.train, data.mixture), data.dropped, strict=True
        )
    )
    longest = max(len(prompt.ids) for prompt in data.train)
    return InputSizes(inputs, {run.stage: LearnerRows(longest + run.rollout.max_tokens)})


def _start(
    context: StageContext, run: OnlineRun, opened: OpenedPolicy, rule: Rule | None, scored: Sequence[RewardPrompts]
) -> OnlineWorkers:
    session = context.session
    spec = sampler_spec(opened, run.rollout, run.policy.tuning)
    return OnlineWorkers(
        *run_concurrently(
            partial(context.listener.notify, context.stage),
            lambda: SamplersApart(session.start_samplers(spec, run.rollout)),
            lambda: _scorer(session, run, rule, scored, context.folder / ANSWERS_FOLDER),
            lambda: session.start_learners(run),
        )
    )


def _scorer(
    session: Session, run: OnlineRun, rule: Rule | None, scored: Sequence[RewardPrompts], answers: Path
) -> Scorer:
    """The run's scorer, with its gold reward where there is one; each reads the prompts in its own form."""
    scorer: Scorer = Unrewarded()
    if run.reward is not None:
        scorer = FormScorer(session.start_scorers(run.reward, answers), scored[0])
    if run.gold_reward is not None:
        return SecondRewardScorer(scorer, FormScorer(session.start_scorers(run.gold_reward, answers), scored[-1]))
    if rule is None:
        return scorer
    own = ScorerHere(open_scorer(RuleReward(rule), "cpu"), session.cluster.call_timeout_s)
    return SecondRewardScorer(scorer, own)


def _bias(context: StageContext, run: OnlineRun, probe: BiasProbe | None) -> dict[str, Any]:
    """The reward's, by the scorers that there are already, measured once a stage. UserError where it is refused."""
    if probe is None or run.reward is None:
        return {}
    kept = context.folder / BIAS_FILE
    if kept.exists():
        return {"reward_bias": json.loads(kept.read_text(encoding="utf-8"))}
    found = probe.checked(context.session.start_scorers(run.reward, context.folder / ANSWERS_FOLDER))
    warning = found.sentence()
    if warning is not None:
        context.listener.notify(context.stage, warning)
    differences = by_contrast(found.differences)
    replace_text(kept, json.dumps(differences, indent=2) + "\n")
    return {"reward_bias": differences}


def _result(
    context: StageContext, run: OnlineRun, data: OnlineInput, state: OnlineState, workers: OnlineWorkers
) -> StageResult:
    steps = steps_on_disk(context.folder)
    result = monitor_result(steps, run.online).with_metrics(online_summary(steps))
    costs = judge_costs(context.folder / ANSWERS_FOLDER)
    if costs:
        result = result.with_metrics({"judge_costs": costs})
    if data.retained is None or state.retained is None:
        return result
    return data.retained.added_to(result, state.retained, workers.learners)
