"""What the online loop begins with: its policy and its prompts, read and checked, and its learner's parts."""

from collections.abc import Sequence
from dataclasses import dataclass

from plumbob.configs.runs import OnlineRun
from plumbob.configs.settings.algorithms import Estimator, critic_of
from plumbob.data.encoded_files import by_file, by_setting, encode_training
from plumbob.data.epoch_order import Mixture
from plumbob.data.length_checks import check_context
from plumbob.data.prompts import EncodedPrompt, encode_prompts
from plumbob.data.reading.readers import read_prompts
from plumbob.data.rendered_rows import RenderedRow, prompt_rows
from plumbob.data.splitting import hold_out_each
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
        dropped: of each file, prompts that are too long.
        mixture: how the files are weighted that `train` is of; None of one file.
    """

    train: tuple[EncodedPrompt, ...]
    pad_id: int
    notes: tuple[str, ...]
    retained: RetainedText | None = None
    replayed: PackedText | None = None
    rows: tuple[RenderedRow, ...] = ()
    dropped: tuple[tuple[TooLong, ...], ...] = ()
    mixture: Mixture | None = None


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
    for reader in scored:
        render = reader.beside(render)
    rewards = [group.reward for group in (run.reward, run.gold_reward) if group is not None]
    has_rows = run.rollout.environment is not None or run.teachers_by is not None
    reads_rows = has_rows or any(reward.reads_rows for reward in rewards)
    with openings_of(run.rollout.environment, run.seed) as opening:
        split = hold_out_each(
            lambda path: read_prompts(path, data, render, reads_rows, opening),
            tuple(data.weights),
            data.heldout_prompts,
            # Of an environment many rows may open alike: each is a prompt of its own.
            lambda prompt: prompt.text if run.rollout.environment is None else prompt.prompt_id,
            data,
            run.seed,
        )
    files = encode_training(data, split, lambda prompts: encode_prompts(tokenizer, prompts, data.max_prompt_tokens))
    for path, prompts in by_file(data, files.train, files.mixture):
        check_rows(rewards, prompts, path)
    longest = max(len(prompt.ids) for prompt in files.train)
    check_context(longest, run.rollout.max_tokens, opened.num_positions)
    taught = prepare_teachers(run, opened, files.train)
    retained = prepare_retention(run.retention, opened)
    replayed = prepare_replay(run.replay, opened)
    texts = [prompt.text for prompt in files.train]
    mismatch_notes = tuple(note for reader in scored for note in reader.notes(texts))
    notes = files.notes + mismatch_notes + taught + notes_of(retained, replayed)
    rows = tuple(
        row
        for setting, prompts in by_setting(data, files.train, files.mixture)
        for row in prompt_rows(
            setting,
            tokenizer,
            [one.ids for one in prompts],
            [part for reader in scored for part in reader.parts(prompts[0].text)],
        )
    )
    rows += rows_of(retained, replayed)
    pad_id = tokenizer.pad_token_id
    return OnlineInput(files.train, pad_id, notes, retained, replayed, rows, files.dropped, files.mixture)


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
