"""What a run's settings amount to, spelt out with its own numbers: records or prompts, batches, optimizer steps."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from plumbob.configs.runs import AnyRun, EvalRun, OnlineRun, PipelineRun
from plumbob.configs.settings.algorithms import algorithm_of
from plumbob.configs.settings.models import NewBertSettings, NewLlamaSettings
from plumbob.configs.settings.training import EpochSettings, EvaluationSettings, OnlineSettings
from plumbob.configs.settings.workers import LearnerSettings, RolloutSettings
from plumbob.driver.input_sizes.learner_rows import MicroBatchShape
from plumbob.driver.input_sizes.token_lengths import asked_of
from plumbob.driver.stages.stage import InputSizes


@dataclass(frozen=True)
class OfflineArithmetic:
    """Records -> optimizer steps -> micro-batches.

    Attributes:
        settings: the section that says how, such as "sft".
        what: records are called.
        micro_batches: fewest and most that a rank cuts a step into, of the steps that were looked at.
        widest: the one with the most tokens.
    """

    stage: str
    settings: str
    what: str
    num_records: int
    num_epochs: int
    batch_size: int
    num_ranks: int
    micro_batch_size: int
    micro_batches: tuple[int, int]
    widest: MicroBatchShape

    @property
    def rows_of_step(self) -> int:
        """Of fewer records than a batch all of them."""
        return min(self.batch_size, self.num_records)

    @property
    def num_steps(self) -> int:
        return -(-self.num_records * self.num_epochs // self.rows_of_step)

    def lines(self) -> list[str]:
        size = f"{self.settings}.batch_size={self.batch_size}"
        return [
            f"{self.stage}: {self.num_records:,} {self.what} x {_times(self.num_epochs, 'epoch')} / {size} = "
            f"{_times(self.num_steps, 'optimizer step')}",
            self._of_a_step(),
        ]

    def _of_a_step(self) -> str:
        each, limit = self.rows_of_step // self.num_ranks, f"learner.micro_batch_size={self.micro_batch_size}"
        step = f"  a step: {self.rows_of_step} {self.what} = {_times(self.num_ranks, 'rank')} x {each}, in "
        fewest, most = self.micro_batches
        number = _times(most, "micro-batch") if fewest == most else f"{fewest} to {most} micro-batches"
        widest = f"the widest has {self.widest.num_rows} x {self.widest.num_tokens} tokens"
        return f"{step}{number} of as many tokens as {limit} of the longest have; {widest}"


@dataclass(frozen=True)
class OnlineArithmetic:
    """Prompts -> responses -> minibatches -> micro-batches, round by round.

    Attributes:
        num_prompts: of the input; None where it is not known yet.
        rows_of_update: of one optimizer step, which are its responses, or its groups where one row is learnt of each.
        num_updates: optimizer steps of a round.
        is_filtered: whether groups without a difference are replaced by others, which are sampled besides.
    """

    stage: str
    num_prompts: int | None
    num_rounds: int
    prompts_per_step: int
    samples_per_prompt: int
    num_epochs: int
    minibatch_size: int
    rows_of_update: int
    num_updates: int
    num_ranks: int
    micro_batch_size: int
    num_samplers: int
    chunk_size: int
    max_tokens: int
    is_filtered: bool

    @property
    def num_responses(self) -> int:
        """Of a round."""
        return self.prompts_per_step * self.samples_per_prompt

    def lines(self) -> list[str]:
        chunks = -(-self.num_responses // self.chunk_size)
        rows = "responses" if self.rows_of_update == self.minibatch_size else "groups"
        each, of_longest = self.rows_of_update // self.num_ranks, self.micro_batch_size
        prompts, samples = self.num_rounds * self.prompts_per_step, self.num_rounds * self.num_responses
        epochs = "" if self.num_prompts is None else f" ({prompts / self.num_prompts:.3g} x those {self.num_prompts:,})"
        besides = ", and those that replace groups without a difference" if self.is_filtered else ""
        return [
            f"{self.stage}: a round: {_times(self.prompts_per_step, 'prompt')} x "
            f"{_times(self.samples_per_prompt, 'sample')} = {_times(self.num_responses, 'response')}, in "
            f"{_times(chunks, 'chunk')} of up to rollout.chunk_size={self.chunk_size} over "
            f"{_times(self.num_samplers, 'rollout worker')}",
            f"  learnt: {self.num_responses:,} x {_times(self.num_epochs, 'epoch')} / "
            f"online.minibatch_size={self.minibatch_size} = {_times(self.num_updates, 'optimizer step')} of "
            f"{self.rows_of_update} {rows} = {_times(self.num_ranks, 'rank')} x {each}: "
            f"{_times(-(-each // of_longest), 'micro-batch')} of learner.micro_batch_size={of_longest}, or fewer where "
            f"responses are short",
            f"  in all: {_times(self.num_rounds, 'round')} = {_times(prompts, 'prompt')}{epochs}, "
            f"{_times(samples, 'response')} of up to {self.max_tokens} tokens{besides}, "
            f"{_times(self.num_rounds * self.num_updates, 'optimizer step')}",
        ]


@dataclass(frozen=True)
class EvaluationArithmetic:
    """Prompts -> responses."""

    stage: str
    num_prompts: int
    samples_per_prompt: int
    max_tokens: int

    def lines(self) -> list[str]:
        responses = self.num_prompts * self.samples_per_prompt
        return [
            f"{self.stage}: {_times(self.num_prompts, 'prompt')} x {_times(self.samples_per_prompt, 'sample')} = "
            f"{_times(responses, 'response')} of each policy, of up to {self.max_tokens} tokens"
        ]


StageArithmetic = OfflineArithmetic | OnlineArithmetic | EvaluationArithmetic


def arithmetic_of(run: AnyRun, sizes: InputSizes) -> tuple[StageArithmetic, ...]:
    """Of each stage, in their order."""
    return tuple(_Arithmetic(run.learner, sizes).of_run(run))


def as_dict(stage: StageArithmetic) -> dict[str, Any]:
    steps = {"num_steps": stage.num_steps} if isinstance(stage, OfflineArithmetic) else {}
    return asdict(stage) | steps


@dataclass(frozen=True)
class _Arithmetic:
    learner: Any
    sizes: InputSizes

    def of_run(self, run: AnyRun) -> Iterator[StageArithmetic]:
        match run:
            case OnlineRun():
                yield self.online(run.stage, run.online, run.rollout)
            case EvalRun():
                if run.policy is not None:
                    yield self.evaluation(run.evaluation, run.rollout)
            case PipelineRun():
                yield from self.of_pipeline(run)
            case _:
                section, settings = run.epochs
                yield self.offline(run.stage, section, settings)

    def of_pipeline(self, run: PipelineRun) -> Iterator[StageArithmetic]:
        if isinstance(run.policy.ref, NewLlamaSettings):
            yield self.offline("pretrain", "pretrain", run.pretrain)
        if isinstance(run.reward.encoder, NewBertSettings):
            yield self.offline("pretrain-encoder", "pretrain_encoder", run.pretrain_encoder)
        yield self.offline("sft", "sft", run.sft)
        yield replace(self.offline("reward", "reward_training", run.reward_training), what="pairs")
        yield self.online(algorithm_of(run.online.estimator), run.online, run.rollout)
        yield self.offline("dpo", "dpo", run.dpo)
        yield self.evaluation(run.evaluation, run.rollout, of_heldout=True)

    def offline(self, stage: str, section: str, settings: EpochSettings) -> OfflineArithmetic:
        learner: LearnerSettings = self.learner
        rows = self.sizes.learnt[stage]
        assert rows.lengths is not None, "rows of a file have lengths"
        cuts = [len(rank) for step in rows.cuts(learner) for rank in step]
        return OfflineArithmetic(
            stage,
            section,
            settings.row_name,
            len(rows.lengths),
            settings.num_epochs,
            settings.batch_size,
            learner.num_workers,
            learner.micro_batch_size,
            (min(cuts), max(cuts)),
            rows.widest(learner),
        )

    def online(self, stage: str, online: OnlineSettings, rollout: RolloutSettings) -> OnlineArithmetic:
        return OnlineArithmetic(
            stage,
            self.num_asked,
            online.num_steps,
            online.prompts_per_step,
            online.samples_per_prompt,
            online.num_epochs,
            online.minibatch_size,
            online.rows_per_update,
            online.updates_per_step,
            self.learner.num_workers,
            self.learner.micro_batch_size,
            rollout.num_workers,
            rollout.chunk_size,
            rollout.max_tokens,
            online.dynamic_sampling is not None,
        )

    def evaluation(
        self, settings: EvaluationSettings, rollout: RolloutSettings, of_heldout: bool = False
    ) -> EvaluationArithmetic:
        there = asked_of(self.sizes.inputs)
        known = sum(one.num_heldout for one in there) if of_heldout and there else self.num_asked
        num = settings.num_prompts if known is None else min(settings.num_prompts, known)
        return EvaluationArithmetic("eval", num, settings.samples_per_prompt, rollout.max_tokens)

    @property
    def num_asked(self) -> int | None:
        """Prompts of the input, of one file or several; None where it is not known yet."""
        there = asked_of(self.sizes.inputs)
        return sum(one.num_used for one in there) if there else None


def _times(number: int, what: str) -> str:
    plural = f"{what}es" if what.endswith("batch") else f"{what}s"
    return f"{number:,} {what if number == 1 else plural}"
