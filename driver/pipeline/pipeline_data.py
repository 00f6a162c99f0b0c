"""What a pipeline begins with, as files: generated, or derived from preference pairs, split and checked."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

from plumbob.configs.runs import PipelineRun
from plumbob.configs.settings.data import PipelineDataSettings, SplittingSettings
from plumbob.configs.settings.models import ModelRef, NewBertSettings, NewLlamaSettings, PipelinePolicySettings
from plumbob.configs.settings.rewards import CombinedReward
from plumbob.configs.settings.tuning.adapters import AdapterTuning
from plumbob.configs.settings.tuning.any_tuning import Tuning
from plumbob.core.activities import activities
from plumbob.core.errors import UserError
from plumbob.data.audit.training_checks import check_training
from plumbob.data.length_checks import check_limits
from plumbob.data.reading.readers import (
    read_demonstrations,
    read_dialogues,
    read_pairs,
    read_prompts,
    read_texts,
)
from plumbob.data.records import Demonstration, PreferencePair, Prompt, make_prompt
from plumbob.data.rendered_rows import RenderedRow
from plumbob.data.splitting import Split, check_overlap, hold_out
from plumbob.data.texts.chat_text import PlainDialogue, Render
from plumbob.data.texts.control_tokens import SpeltTokens
from plumbob.data.texts.tokenizer import Tokenizer
from plumbob.data.toy_world.gold_score import gold_score
from plumbob.data.toy_world.toy_files import build_world, write_world
from plumbob.driver.pipeline.pipeline_files import Files, files_in, prompt_line, write_jsonl
from plumbob.driver.pipeline.pipeline_rows import pipeline_rows
from plumbob.driver.pipeline.pipeline_sizes import pipeline_sizes, toy_sizes
from plumbob.driver.stages.stage import InputSizes
from plumbob.models.from_scratch import EOS, NEW_POLICY, PAD, check_sizes
from plumbob.models.loading import OpenedPolicy, open_policy
from plumbob.models.tuning.adapter_support import check_learner
from plumbob.models.tuning.methods import check_method, check_served, method_of
from plumbob.reward.open_scorer import check_reward, check_rows
from plumbob.reward.reward_models.dialogue_form import FormInUse
from plumbob.rollout.samplers.open_sampler import support_for, support_for_new
from plumbob.rollout.samplers.vllm.support import MIN_HEAD_WIDTH
from plumbob.trainers.offline.reward_modelling.reward_model import check_encoder


@dataclass(frozen=True)
class PreparedFiles:
    """Input that has been read and found good; called with a folder, it is written there.

    Attributes:
        notes: sentences about what was left out.
        rows: one of each input as the stages' models see it.
        sizes: as of `PreparedStage`.
    """

    notes: tuple[str, ...]
    write: Callable[[Path], Files]
    rows: tuple[RenderedRow, ...] = ()
    sizes: Callable[[], InputSizes] = InputSizes

    def __call__(self, folder: Path) -> Files:
        return self.write(folder)


@activities.during("reading the data and the models")
def prepare_files(run: PipelineRun) -> PreparedFiles:
    """Generate the world, or read and split the user's files. Raises UserError; writes nothing."""
    opened = check_models(run)
    if run.data.toy is not None:
        return _toy_files(run)
    return _real_files(run, None if opened is None else opened.tokenizer)


def check_models(run: PipelineRun) -> OpenedPolicy | None:
    """What later stages would refuse: models that cannot be read, and lengths that the models have no positions for.

    Returns:
        The policy that the pipeline begins with; None where it is made from scratch.

    Raises:
        UserError: names the settings that do not go together.
    """
    check_encoder(run.reward)
    for member in run.reward.further_members:
        check_reward(member)
    for part in run.reward.weighted_parts:
        check_reward(part.reward)
    data, policy = run.data, run.policy.ref
    match policy:
        case NewLlamaSettings():
            opened = None
            _check_new_policy(run, policy)
            positions, name = policy.max_positions - run.policy.num_virtual_tokens, f"{policy.setting}.max_positions"
        case ModelRef():
            opened = _open_policy(run, policy)
            positions, name = opened.num_positions, str(policy)
        case _:
            assert_never(policy)
    for key, tokens in (
        ("rollout.max_tokens", run.rollout.max_tokens),
        ("data.max_response_tokens", data.max_response_tokens),
    ):
        check_limits({"data.max_prompt_tokens": data.max_prompt_tokens, key: tokens}, positions, name)
    encoder = run.reward.encoder
    if isinstance(encoder, NewBertSettings):
        block = {"pretrain_encoder.block_tokens": run.pretrain_encoder.block_tokens}
        check_limits(block, encoder.max_positions, f"{encoder.setting}.max_positions")
    return opened


def _check_new_policy(run: PipelineRun, spec: NewLlamaSettings) -> None:
    tunings = [
        (*each, support_for_new(run.rollout, run.policy.dtype, NEW_POLICY, each[1])) for each in _tunings(run.policy)
    ]
    check_sizes(spec, MIN_HEAD_WIDTH)
    for setting, tuning, support in tunings:
        method_of(tuning).check_new(spec, setting, support)
        check_learner(f"the new {spec.setting}", None, tuning, run.learner)
    block = {"pretrain.block_tokens": run.pretrain.block_tokens}
    check_limits(block, spec.max_positions, f"{spec.setting}.max_positions")


def _open_policy(run: PipelineRun, ref: ModelRef) -> OpenedPolicy:
    opened = open_policy(ref)
    _ = opened.tokenizer
    as_it_is = support_for(run.rollout, opened)
    tunings = [(*each, support_for(run.rollout, opened, _published(*each))) for each in _tunings(run.policy)]
    check_served(opened, as_it_is)
    for setting, tuning, support in tunings:
        check_method(opened, tuning, setting, ("policy", "reference", "value"), support)
        check_learner(ref, opened.source.adapter, tuning, run.learner)
    return opened


def _tunings(policy: PipelinePolicySettings) -> tuple[tuple[str, Tuning], ...]:
    """With the setting that each one is."""
    return (("policy.sft_tuning", policy.sft_tuning), ("policy.tuning", policy.tuning))


def _published(setting: str, tuning: Tuning) -> Tuning | None:
    """What rollout workers are given of it: what supervised fine-tuning leaves of a full model they sample as it is."""
    return tuning if setting == "policy.tuning" or isinstance(tuning, AdapterTuning) else None


def _toy_files(run: PipelineRun) -> PreparedFiles:
    assert run.data.toy is not None
    world = build_world(run.data.toy, run.seed)

    def write(folder: Path) -> Files:
        write_world(world, folder)
        return files_in(folder, gold_score, world.noise_ceiling)

    return PreparedFiles((), write, sizes=lambda: toy_sizes(run, world))


def _real_files(run: PipelineRun, tokenizer: Tokenizer | None) -> PreparedFiles:
    data, render = run.data, FormInUse(tokenizer, PlainDialogue(SpeltTokens((EOS, PAD))))
    assert data.pairs is not None
    pairs = hold_out(
        lambda path: read_pairs(path, data, render),
        data.pairs,
        data.heldout_pairs,
        lambda pair: pair.prompt,
        data,
        run.seed,
    )
    if not pairs.heldout:
        raise UserError("nothing is held out: give data.heldout_pairs=FILE, or data.heldout_fraction above 0")
    form = render.form_of_messages()
    pairs, prompts = _without_overlap(pairs, _prompts(run, pairs, render), data)
    demonstrations = _demonstrations(run, pairs, prompts, render)
    text = _text(run, demonstrations, render)
    notes = tuple(dict.fromkeys(pairs.notes + prompts.notes + demonstrations.notes + text.notes))

    def write(folder: Path) -> Files:
        folder.mkdir(parents=True, exist_ok=True)
        for name, side in (("pairs", pairs.train), ("heldout_pairs", pairs.heldout)):
            write_jsonl(
                folder / f"{name}.jsonl",
                ({"prompt": p.prompt, "chosen": p.chosen, "rejected": p.rejected} for p in side),
            )
        for name, asked in (("prompts", prompts.train), ("heldout_prompts", prompts.heldout)):
            write_jsonl(folder / f"{name}.jsonl", map(prompt_line, asked))
        shown = ({"prompt": d.prompt, "completion": d.response} for d in demonstrations.train)
        write_jsonl(folder / "demonstrations.jsonl", shown)
        write_jsonl(folder / "text.jsonl", ({"text": document} for document in text.train))
        return files_in(folder, form=form, notes=notes)

    inputs = (text, demonstrations, pairs, prompts)
    return PreparedFiles(
        notes, write, pipeline_rows(run.data, tokenizer, *inputs), lambda: pipeline_sizes(run, tokenizer, *inputs)
    )


def _prompts(run: PipelineRun, pairs: Split[PreferencePair], render: Render) -> Split[Prompt]:
    """The user's prompts, less a held-out share; or those of the pairs, on the side where the pair stands."""
    if run.data.prompts is not None:
        reward = CombinedReward(run.reward.weighted_parts)
        prompts = hold_out(
            lambda path: read_prompts(path, run.data, render, keeps_rows=reward.reads_rows),
            run.data.prompts,
            None,
            lambda p: p.text,
            run.data,
            run.seed,
        )
        if not prompts.heldout:
            raise UserError(
                f"{run.data.prompts}: no prompt is held out to evaluate on: set data.heldout_fraction above 0 and "
                f"give at least two prompts, or leave data.prompts out, which takes those of the pairs"
            )
        check_rows([reward], [*prompts.train, *prompts.heldout], run.data.prompts)
        return prompts
    train, heldout = (
        tuple(make_prompt(text) for text in dict.fromkeys(pair.prompt for pair in side))
        for side in (pairs.train, pairs.heldout)
    )
    return Split(train, heldout, ())


def _without_overlap(
    pairs: Split[PreferencePair], prompts: Split[Prompt], rules: SplittingSettings
) -> tuple[Split[PreferencePair], Split[Prompt]]:
    """The same splits, neither of which trains on a prompt that the other holds out."""
    asked = [PreferencePair(prompt.text, "", "") for prompt in prompts.heldout]
    heldout_prompts = [make_prompt(pair.prompt) for pair in pairs.heldout]
    kept_pairs, pairs_notes = check_overlap(
        pairs.train, asked, lambda pair: pair.prompt, rules, "data.pairs and the prompts held out of data.prompts"
    )
    kept_prompts, prompts_notes = check_overlap(
        prompts.train, heldout_prompts, lambda prompt: prompt.text, rules, "data.prompts and the held-out pairs"
    )
    return (
        Split(tuple(kept_pairs), pairs.heldout, pairs.notes + pairs_notes),
        Split(tuple(kept_prompts), prompts.heldout, prompts.notes + prompts_notes),
    )


def _demonstrations(
    run: PipelineRun, pairs: Split[PreferencePair], prompts: Split[Prompt], render: Render
) -> Split[Demonstration]:
    """The user's demonstrations, none of them on a held-out prompt; or the chosen responses of the training pairs."""
    if run.data.demonstrations is None:
        return Split(tuple(Demonstration(pair.prompt, pair.chosen) for pair in pairs.train), (), ())
    found, notes = _imitated(run.data, run.data.demonstrations, render)
    asked = dict.fromkeys([prompt.text for prompt in prompts.heldout] + [pair.prompt for pair in pairs.heldout])
    heldout = [Demonstration(prompt, "") for prompt in asked]
    kept, overlap = check_overlap(
        found, heldout, lambda d: d.prompt, run.data, "data.demonstrations and the held-out prompts"
    )
    return Split(tuple(kept), (), notes + overlap)


def _imitated(
    data: PipelineDataSettings, file: str, render: Render
) -> tuple[tuple[Demonstration, ...], tuple[str, ...]]:
    """The last turn of each conversation, or each one that is learnt as a demonstration of its own; and notes."""
    if data.learnt_turns == "last":
        read = read_demonstrations(file, data, render)
        records, found = check_training(read.records, data.checks, file)
        return tuple(records), read.notes + found
    dialogues = read_dialogues(file, data, render, data.learnt_turns)
    kept, found = check_training(dialogues.records, data.checks, file)
    return tuple(turn for dialogue in kept for turn in dialogue.turns), dialogues.notes + found


def _text(run: PipelineRun, demonstrations: Split[Demonstration], render: Render) -> Split[str]:
    """The user's documents, or the demonstrations as text; none is held out here."""
    if run.data.text is None:
        return Split(tuple(shown.prompt + shown.response for shown in demonstrations.train), (), ())
    read = read_texts(run.data.text, run.data, render)
    records, found = check_training(read.records, run.data.checks, run.data.text)
    return Split(tuple(records), (), read.notes + found)
