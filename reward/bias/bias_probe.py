"""A reward is asked about texts and the same with another group's terms (`BiasProbe`), and checked against a bound."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plumbob.configs.settings.data import ReadingSettings
from plumbob.configs.settings.rewards import Reward
from plumbob.configs.settings.stewardship.bias_checks import BiasCheckSettings
from plumbob.core.activities import activities
from plumbob.core.errors import UserError
from plumbob.data.audit.audited_rows import read_audited
from plumbob.data.bias.probe_texts import probe_texts
from plumbob.data.bias.term_pairs import read_term_pairs
from plumbob.data.bias.term_swaps import Counterfactual, CounterfactualTexts, Text, counterfactual_texts, term_swaps
from plumbob.data.texts.chat_text import Message, plain_dialogue
from plumbob.reward.bias.group_differences import GroupDifference, group_differences
from plumbob.reward.reward_models.dialogue_form import load_form
from plumbob.reward.reward_models.reward_prompts import RewardPrompts
from plumbob.reward.scorer import Scorer, ScoreRequest


@dataclass(frozen=True)
class MeasuredBias:
    """Of a reward.

    Attributes:
        bound: a mean difference that is above it, and larger than the noise, is too much; None of none.
    """

    differences: tuple[GroupDifference, ...]
    bound: float | None

    @property
    def past_bound(self) -> tuple[GroupDifference, ...]:
        bound = math.inf if self.bound is None else self.bound
        return tuple(one for one in self.differences if one.is_real and abs(one.mean) > bound)

    def sentence(self) -> str | None:
        """What is past the bound, for a person; None where nothing is."""
        if not self.past_bound:
            return None
        worst = max(self.past_bound, key=lambda one: abs(one.mean))
        more = len(self.past_bound) - 1
        bounds = "" if worst.ci95 is None else f" [{worst.ci95[0]:.2f}, {worst.ci95[1]:.2f}]"
        return (
            f"the reward depends on which group a text names: {worst.contrast}: {worst.mean:+.2f}{bounds} over "
            f"{worst.num_texts} texts that differ in terms alone"
            + (f", and {more} more contrasts are past the bound" if more else "")
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"bound": self.bound, "differences": [one.as_dict() for one in self.differences]}


class BiasProbe:
    """The texts by which a reward is measured: those of a file, or dialogues of our own.

    Raises:
        UserError: a file cannot be read, or none of its texts names a group.
    """

    def __init__(self, settings: BiasCheckSettings, reward: Reward) -> None:
        self._settings = settings
        self._prompts = RewardPrompts(reward)
        pairs = read_term_pairs(settings.terms)
        self._swaps = {swap.contrast: swap for swap in term_swaps(pairs)}
        if settings.texts is None:
            found = CounterfactualTexts(probe_texts(pairs, _asker(self._prompts, reward)), {})
        else:
            found = counterfactual_texts(_texts_of(settings, self._prompts), tuple(self._swaps.values()))
        if not found.pairs:
            raise UserError(
                f"{settings.texts or 'our own dialogues'}: no text names one of two groups that the terms compare, "
                f"those of {settings.terms or 'our list'}: give texts about people, or terms that stand in them "
                f"(`plumbob bias terms` writes ours, to be edited)"
            )
        self.texts = found

    def note(self) -> str:
        """What the check will do, for a person."""
        dimensions = ", ".join(dict.fromkeys(pair.contrast.dimension for pair in self.texts.pairs))
        past = "refused" if self._settings.past_bound == "refuse" else "warned of"
        return (
            f"bias: the reward scores {2 * len(self.texts.pairs):,} texts, each beside the same with another group's "
            f"terms ({dimensions}); a mean difference above bias.max_difference={self._settings.max_difference:g} that "
            f"is larger than the noise is {past}"
        )

    @activities.during("measuring the reward's bias")
    def measured(self, scorer: Scorer) -> MeasuredBias:
        """ScoreError where a score is not finite."""
        pairs = self.texts.pairs
        first = _totals(scorer, [self._request(pair.first, pair.second, pair) for pair in pairs])
        second = _totals(scorer, [self._request(pair.second, pair.first, pair) for pair in pairs])
        differences = group_differences(pairs, first, second, self.texts.num_mixed)
        return MeasuredBias(differences, self._settings.max_difference)

    def checked(self, scorer: Scorer) -> MeasuredBias:
        """The same. UserError where it is past the bound and that is refused."""
        found = self.measured(scorer)
        sentence = found.sentence()
        if sentence is not None and self._settings.past_bound == "refuse":
            raise UserError(
                f"{sentence}: above bias.max_difference={self._settings.max_difference:g}. Train the reward model with "
                f"reward_training.mitigation (docs/stewardship.md), raise the bound, or set bias.past_bound=warn"
            )
        return found

    def _request(self, text: Text, other: Text, pair: Counterfactual) -> ScoreRequest:
        """What was swapped in the prompt is swapped in each model's own form of it."""
        forms = self._prompts.form_prompts(text[0])
        if not forms:
            swap = self._swaps[pair.contrast]
            forms = {model: swap.swapped(form) for model, form in self._prompts.form_prompts(other[0]).items()}
        return ScoreRequest(*text, form_prompts=forms)


def _asker(prompts: RewardPrompts, reward: Reward) -> Callable[[str], str]:
    """A person's question -> the prompt, as the first of the models was trained: in its chat template, as a dialogue,
    or the question alone."""
    render = prompts.instead_of(plain_dialogue)
    form = load_form(reward.models[0]) if reward.models else None

    def asked(question: str) -> str:
        messages: list[Message] = [{"role": "user", "content": question}]
        dialogue = render(messages)
        if form is None or form.chat_template is not None or (form.ending and dialogue.endswith(form.ending)):
            return dialogue
        return question

    return asked


def _texts_of(settings: BiasCheckSettings, prompts: RewardPrompts) -> Iterable[Text]:
    """At most as many as are asked for, spread evenly over the file."""
    assert settings.texts is not None
    rows = read_audited(settings.texts, ReadingSettings(), prompts.instead_of(plain_dialogue)).rows
    found = [(row.prompt, response) for row in rows for response in row.responses]
    num_kept = min(settings.max_texts, len(found))
    return [found[index * len(found) // num_kept] for index in range(num_kept)]


def _totals(scorer: Scorer, requests: Sequence[ScoreRequest]) -> NDArray[np.float64]:
    return np.array([score.total for score in scorer.score(requests)], np.float64)
