"""What each group of a run's workers costs on this machine (GroupCosts), from its settings and its models' sizes."""

from dataclasses import dataclass

from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSequenceClassification

from plumbob.configs.base import Dtype
from plumbob.configs.settings.models import ModelRef, NewBertSettings, NewLlamaSettings
from plumbob.configs.settings.rewards import RewardGroupSettings
from plumbob.configs.settings.tuning.encoders import EncoderLora, EncoderTuning
from plumbob.configs.settings.workers import (
    LearnerRankSettings,
    LearnerSettings,
    RolloutSettings,
    VllmEngine,
    WorkerGroupSettings,
)
from plumbob.driver.planning.durations.machine_rates import MachineRates
from plumbob.driver.planning.durations.work_costs import LearnerCosts, SamplerCosts, ScorerCosts
from plumbob.driver.planning.expected_memory import scorer_sizes
from plumbob.driver.planning.expected_policy import ExpectedPolicy, expected_policy
from plumbob.models.from_scratch import empty_bert, empty_llama
from plumbob.models.loading import open_model, open_policy
from plumbob.models.sizes.config_sizes import ModelSizes, sizes_of
from plumbob.models.tuning.classifiers import num_trained
from plumbob.rollout.samplers.open_sampler import adapter_serving


@dataclass(frozen=True)
class GroupCosts:
    """`learner`: of the run, with numbers of threads, as the other groups that it is asked about."""

    learner: LearnerRankSettings
    rates: MachineRates

    def pretrained(self, ref: ModelRef | NewLlamaSettings, dtype: Dtype) -> LearnerCosts:
        """Of all weights of a causal model."""
        model = open_policy(ref).empty(AutoModelForCausalLM) if isinstance(ref, ModelRef) else empty_llama(ref)
        sizes = sizes_of(model)
        return self._learner(sizes, dtype, sizes.num_parameters)

    def policy(self, policy: ExpectedPolicy) -> LearnerCosts:
        """A soft prompt has weights beside the model that nothing is multiplied with."""
        if policy.trains_weights:
            return self._learner(policy.sizes, policy.dtype, policy.num_trained)
        return self._learner(policy.sizes, policy.dtype, 0, 0 if policy.num_virtual_tokens else policy.num_trained)

    def encoder(self, ref: ModelRef | NewBertSettings, tuning: EncoderTuning | None = None) -> LearnerCosts:
        """Of a model of masked words, or a reward model: all of its weights, or what `tuning` puts beside them."""
        model = open_model(ref).empty(AutoModelForMaskedLM) if isinstance(ref, ModelRef) else empty_bert(ref)
        sizes = sizes_of(model)
        if isinstance(tuning, EncoderLora) and isinstance(ref, ModelRef):
            scored = open_model(ref).empty(AutoModelForSequenceClassification)
            return self._learner(sizes, "float32", 0, num_trained(scored, tuning))
        return self._learner(sizes, "float32", sizes.num_parameters)

    def teacher(self, ref: ModelRef) -> LearnerCosts:
        """Frozen, with the policy's learners."""
        return self.policy(expected_policy(ref, None))

    def sampler(self, policy: ExpectedPolicy, rollout: RolloutSettings) -> SamplerCosts:
        engine = rollout.engine
        at_once = min(engine.max_num_seqs, rollout.chunk_size) if isinstance(engine, VllmEngine) else rollout.chunk_size
        serving = adapter_serving(rollout, policy.dtype, (policy.architecture,), policy.is_plain_lora)
        return SamplerCosts(
            policy.sizes,
            self.rates.computing(policy.sizes, policy.dtype, self._threads(rollout)),
            self.rates.reading(self._threads(rollout)),
            policy.weight_bytes,
            engine,
            rollout.num_workers * at_once,
            policy.trains_weights or serving == "merged",
        )

    def scorer(self, group: RewardGroupSettings) -> ScorerCosts:
        models = scorer_sizes(group)
        return ScorerCosts(
            models, tuple(self.rates.computing(sizes, "float32", self._threads(group)) for sizes in models)
        )

    def _learner(self, sizes: ModelSizes, dtype: Dtype, num_trained: int, num_beside: int = 0) -> LearnerCosts:
        learner, threads = self.learner, self._threads(self.learner)
        return LearnerCosts(
            sizes,
            self.rates.computing(sizes, "bfloat16" if learner.autocast else dtype, threads),
            self.rates.reading(threads),
            num_trained,
            num_beside,
            learner.autocast and dtype == "float32",
            isinstance(learner, LearnerSettings) and learner.gradient_checkpointing,
        )

    def _threads(self, group: WorkerGroupSettings) -> int:
        """Of all its workers together: as many as their settings say, and cores that there are."""
        return min(group.num_workers * group.threads, self.rates.num_threads)
