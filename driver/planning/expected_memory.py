"""How much memory each worker of a run is expected to take, stage by stage, told before anything is loaded."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import assert_never

from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from plumbob.cluster.resources import Expected, WorkerRole
from plumbob.configs.runs import (
    AnyRun,
    DpoRun,
    EvalRun,
    KtoRun,
    LearnerRun,
    OnlineRun,
    PipelineRun,
    PretrainEncoderRun,
    PretrainRun,
    RewardRun,
    SftRun,
)
from plumbob.configs.settings.algorithms import OnlineDpo, algorithm_of
from plumbob.configs.settings.data import LengthSettings
from plumbob.configs.settings.models import ModelRef, NewBertSettings, NewLlamaSettings
from plumbob.configs.settings.reward_parts import ModelPart
from plumbob.configs.settings.rewards import RewardGroupSettings
from plumbob.configs.settings.training import OnlineSettings
from plumbob.configs.settings.workers import (
    LearnerRankSettings,
    LearnerSettings,
    RolloutSettings,
    TransformersEngine,
    VllmEngine,
)
from plumbob.core.errors import UserError
from plumbob.driver.input_sizes.learner_rows import LearnerRows, MicroBatchShape
from plumbob.driver.planning.expected_learner import (
    encoder_learner,
    micro_batch,
    policy_learner,
    pretrained_learner,
    reward_learner,
    with_teachers,
)
from plumbob.driver.planning.expected_policy import BYTES, ExpectedPolicy, expected_policy
from plumbob.driver.planning.expected_programs import beside_programs, programs_of_episodes, programs_of_parts
from plumbob.driver.stages.model_sampling import rollout_of
from plumbob.models.adapter import WEIGHTS_FILE
from plumbob.models.files.weight_files import num_stored
from plumbob.models.from_scratch import empty_bert
from plumbob.models.loading import open_baseline, open_model, open_policy
from plumbob.models.quantization.quantised_layers import base_bytes
from plumbob.models.sizes.config_sizes import ModelSizes, sizes_of
from plumbob.models.sizes.memory import (
    MemoryEstimate,
    forward_memory,
    scorer_memory,
    transformers_memory,
    vllm_memory,
    with_experience,
)
from plumbob.rollout.samplers.open_sampler import adapter_serving
from plumbob.rollout.samplers.sampler import NUM_HELD
from plumbob.trainers.offline import dpo, kto
from plumbob.trainers.online.online_input import roles_of

RESPONSES_OF_A_PAIR = 2

NUM_VERSIONS_HELD = 2
"""By a rollout worker: the version that it samples from and the one before."""


def expected_memory(run: AnyRun, learnt: Mapping[str, LearnerRows] | None = None) -> Expected:
    """Stage -> role -> what one of its workers takes; empty where nothing can be estimated.

    Args:
        learnt: stage -> the rows that its learners compute; None, as of a stage that is not in it, takes the longest
            that the settings allow.
    """
    stages = _Stages(learnt or {})
    try:
        return stages.of_pipeline(run) if isinstance(run, PipelineRun) else {run.stage: dict(stages.roles_of(run))}
    except UserError:  # Code that comes with a model may need its weights to make it: of that nothing is estimated.
        return {}


@dataclass(frozen=True)
class _Stages:
    """What each worker takes, of rows whose lengths are known or not."""

    learnt: Mapping[str, LearnerRows]

    def shape(self, stage: str, learner: LearnerRankSettings, most_tokens: int) -> MicroBatchShape:
        """Of a stage's widest micro-batch; `most_tokens`: of a row, where no length is known."""
        rows = self.learnt.get(stage)
        return MicroBatchShape(learner.micro_batch_size, most_tokens) if rows is None else rows.widest(learner)

    def longest(self, stage: str, most_tokens: int) -> int:
        """Tokens of a stage's longest row; `most_tokens` where no length is known."""
        rows = self.learnt.get(stage)
        return most_tokens if rows is None else rows.longest

    def roles_of(self, run: LearnerRun) -> Iterator[tuple[WorkerRole, MemoryEstimate]]:
        learner = run.learner
        match run:
            case PretrainRun():
                shape = self.shape(run.stage, learner, run.pretrain.block_tokens)
                yield "learner", pretrained_learner(run.policy.ref, run.policy.dtype, run.learner, shape)
            case PretrainEncoderRun():
                shape = self.shape(run.stage, learner, run.pretrain.block_tokens)
                yield "learner", encoder_learner(run.reward.encoder, run.learner, shape, is_masked_lm=True)
            case RewardRun():
                rows = 1 if run.data.kind == "scores" else RESPONSES_OF_A_PAIR
                shape = _times(rows, self.shape(run.stage, learner, run.reward.max_tokens))
                yield "learner", reward_learner(run.reward, run.learner, shape)
                if run.calibration.policy_ref is not None:
                    policy = expected_policy(run.calibration.policy_ref, None)
                    yield "rollout", _sampler(policy, run.rollout, run.data.max_prompt_tokens)
            case SftRun():
                policy = expected_policy(run.policy.ref, run.policy.tuning)
                shape = self.shape(run.stage, learner, _most_tokens(policy, run.data))
                yield "learner", policy_learner(policy, ("policy",), run.learner, shape)
            case DpoRun() | KtoRun():
                policy = expected_policy(run.policy.ref, run.policy.tuning)
                rows = RESPONSES_OF_A_PAIR if isinstance(run, DpoRun) else 1
                roles = dpo.roles_of(run.dpo.loss) if isinstance(run, DpoRun) else kto.ROLES
                shape = self.shape(run.stage, learner, _most_tokens(policy, run.data))
                yield "learner", policy_learner(policy, roles, run.learner, shape, rows)
            case OnlineRun():
                policy = expected_policy(run.policy.ref, run.policy.tuning)
                most = min(policy.num_positions, run.data.max_prompt_tokens + run.rollout.max_tokens)
                shape, predicted = self.shape(run.stage, learner, most), run.rollout.max_tokens
                own = _online(policy, run.online, run.learner, shape, predicted, self.longest(run.stage, most))
                yield "learner", with_teachers(own, policy, run.teacher_refs, run.learner, shape, predicted)
                yield "rollout", _sampler(policy, run.rollout, run.data.max_prompt_tokens)
                if run.reward is not None:
                    yield "scorer", _scorer(run.reward)
                if run.gold_reward is not None:
                    yield "gold_scorer", _scorer(run.gold_reward)
            case EvalRun():
                yield from _of_evaluation(run)
            case _:
                assert_never(run)

    def of_pipeline(self, run: PipelineRun) -> Expected:
        """Of each stage what it would take by itself, and what the workers do that earlier ones leave for later."""
        data, learner, encoder, dtype = run.data, run.learner, run.reward.encoder, run.policy.dtype
        stages: dict[str, dict[WorkerRole, MemoryEstimate]] = {}
        if isinstance(run.policy.ref, NewLlamaSettings):
            shape = self.shape("pretrain", learner, run.pretrain.block_tokens)
            stages["pretrain"] = {"learner": pretrained_learner(run.policy.ref, dtype, learner, shape)}
        if isinstance(encoder, NewBertSettings):
            shape = self.shape("pretrain-encoder", learner, run.pretrain_encoder.block_tokens)
            stages["pretrain-encoder"] = {"learner": encoder_learner(encoder, learner, shape, is_masked_lm=True)}
        tunings = (run.policy.sft_tuning, run.policy.tuning)
        tuned, aligned = (expected_policy(run.policy.ref, tuning, dtype) for tuning in tunings)
        most = _most_tokens(aligned, data)
        sampled = min(aligned.num_positions, data.max_prompt_tokens + run.rollout.max_tokens)
        algorithm = algorithm_of(run.online.estimator)
        # The reward model is calibrated on what the first rollout workers sample.
        samplers: dict[WorkerRole, MemoryEstimate] = {"rollout": _sampler(aligned, run.rollout, data.max_prompt_tokens)}
        left: dict[WorkerRole, MemoryEstimate] = {**samplers, "scorer": _scorer(run.reward)}
        rewarded = run.reward.encoder_from(run.reward.model)
        scored = _times(RESPONSES_OF_A_PAIR, self.shape("reward", learner, run.reward.max_tokens))
        shape = self.shape(algorithm, learner, sampled)
        longest = self.longest(algorithm, sampled)
        online = _online(aligned, run.online, learner, shape, run.rollout.max_tokens, longest)
        roles, shape = dpo.roles_of(run.dpo.loss), self.shape("dpo", learner, most)
        pairs = policy_learner(aligned, roles, learner, shape, RESPONSES_OF_A_PAIR)
        return {
            **stages,
            "sft": {"learner": policy_learner(tuned, ("policy",), learner, self.shape("sft", learner, most))},
            "reward": {"learner": reward_learner(rewarded, learner, scored), **samplers},
            algorithm: {"learner": online, **left},
            "dpo": {"learner": pairs, **left},
        }


def _of_evaluation(run: EvalRun) -> Iterator[tuple[WorkerRole, MemoryEstimate]]:
    yield "scorer", _scorer(run.reward)
    if run.policy is None:
        return
    sampler = _sampler(expected_policy(run.policy.ref, None), rollout_of(run), run.data.max_prompt_tokens)
    also = [open_policy(ref).source.adapter for ref in run.policy.also_refs[: NUM_HELD - 1]]
    beside = sum(num_stored(adapter / WEIGHTS_FILE) for adapter in also if adapter is not None)
    yield "rollout", replace(sampler, weights=sampler.weights + BYTES[run.policy.dtype] * beside)
    # Perplexity is of what learners compute as: of a full model without a baseline, itself.
    baseline = open_baseline(run.policy) or (None if run.perplexity is None else open_policy(run.policy.ref))
    if baseline is not None:
        empty = baseline.empty(AutoModelForCausalLM)
        sizes = sizes_of(empty)
        adapter = baseline.source.adapter
        held = 0 if adapter is None else num_stored(adapter / WEIGHTS_FILE)
        tokens = run.data.max_prompt_tokens + run.rollout.max_tokens
        shape = MicroBatchShape(run.learner.micro_batch_size, tokens)
        batch = micro_batch(run.learner, shape, run.rollout.max_tokens)
        weight_bytes = BYTES[run.policy.dtype]
        expected = forward_memory(sizes, held, weight_bytes, batch)
        frozen = base_bytes(empty, weight_bytes, run.policy.quantization)
        yield "learner", replace(expected, weights=frozen + weight_bytes * held)


# --------------------------------------------------------------------------------------------------------------- roles


def _most_tokens(policy: ExpectedPolicy, data: LengthSettings) -> int:
    return min(policy.num_positions, data.max_prompt_tokens + data.max_response_tokens)


def _times(number: int, shape: MicroBatchShape) -> MicroBatchShape:
    """Each row being as many sequences."""
    return shape._replace(num_rows=number * shape.num_rows)


def _online(
    policy: ExpectedPolicy,
    online: OnlineSettings,
    learner: LearnerSettings,
    shape: MicroBatchShape,
    num_predicted: int,
    longest: int,
) -> MemoryEstimate:
    """`longest`: tokens of the longest row, as which each of a rank's rows of a step is padded."""
    rows = RESPONSES_OF_A_PAIR if isinstance(online.estimator, OnlineDpo) else 1
    rank = policy_learner(policy, roles_of(online.estimator), learner, shape, rows, num_predicted)
    return with_experience(rank, -(-online.samples_per_step // learner.num_workers) * longest)


def _sampler(policy: ExpectedPolicy, rollout: RolloutSettings, max_prompt_tokens: int) -> MemoryEstimate:
    adapters = NUM_VERSIONS_HELD * (policy.num_trained + policy.num_start) + policy.num_shared
    has_adapter = not policy.trains_weights and policy.num_trained + policy.num_begun > 0
    serving = adapter_serving(rollout, policy.dtype, (policy.architecture,), policy.is_plain_lora)
    if has_adapter and serving == "merged":
        adapters = policy.sizes.num_parameters  # The base, from which each version is merged anew.
    match rollout.engine:
        case VllmEngine(kv_cache_gib=gib, max_num_seqs=at_once):
            number = min(at_once, rollout.chunk_size)
            found = vllm_memory(policy.sizes, policy.weight_bytes, adapters, int(gib * 2**30), number)
        case TransformersEngine():
            tokens = min(policy.num_positions, max_prompt_tokens + rollout.max_tokens) + policy.num_virtual_tokens
            number = rollout.chunk_size
            found = transformers_memory(policy.sizes, policy.weight_bytes, adapters, number, tokens)
        case _:
            assert_never(rollout.engine)
    return found if rollout.environment is None else beside_programs(found, programs_of_episodes(rollout))


def _scorer(group: RewardGroupSettings) -> MemoryEstimate:
    """Of its reward model, the others of its ensemble and those among its parts, each with its own batches."""
    own = group.batch_size * group.max_tokens
    of_parts = [part.batch_size * part.max_tokens for part in group.parts if isinstance(part, ModelPart)]
    sizes = scorer_sizes(group)
    tokens = [own] * (len(sizes) - len(of_parts)) + of_parts
    estimate = scorer_memory(list(zip(sizes, tokens, strict=True)))
    return beside_programs(estimate, programs_of_parts(group.parts))


def scorer_sizes(group: RewardGroupSettings) -> tuple[ModelSizes, ...]:
    """Of a group's reward model, the others of its ensemble and then those among its parts."""
    first = group.model
    refs = [each.model for each in group.further_members]
    refs += [ref for part in group.weighted_parts for ref in part.reward.models]
    models = [empty_bert(first)] if isinstance(first, NewBertSettings) else []
    if isinstance(first, str):
        refs = [ModelRef(first, f"{group.section}.model"), *refs]
    models += [open_model(ref).empty(AutoModelForSequenceClassification) for ref in refs]
    return tuple(map(sizes_of, models))
