"""One stage on a session: its input read first, then its workers, its loop, and the figures that it ends with."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, assert_never

from plumbob.cluster.failures import LearnersLost
from plumbob.cluster.session import Session
from plumbob.configs.runs import (
    DpoRun,
    KtoRun,
    PpoRun,
    PretrainEncoderRun,
    PretrainRun,
    RewardRun,
    SftRun,
    check_judged,
)
from plumbob.configs.settings.models import NewBertSettings, NewLlamaSettings
from plumbob.configs.settings.rewards import RuleReward
from plumbob.data.chat import Render, chat_renderer, plain_dialogue
from plumbob.driver.peak_memory import PeakMemory
from plumbob.driver.run_control import RunControl
from plumbob.driver.stages.concurrent_start import run_concurrently
from plumbob.driver.stages.model_sampling import ModelSampling, sampler_spec
from plumbob.models.loading import load_tokenizer, resolve_model, served_rank
from plumbob.models.masked_lm import load_encoder_tokenizer
from plumbob.reward.open_scorer import check_reward, open_scorer
from plumbob.reward.scorer import Scorer
from plumbob.reward.second_judge import SecondRewardScorer
from plumbob.rollout.requests import sample_requests
from plumbob.trainers.learner.checkpoint import Checkpoints
from plumbob.trainers.metrics.metrics_log import MetricsLog
from plumbob.trainers.metrics.sinks.jsonl import read_metrics
from plumbob.trainers.metrics.step_record import Listener
from plumbob.trainers.offline.dpo import prepare_dpo, run_dpo
from plumbob.trainers.offline.kto import prepare_kto, run_kto
from plumbob.trainers.offline.pretrain import encode_corpus, read_corpus, run_pretrain, run_pretrain_encoder
from plumbob.trainers.offline.reward_calibration import KEY as CALIBRATION_KEY
from plumbob.trainers.offline.reward_calibration import (
    SAMPLES_PER_PROMPT,
    calibrate_on_records,
    calibrate_on_rollouts,
    prepare_calibration,
)
from plumbob.trainers.offline.reward_model import prepare_reward, run_reward
from plumbob.trainers.offline.sft import prepare_sft, run_sft
from plumbob.trainers.online.monitors import monitor_figures
from plumbob.trainers.online.ppo import PpoActors, PpoState, prepare_ppo, run_ppo, run_ppo_asynchronous
from plumbob.trainers.online.recorder import PpoRecorder, ppo_figures

CALIBRATION_STEP = -2
"""Stands where the step does in the seeds of responses that a reward model is calibrated on."""

StageRun = PretrainRun | PretrainEncoderRun | SftRun | RewardRun | DpoRun | KtoRun | PpoRun
"""The kinds of run that are one stage of training."""

Figures = dict[str, Any]


@dataclass(frozen=True)
class StageContext:
    """What every stage is given.

    Attributes:
        folder: where the stage's metrics, checkpoints and result go.
    """

    session: Session
    control: RunControl
    folder: Path
    listener: Listener
    memory: PeakMemory


UNJUDGED = "over-optimisation is not watched: there is no judge.model, a reward model that nothing learns from"
Rule = Callable[[str, str], float]
"""(prompt, response) -> how good the response is."""

Prepared = Callable[[StageContext], Figures]
"""A stage whose input has been read and found good; called, it runs."""


def prepare(run: StageRun, rule: Rule | None = None) -> Prepared:
    """Read and check a stage's input. Raises UserError; starts and writes nothing.

    `rule` judges the responses of a run of PPO a second time, where the run names no reward model that does.
    """
    match run:
        case PretrainRun():
            return _pretrain(run)
        case PretrainEncoderRun():
            return _pretrain_encoder(run)
        case SftRun():
            sft = prepare_sft(run)
            return _noted(
                sft.notes, lambda scene, log: run_sft(run, sft, scene.session.learners(run), scene.folder, log)
            )
        case DpoRun():
            dpo = prepare_dpo(run)
            return _noted(
                dpo.notes, lambda scene, log: run_dpo(run, dpo, scene.session.learners(run), scene.folder, log)
            )
        case KtoRun():
            kto = prepare_kto(run)
            return _noted(
                kto.notes, lambda scene, log: run_kto(run, kto, scene.session.learners(run), scene.folder, log)
            )
        case RewardRun():
            return _reward(run)
        case PpoRun():
            return _ppo(run, rule)
        case _:
            assert_never(run)


def run_stage(prepared: Prepared, scene: StageContext, stage: str) -> Figures:
    """Run a prepared stage; its figures with its seconds and the peak memory."""
    began = time.monotonic()
    scene.memory.take()
    scene.listener.stage_began(stage)
    figures = _in_spite_of_losses(prepared, scene)
    figures |= {"seconds": time.monotonic() - began, "peak_memory_gib": scene.memory.take()}
    scene.listener.stage_ended(stage, figures)
    return figures


def _in_spite_of_losses(prepared: Prepared, scene: StageContext) -> Figures:
    """A stage that lost its learners goes on from its newest checkpoint, as a resumed run does; other workers stay."""
    while True:
        try:
            return prepared(scene)
        except LearnersLost as lost:
            scene.session.replace_learners(lost)


def _noted(notes: tuple[str, ...], body: Callable[[StageContext, MetricsLog], Mapping[str, Any]]) -> Prepared:
    """A stage that first says what was left out of its input."""

    def run(scene: StageContext) -> Figures:
        for note in notes:
            scene.listener.notify(scene.folder.name, note)
        with MetricsLog(scene.folder, scene.listener) as log:
            figures = body(scene, log)
        found = figures.get("notes", [])
        for note in found:
            scene.listener.notify(scene.folder.name, note)
        return {**figures, "notes": [*notes, *found]}

    return run


def _pretrain(run: PretrainRun) -> Prepared:
    corpus = read_corpus(run)
    if isinstance(run.policy.model, str):
        source = resolve_model(run.policy.model, "policy.model")
        load_tokenizer(source, "policy.model", run.policy.trust_remote_code)

    def body(scene: StageContext, log: MetricsLog) -> Mapping[str, Any]:
        model = run.policy.model
        if isinstance(model, NewLlamaSettings):
            folder = scene.folder / "new"
            scene.session.in_learner(run.learner, make_llama, model, corpus.train, folder, run.seed)
            model = str(folder)
        tokenizer = load_tokenizer(resolve_model(model, "policy.model"), "policy.model", run.policy.trust_remote_code)
        data = encode_corpus(corpus, tokenizer, run.pretrain.block_tokens)
        named = run.model_copy(update={"policy": run.policy.model_copy(update={"model": model})})
        return run_pretrain(named, data, scene.session.learners(named), scene.folder, log)

    return _noted(corpus.notes, body)


def _pretrain_encoder(run: PretrainEncoderRun) -> Prepared:
    corpus = read_corpus(run)
    if isinstance(run.reward.model, str):
        load_encoder_tokenizer(run.reward.model)

    def body(scene: StageContext, log: MetricsLog) -> Mapping[str, Any]:
        model = run.reward.model
        if isinstance(model, NewBertSettings):
            folder = scene.folder / "new"
            scene.session.in_learner(run.learner, make_bert, model, corpus.train, folder, run.seed)
            model = str(folder)
        data = encode_corpus(corpus, load_encoder_tokenizer(model), run.pretrain.block_tokens)
        named = run.model_copy(update={"reward": run.reward.model_copy(update={"model": model})})
        return run_pretrain_encoder(named, data, scene.session.learners(named), scene.folder, log)

    return _noted(corpus.notes, body)


def _reward(run: RewardRun) -> Prepared:
    data = prepare_reward(run, _renderer(run))
    calibration = prepare_calibration(run, data.train)
    notes = data.notes if calibration is None else data.notes + calibration.notes

    def body(scene: StageContext, log: MetricsLog) -> Mapping[str, Any]:
        model = run.reward.model
        if isinstance(model, NewBertSettings):
            folder = scene.folder / "new"
            texts = [record.prompt + record.responses[0] for record in data.train]
            scene.session.in_learner(run.learner, make_bert, model, texts, folder, run.seed)
            model = str(folder)
        named = run.model_copy(update={"reward": run.reward.model_copy(update={"model": model})})
        tokenizer = load_encoder_tokenizer(model)
        learners = scene.session.learners(named)
        figures = run_reward(named, data, tokenizer, learners, scene.folder, log)
        result = scene.folder / "reward_model"
        if calibration is None:
            under = f"the responses in the {run.data.kind} file"
            stored = calibrate_on_records(data.train, under, tokenizer, run.reward.max_tokens, learners, result)
        else:
            serving = ModelSampling(
                scene.session, run.rollout, run.calibration.dtype, run.calibration.trust_remote_code
            )
            requests = sample_requests(calibration.prompts, SAMPLES_PER_PROMPT, CALIBRATION_STEP, run.seed)
            rollouts = serving.of(calibration.source).sample(requests)
            under = f"{len(rollouts)} responses of {run.calibration.policy}"
            stored = calibrate_on_rollouts(rollouts, under, tokenizer, run.reward.max_tokens, learners, result)
        return {**figures, "calibration": asdict(stored)}

    return _noted(notes, body)


def _renderer(run: RewardRun) -> Render:
    """Chat messages in the data are written with the template of the policy to calibrate on, or else plainly."""
    calibration = run.calibration
    if calibration.policy is None:
        return plain_dialogue
    source = resolve_model(calibration.policy, CALIBRATION_KEY)
    return chat_renderer(load_tokenizer(source, CALIBRATION_KEY, calibration.trust_remote_code))


def _ppo(run: PpoRun, rule: Rule | None) -> Prepared:
    has_judge = run.judge is not None or rule is not None
    check_judged(run.ppo, has_judge)
    check_reward(run.reward.reward)
    if run.judge is not None:
        check_reward(run.judge.reward)
    data = prepare_ppo(run)
    source = resolve_model(run.policy.model, "policy.model")
    loop = run_ppo_asynchronous if run.ppo.max_staleness else run_ppo

    def body(scene: StageContext, log: MetricsLog) -> Mapping[str, Any]:
        rank = served_rank(source, run.policy.tuning)
        spec = sampler_spec(source, run.rollout, run.policy.dtype, run.policy.trust_remote_code, rank)
        say = partial(scene.listener.notify, run.kind)
        actors = PpoActors(
            *run_concurrently(
                say,
                lambda: scene.session.samplers(spec, run.rollout),
                lambda: _judged(scene.session, run, rule),
                lambda: scene.session.learners(run),
            )
        )
        checkpoints = Checkpoints(scene.folder / "checkpoints", run.ppo.keep_checkpoints)
        state = PpoState(run, data)
        scene.control.ledger = state.ledger
        newest = checkpoints.newest(say)
        if newest is not None:
            actors.learners.load(newest.folder)
            state.restore(newest)
        elif data.retained is not None:
            state.retained = data.retained.nats_per_token(actors.learners)
        log.truncate_after(state.step)
        with PpoRecorder(run.ppo, scene.folder, log, scene.listener) as record:
            loop(run, data.pad_id, state, actors, checkpoints, record)
        actors.learners.export(scene.folder / "policy")
        records = read_metrics(scene.folder)
        figures = ppo_figures(records) | monitor_figures([record.metrics for record in records], run.ppo)
        if data.retained is None or state.retained is None:
            return figures
        return data.retained.added_to(figures, state.retained, actors.learners)

    return _noted(data.notes if has_judge else (*data.notes, UNJUDGED), body)


def _judged(session: Session, run: PpoRun, rule: Rule | None) -> Scorer:
    """The run's scorer, with its second judge where there is one."""
    scorer = session.scorers(run.reward)
    if run.judge is not None:
        return SecondRewardScorer(scorer, session.scorers(run.judge))
    return scorer if rule is None else SecondRewardScorer(scorer, open_scorer(RuleReward(rule), "cpu"))


def make_llama(spec: NewLlamaSettings, texts: Sequence[str], folder: Path, seed: int) -> None:
    from plumbob.models.from_scratch import build_llama

    build_llama(spec, texts, folder, seed)


def make_bert(spec: NewBertSettings, texts: Sequence[str], folder: Path, seed: int) -> None:
    from plumbob.models.from_scratch import build_bert

    build_bert(spec, texts, folder, seed)
