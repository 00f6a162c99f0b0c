"""What an evaluation reads: pairs that a reward model is measured on, prompts that a policy is asked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from plumbob.configs.runs import EvalRun
from plumbob.configs.settings.models import POLICY_ALSO, EvaluatedPolicySettings
from plumbob.configs.settings.rewards import ScorerSettings
from plumbob.configs.settings.training import MIN_COMPARED
from plumbob.configs.settings.workers import RolloutSettings
from plumbob.core.activities import activities
from plumbob.core.errors import UserError
from plumbob.data.length_checks import check_context
from plumbob.data.prompts import EncodedPrompt, encode_prompts
from plumbob.data.reading.readers import read_annotated_pairs, read_prompts
from plumbob.data.records import Ranking
from plumbob.data.rendered_rows import RenderedRow, prompt_rows, text_rows
from plumbob.data.texts.chat_text import chat_renderer, plain_dialogue
from plumbob.driver.measures.response_tables import check_writable_table
from plumbob.driver.run_folder.made_adapter import facts_of
from plumbob.driver.run_folder.made_policy import short_name
from plumbob.driver.stages.model_sampling import rollout_of
from plumbob.models.library.base_digest import known_base
from plumbob.models.library.library_entry import LibraryEntry
from plumbob.models.loading import OpenedPolicy, open_baseline, open_policy
from plumbob.models.resolution import read_adapter_config
from plumbob.models.tuning.adapter_support import AdapterSupport
from plumbob.models.tuning.methods import check_served
from plumbob.reward.open_scorer import check_reward, check_rows
from plumbob.reward.reward_models.reward_prompts import RewardPrompts
from plumbob.rollout.environments.openings import openings_of
from plumbob.rollout.samplers.open_sampler import support_for
from plumbob.trainers.forgetting.packed_text import PackedText
from plumbob.trainers.forgetting.retention import measured_text

ALONE, BASELINE = "policy", "baseline"
"""What a policy that is measured alone is called beside its baseline."""


@dataclass(frozen=True)
class EvaluatedPolicy:
    """A policy with the prompts that it is asked.

    Attributes:
        opened: the policy.
        baseline: what it is compared with; None for a full model without one, which is described by itself.
        scored: how the reward model reads the prompts; None where it reads them as the policy does.
        beside: name -> each policy that is measured beside the others, this one first; none where it is alone.
        held: names of the adapters among them that one engine holds at once; each other has the engine to itself.
        text: what perplexity is measured on; None measures none.
    """

    opened: OpenedPolicy
    baseline: OpenedPolicy | None
    prompts: tuple[EncodedPrompt, ...]
    pad_id: int
    scored: RewardPrompts | None = None
    beside: Mapping[str, OpenedPolicy] = field(default_factory=dict)
    held: frozenset[str] = frozenset()
    text: PackedText | None = None


@dataclass(frozen=True)
class EvalInput:
    """Pairs for the reward model, which may be none; a policy where one is measured; notes on what was left out.

    Attributes:
        rows: one of each input as the models see it.
        pairs_scored: how the reward models read the prompts of the pairs; None where they read them as they are.
    """

    pairs: tuple[Ranking, ...]
    policy: EvaluatedPolicy | None
    notes: tuple[str, ...]
    rows: tuple[RenderedRow, ...] = ()
    pairs_scored: RewardPrompts | None = None


@activities.during("reading the data and the models")
def prepare_eval(run: EvalRun) -> EvalInput:
    """Read and check pairs and prompts. Raises UserError; starts and writes nothing."""
    check_reward(scorer_of(run).reward)
    if run.evaluation.responses_file is not None:
        check_writable_table(Path(run.evaluation.responses_file))
    notes: tuple[str, ...] = ()
    pairs: tuple[Ranking, ...] = ()
    policy = None
    if run.policy is not None:
        policy, notes = _prepare_policy(run, run.policy)
    scored = RewardPrompts(run.reward.reward)
    if run.data.pairs is not None:
        render = plain_dialogue if policy is None else chat_renderer(policy.opened.tokenizer)
        read = read_annotated_pairs(run.data.pairs, run.data, scored.instead_of(render), use_margin=False)
        pairs = read.records
        notes += read.notes + scored.notes([pair.prompt for pair in pairs])
    return EvalInput(pairs, policy, tuple(dict.fromkeys(notes)), _rows(policy, pairs, scored), scored)


def _rows(policy: EvaluatedPolicy | None, pairs: Sequence[Ranking], scored: RewardPrompts) -> tuple[RenderedRow, ...]:
    rows: tuple[RenderedRow, ...] = ()
    if policy is not None:
        as_scored = () if policy.scored is None else policy.scored.parts(policy.prompts[0].text)
        ids = [prompt.ids for prompt in policy.prompts]
        rows += prompt_rows("data.prompts", policy.opened.tokenizer, ids, as_scored)
    for pair in pairs[:1]:
        responses = zip(("chosen", "rejected"), pair.responses, (False, False), strict=True)
        others = [(part.name, part.text, False) for part in scored.parts(pair.prompt)]
        rows += text_rows("data.pairs", len(pairs), ("prompt", pair.prompt, False), *others, *responses)
    return rows


def _prepare_policy(run: EvalRun, settings: EvaluatedPolicySettings) -> tuple[EvaluatedPolicy, tuple[str, ...]]:
    """The policy, its baseline and its prompts, and notes about those left out."""
    assert run.data.prompts is not None, "a policy is measured on prompts"
    opened = open_policy(settings.ref)
    support = support_for(rollout_of(run), opened)
    tokenizer = opened.tokenizer
    check_served(opened, support)
    beside, held = _open_beside(settings, opened, run.rollout, support)
    baseline = open_baseline(settings)
    if baseline is not None:
        check_served(baseline, support, ("reference",))
    scored = RewardPrompts(run.reward.reward)
    reads_rows = run.rollout.environment is not None or run.reward.reward.reads_rows
    with openings_of(run.rollout.environment, run.seed) as opening:
        read = read_prompts(run.data.prompts, run.data, scored.beside(chat_renderer(tokenizer)), reads_rows, opening)
    encoded = encode_prompts(tokenizer, read.records, run.data.max_prompt_tokens)
    order = np.random.default_rng(run.seed).permutation(len(encoded.records))[: run.evaluation.num_prompts]
    prompts = tuple(encoded.records[index] for index in order)
    if len(prompts) < MIN_COMPARED and (baseline is not None or beside):
        raise UserError(
            f"data.prompts={run.data.prompts}: one prompt is asked, and policies are compared over {MIN_COMPARED} or "
            f"more: give more prompts, and evaluation.num_prompts={MIN_COMPARED} or more"
        )
    check_rows([run.reward.reward], prompts, run.data.prompts)
    longest = max(len(prompt.ids) for prompt in prompts)
    positions = min(each.num_positions for each in (opened, *beside.values()))
    check_context(longest, run.rollout.max_tokens, positions)
    notes = read.notes + encoded.notes + scored.notes([prompt.text for prompt in prompts])
    notes += tuple(note for each in beside.values() or (opened,) for note in _notes_of_bits(each))
    text = None
    if run.perplexity is not None:
        text = measured_text("perplexity", run.perplexity, opened)
        notes += text.notes
    return EvaluatedPolicy(opened, baseline, prompts, tokenizer.pad_token_id, scored, beside, held, text), notes


def _open_beside(
    settings: EvaluatedPolicySettings, policy: OpenedPolicy, rollout: RolloutSettings, support: AdapterSupport
) -> tuple[dict[str, OpenedPolicy], frozenset[str]]:
    """The policy and the further ones, each under a name of its own; and which of them one engine is to hold.

    The names are the ends of what was given, or all of it where two end alike, or one is called as the baseline. Held
    at once are adapters of the policy's kind on its base, where it is one itself.

    Raises:
        UserError: one reads its prompts otherwise, cannot be served, or is given twice.
    """
    if not settings.also:
        return {}, frozenset()
    opened = [policy, *map(open_policy, settings.also_refs)]
    for each in opened:
        if _tokenization(each) != _tokenization(policy):
            raise UserError(f"{each.ref}: has another tokenizer than {policy.ref}: measure it alone")
        check_served(each, support)
    names = [each.ref.name for each in opened]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{POLICY_ALSO}: {twice} is given twice; give it once")
    choices = [short_name(name) for name in names], names, [str(each.ref) for each in opened]
    titles = next(each for each in choices if len(set(each)) == len(each) and BASELINE not in each)
    beside = dict(zip(titles, opened, strict=True))
    held = frozenset(name for name, each in beside.items() if _is_held_with(each, policy))
    if rollout.adapter == "merged" and len(held) > 1:
        raise UserError(
            f"{POLICY_ALSO} has an engine hold several adapters at once, and rollout.adapter=merged holds one: leave "
            f"rollout.adapter out, or measure them one by one"
        )
    return beside, held


def _is_held_with(other: OpenedPolicy, policy: OpenedPolicy) -> bool:
    """Whether one engine can hold both, as adapters."""
    adapters = [one.source.adapter for one in (other, policy) if one.source.adapter is not None]
    kinds = {str(read_adapter_config(adapter)["peft_type"]) for adapter in adapters}
    return len(adapters) == 2 and len(kinds) == 1 and known_base(other.source.base) == known_base(policy.source.base)


def _notes_of_bits(opened: OpenedPolicy) -> tuple[str, ...]:
    """Where an adapter is measured on another base than the bits that it was trained on."""
    adapter = opened.source.adapter
    if adapter is None or opened.ref.quantization is not None:
        return ()
    entry = LibraryEntry.read_beside(adapter)
    bits = (facts_of(adapter) if entry is None else entry.facts).quantization
    if not bits:
        return ()
    return (
        f"{opened.ref}: was trained on a base in few bits, and is measured on the base as it is stored: "
        f"policy.quantization.kind={bits['kind']} measures it on its own",
    )


def _tokenization(opened: OpenedPolicy) -> tuple[Any, ...]:
    """What decides which tokens a dialogue becomes, and which of them end and pad it."""
    tokenizer = opened.tokenizer
    fast = getattr(tokenizer, "backend_tokenizer", None)
    how = (type(tokenizer), tokenizer.get_vocab()) if fast is None else fast.to_str()
    return how, tokenizer.chat_template, tokenizer.eos_token_id, tokenizer.pad_token_id


def scorer_of(run: EvalRun) -> ScorerSettings:
    """The run's scorer; pairs alone are compared by one model's raw scores, which need no calibration."""
    return run.reward.uncalibrated() if run.policy is None else run.reward
