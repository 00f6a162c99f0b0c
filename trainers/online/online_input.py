"""What the online loop begins with: its policy and its prompts, read and checked, and its learner's parts."""

from collections.abc import Sequence
from dataclasses import dataclass

from plumbob.configs.runs import OnlineRun
from plumbob.configs.settings.algorithms import Estimator, critic_of
from plumbob.data.length_checks import check_context
from plumbob.data.prompts import EncodedPrompt, encode_prompts
from plumbob.data.reading.readers import read_prompts
from plumbob.data.rendered_rows import RenderedRow, prompt_rows
from plumbob.data.splitting import hold_out
from plumbob.data.texts.chat_text import Render, chat_renderer
from plumbob.data.tokenization import TooLong
from plumbob.models.adapter import ModelRole
from plumbob.models.loading import OpenedPolicy, open_policy
from plumbob.models.tuning.adapter_support import check_learner
from plumbob.models.tuning.methods import check_tunable
from plumbob.reward.open_scorer import check_rows
from plumbob.reward.reward_models.reward_prompts import RewardPrompts
from plumbob.rollout.environments.openings import openings_of
from plumbob.rollout.samplers.open_sampler import support_for
from plumbob.trainers.distillation.teachers import load_teachers, prepare_teachers
from plumbob.trainers.forgetting.packed_text import PackedText, notes_of, rows_of
from plumbob.trainers.forgetting.replay import prepare_replay, replay_loss_terms
from plumbob.trainers.forgetting.retention import RetainedText, prepare_retention
from plumbob.trainers.learner.learner_parts import LearnerParts, tuned_policy
from plumbob.trainers.online.objective import check_estimator, online_loss_terms


@dataclass(frozen=True)
class OnlineInput:
    """Encoded prompts, sentences about rows that were left out, and text that is measured or learnt beside them.

    Attributes:
        rows: one of each input as the model sees it.
        dropped: prompts that are too long.
    """

    train: tuple[EncodedPrompt, ...]
    pad_id: int
    notes: tuple[str, ...]
    retained: RetainedText | None = None
    replayed: PackedText | None = None
    rows: tuple[RenderedRow, ...] = ()
    dropped: tuple[TooLong, ...] = ()


def open_trainable_policy(run: OnlineRun) -> OpenedPolicy:
    """The policy of a run. Raises UserError also when the rollout workers' engine cannot serve what is trained."""
    check_estimator(run.online.estimator)
    opened = open_policy(run.policy.ref)
    support = support_for(run.rollout, opened, run.policy.tuning)
    check_tunable(opened, run.policy, roles_of(run.online.estimator), support)
    check_learner(opened.ref, opened.source.adapter, run.policy.tuning, run.learner)
    return opened


def prepare_online(run: OnlineRun, opened: OpenedPolicy, scored: Sequence[RewardPrompts] = ()) -> OnlineInput:
    """Read, check and encode the prompts. Raises UserError; starts and writes nothing.

    Args:
        scored: record how the reward models read the prompts.
    """
    data, tokenizer = run.data, opened.tokenizer
    render: Render = chat_renderer(tokenizer)
    for prompts in scored:
        render = prompts.beside(render)
    rewards = [group.reward for group in (run.reward, run.gold_reward) if group is not None]
    has_rows = run.rollout.environment is not None or run.teachers_by is not None
    reads_rows = has_rows or any(reward.reads_rows for reward in rewards)
    with openings_of(run.rollout.environment, run.seed) as opening:
        split = hold_out(
            lambda path: read_prompts(path, data, render, reads_rows, opening),
            data.prompts,
            data.heldout_prompts,
            # Of an environment many rows may open alike: each is a prompt of its own.
            lambda prompt: prompt.text if run.rollout.environment is None else prompt.prompt_id,
            data,
            run.seed,
        )
    train = encode_prompts(tokenizer, split.train, data.max_prompt_tokens)
    check_rows(rewards, train.records, data.prompts)
    longest = max(len(prompt.ids) for prompt in train.records)
    check_context(longest, run.rollout.max_tokens, opened.num_positions)
    taught = prepare_teachers(run, opened, train.records)
    retained = prepare_retention(run.retention, opened)
    replayed = prepare_replay(run.replay, opened)
    texts = [prompt.text for prompt in train.records]
    mismatch_notes = tuple(note for prompts in scored for note in prompts.notes(texts))
    notes = split.notes + train.notes + mismatch_notes + taught + notes_of(retained, replayed)
    as_scored = [part for prompts in scored for part in prompts.parts(texts[0])]
    rows = prompt_rows("data.prompts", tokenizer, [one.ids for one in train.records], as_scored)
    rows += rows_of(retained, replayed)
    return OnlineInput(train.records, tokenizer.pad_token_id, notes, retained, replayed, rows, train.dropped)


def roles_of(estimator: Estimator) -> tuple[ModelRole, ...]:
    return ("policy", "reference", "value") if critic_of(estimator) else ("policy", "reference")


def learner_parts(run: OnlineRun) -> LearnerParts:
    critic = critic_of(run.online.estimator)
    module, artifact = tuned_policy(run.policy, roles_of(run.online.estimator), run.seed, run.data)
    load_teachers(run, module)
    loss_terms = replay_loss_terms(online_loss_terms(run.online, run.rollout.temperature), run.replay)
    return LearnerParts(
        module, loss_terms, artifact, run.online, {"value": critic.value_learning_rate} if critic else {}
    )
