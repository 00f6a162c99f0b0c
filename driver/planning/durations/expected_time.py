"""About how long each stage of a run takes on this machine, before anything is loaded."""

from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from itertools import chain, repeat
from typing import assert_never

from plumbob.configs.runs import (
    AnyRun,
    DpoRun,
    EvalRun,
    KtoRun,
    OnlineRun,
    PipelineRun,
    PretrainEncoderRun,
    PretrainRun,
    RewardRun,
    SftRun,
)
from plumbob.configs.settings.algorithms import algorithm_of
from plumbob.configs.settings.models import ModelRef, NewBertSettings, NewLlamaSettings
from plumbob.configs.settings.rewards import RewardGroupSettings
from plumbob.configs.settings.training import DpoSettings
from plumbob.configs.settings.workers import RolloutSettings, TransformersEngine, WorkerGroupSettings
from plumbob.core.errors import UserError
from plumbob.driver.cpu_threads import with_threads
from plumbob.driver.planning.durations.group_costs import GroupCosts
from plumbob.driver.planning.durations.machine_rates import MachineRates
from plumbob.driver.planning.durations.offline_stages import OfflineWork, offline_time
from plumbob.driver.planning.durations.online_stages import Evaluated, OnlineCosts, evaluation_time, online_time
from plumbob.driver.planning.durations.response_lengths import ResponseLengths
from plumbob.driver.planning.durations.run_time import RunTime, StageTime
from plumbob.driver.planning.durations.work_costs import LearnerCosts
from plumbob.driver.planning.expected_memory import RESPONSES_OF_A_PAIR
from plumbob.driver.planning.expected_policy import ExpectedPolicy, expected_policy
from plumbob.driver.stages.model_sampling import rollout_of
from plumbob.driver.stages.stage import InputSizes
from plumbob.models.loading import open_baseline
from plumbob.trainers.offline import dpo
from plumbob.trainers.offline.reward_modelling.reward_calibration import SAMPLES_PER_PROMPT

RAY_S, LEARNER_S, VLLM_S, TRANSFORMERS_S, SCORER_S, REOPENED_S = 12.0, 20.0, 32.0, 12.0, 9.0, 1.5
"""Until each works, as measured on 2 cores (a run of preset `toy` on 1 December 2026): the driver with a Ray cluster
of its own, the first learners, rollout workers by their engine, scorers, and learners with another model. What a hub
has to send first is not in it."""

TEXT, PAIRS, PROMPTS = "data.text", "data.pairs", "data.prompts"

KTO_FORWARDS = 3
"""Of the reference over the responses, and of it and the policy over others' by which the KL is estimated."""


def expected_time(run: AnyRun, sizes: InputSizes, rates: MachineRates) -> RunTime:
    """Of each stage, in their order; nothing where that is not measured here, and why."""
    if run.cluster.address != "local":
        return RunTime((), (f"what the hosts of cluster.address={run.cluster.address} compute is not measured here",))
    groups = [group for _, group in run if isinstance(group, WorkerGroupSettings)]
    if any(group.num_gpus for group in groups):
        return RunTime((), ("what a GPU computes is not measured, and nothing was measured on one yet",))
    times = _Times(with_threads(run), sizes, rates)
    try:
        stages = (StageTime("ray and the driver", {"start": RAY_S}), *times.stages())
    except UserError:  # As of expected memory: code that comes with a model may need its weights to make it.
        return RunTime((), ("the model is made by code of its own, which needs its weights",))
    return RunTime(stages, tuple(times.assumed()))


@dataclass(frozen=True)
class _Times:
    """`run`: with numbers of threads."""

    run: AnyRun
    sizes: InputSizes
    rates: MachineRates

    @property
    def costs(self) -> GroupCosts:
        return GroupCosts(self.run.learner, self.rates)

    @property
    def lengths(self) -> ResponseLengths:
        return ResponseLengths(self.sizes.inputs, getattr(self.run, "rollout", None))

    def stages(self) -> Iterator[StageTime]:
        match self.run:
            case PipelineRun() as run:
                yield from self.of_pipeline(run)
            case EvalRun() as run:
                yield from self.of_evaluation(run)
            case OnlineRun() as run:
                policy = expected_policy(run.policy.ref, run.policy.tuning)
                scorers = [group for group in (run.reward, run.gold_reward) if group is not None]
                costs = self.online_costs(policy, run.rollout, scorers, run.teacher_refs)
                start_s = max(LEARNER_S, _engine_s(run.rollout)) + SCORER_S * len(scorers)
                yield online_time(run.stage, run.online, self.lengths.expected, costs, start_s)
            case run:
                start_s = LEARNER_S
                if isinstance(run, RewardRun) and run.calibration.policy is not None:
                    start_s += _engine_s(run.rollout)
                yield offline_time(run.stage, self.sizes.learnt[run.stage], *self.of_file(run), start_s)

    def of_file(
        self, run: PretrainRun | PretrainEncoderRun | RewardRun | SftRun | DpoRun | KtoRun
    ) -> tuple[OfflineWork, LearnerCosts]:
        """What a stage does with the rows of its file. Of text, what is held out is not counted."""
        costs, share = self.costs, self.lengths.response_share
        heldout = sum(one.num_heldout for one in self.sizes.inputs if one.setting != TEXT)
        match run:
            case PretrainRun():
                return OfflineWork(run.pretrain), costs.pretrained(run.policy.ref, run.policy.dtype)
            case PretrainEncoderRun():
                return OfflineWork(run.pretrain), costs.encoder(run.reward.encoder)
            case RewardRun():
                sequences = 1 if run.data.kind == "scores" else RESPONSES_OF_A_PAIR
                work = OfflineWork(run.reward_training, sequences, 0.0, 0, heldout)
                return work, costs.encoder(run.reward.encoder, run.reward.tuning)
            case SftRun():
                policy = expected_policy(run.policy.ref, run.policy.tuning)
                return OfflineWork(run.sft, 1, share, 0, heldout), costs.policy(policy)
            case DpoRun():
                return self.of_pairs(run.dpo), costs.policy(expected_policy(run.policy.ref, run.policy.tuning))
            case KtoRun():
                policy = expected_policy(run.policy.ref, run.policy.tuning)
                return OfflineWork(run.kto, 1, share, KTO_FORWARDS, heldout), costs.policy(policy)
            case _:
                assert_never(run)

    def of_pipeline(self, run: PipelineRun) -> Iterator[StageTime]:
        """The first stage starts learners, which the others use again."""
        starts_s = chain((LEARNER_S,), repeat(REOPENED_S))

        def offline(stage: str, work: OfflineWork, costs: LearnerCosts, more_s: float = 0.0) -> StageTime:
            return offline_time(stage, self.sizes.learnt[stage], work, costs, next(starts_s) + more_s)

        ref, encoder, dtype = run.policy.ref, run.reward.encoder, run.policy.dtype
        if isinstance(ref, NewLlamaSettings):
            yield offline("pretrain", OfflineWork(run.pretrain), self.costs.pretrained(ref, dtype))
        if isinstance(encoder, NewBertSettings):
            yield offline("pretrain-encoder", OfflineWork(run.pretrain_encoder), self.costs.encoder(encoder))
        tuned, aligned = (expected_policy(ref, tuning, dtype) for tuning in (run.policy.sft_tuning, run.policy.tuning))
        yield offline("sft", OfflineWork(run.sft, 1, self.lengths.response_share), self.costs.policy(tuned))
        costs, expected = self.online_costs(aligned, run.rollout, [run.reward]), self.lengths.expected
        # The reward model is calibrated on what the first rollout workers sample.
        asked = run.calibration_prompts
        sampled_s = costs.sampler.sample_s(SAMPLES_PER_PROMPT * asked, asked, *astuple(expected))
        work = OfflineWork(run.reward_training, RESPONSES_OF_A_PAIR, 0.0, 0, self.num_of(PAIRS, heldout=True))
        yield offline("reward", work, self.costs.encoder(encoder), _engine_s(run.rollout) + sampled_s)
        yield online_time(algorithm_of(run.online.estimator), run.online, expected, costs, SCORER_S + next(starts_s))
        yield offline("dpo", self.of_pairs(run.dpo, self.share_kept(PAIRS)), self.costs.policy(aligned))
        prompts = min(run.evaluation.num_prompts, self.num_of(PROMPTS, heldout=True))
        yield evaluation_time(Evaluated(prompts, run.evaluation.samples_per_prompt, 3, 2), expected, costs, 0.0)

    def of_evaluation(self, run: EvalRun) -> Iterator[StageTime]:
        """Of a policy; what reward models take for pairs is not counted."""
        if run.policy is None:
            return
        has_baseline = open_baseline(run.policy) is not None
        num_policies = 1 + len(run.policy.also) + has_baseline
        costs = self.online_costs(expected_policy(run.policy.ref, None), rollout_of(run), [run.reward])
        prompts = self.num_of(PROMPTS)
        compared = (num_policies - 1) if has_baseline else 0
        shape = Evaluated(prompts, run.evaluation.samples_per_prompt, num_policies, compared)
        start_s = max(LEARNER_S * has_baseline, _engine_s(run.rollout)) + SCORER_S
        yield evaluation_time(shape, self.lengths.expected, costs, start_s)

    def of_pairs(self, settings: DpoSettings, share_kept: float = 1.0) -> OfflineWork:
        """`share_kept`: of the held-out pairs, where those that are too long are still among them."""
        has_reference = "reference" in dpo.roles_of(settings.loss)
        heldout = sum(one.num_heldout for one in self.sizes.inputs if one.setting.startswith(PAIRS))
        return OfflineWork(
            settings, RESPONSES_OF_A_PAIR, self.lengths.response_share, int(has_reference), round(share_kept * heldout)
        )

    def online_costs(
        self,
        policy: ExpectedPolicy,
        rollout: RolloutSettings,
        scorers: Sequence[RewardGroupSettings],
        teachers: Sequence[ModelRef] = (),
    ) -> OnlineCosts:
        costs = self.costs
        graded = tuple(costs.policy(expected_policy(ref, None)) for ref in teachers)
        return OnlineCosts(
            costs.policy(policy), costs.sampler(policy, rollout), tuple(map(costs.scorer, scorers)), graded
        )

    def num_of(self, setting: str, heldout: bool = False) -> int:
        """Records of an input that are used, or held out."""
        return sum(one.num_heldout if heldout else one.num_used for one in self.sizes.inputs if one.setting == setting)

    def share_kept(self, setting: str) -> float:
        """Of an input's records, those that are not too long."""
        used, dropped = (
            self.num_of(setting),
            sum(one.num_dropped for one in self.sizes.inputs if one.setting == setting),
        )
        return used / (used + dropped)

    def assumed(self) -> Iterator[str]:
        """What a person has to know of the seconds."""
        run = self.run
        if not isinstance(run, OnlineRun | PipelineRun | EvalRun):
            return
        yield self.lengths.sentence
        groups = [group for _, group in run if isinstance(group, RewardGroupSettings)]
        unknown = [part.name for group in groups for part in group.weighted_parts if not part.reward.models]
        if unknown:
            yield f"without what the reward's parts {', '.join(unknown)} take, which nobody knows beforehand"
        if run.rollout.environment is not None:
            yield "as if each episode had one turn, and without its environment's own time"
        if not isinstance(run, EvalRun) and run.online.dynamic_sampling is not None:
            yield "without the groups that dynamic sampling replaces"


def _engine_s(rollout: RolloutSettings) -> float:
    return TRANSFORMERS_S if isinstance(rollout.engine, TransformersEngine) else VLLM_S
