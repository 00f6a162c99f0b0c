"""The embedded default: a generated world of questions about invented cars, mixed responses and noisy preferences.

Everything is decided by the settings and the seed. The gold reward of `gold_score` draws preferences.
"""

import json
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from plumbob.configs.settings.data import ToyWorldSettings
from plumbob.core.errors import UserError
from plumbob.data.records import Demonstration, PreferencePair
from plumbob.data.toy_world.gold_score import gold_score
from plumbob.data.toy_world.language import (
    ATTRIBUTES,
    GREETINGS,
    NAMES,
    Attribute,
    Style,
    facts,
    response,
    sentence,
    statement,
)

HELDOUT_EVERY = 4
"""One phrasing in four of every fact is kept for the held-out side: the fact is known, the question is new."""

TEXT_STYLES: Mapping[Style, float] = {
    **{"polite": 14, "detailed": 14, "plain": 24, "curt": 14},
    **{"wrong": 6, "wrong-curt": 2, "beside": 1, "evasive": 8, "rude": 5, "joke": 8},
    **{"unfinished": 2, "repeated": 1, "scrambled": 2},
}
DEMONSTRATION_STYLES: Mapping[Style, float] = {
    **{"polite": 12, "detailed": 10, "plain": 26, "curt": 12},
    **{"wrong": 13, "wrong-curt": 4, "beside": 1, "evasive": 12, "rude": 6, "joke": 12},
    **{"unfinished": 1, "repeated": 1, "scrambled": 1},
}
PAIR_STYLES: Mapping[Style, float] = {
    **{"polite": 12, "detailed": 12, "plain": 14, "curt": 10},
    **{"wrong": 16, "wrong-curt": 6, "beside": 2, "evasive": 8, "rude": 4, "joke": 8},
    **{"unfinished": 4, "repeated": 3, "scrambled": 2},
}


@dataclass(frozen=True)
class World:
    """What the stages of the embedded default read.

    Attributes:
        texts: documents for self-supervised training: facts told in many ways, and questions with responses of all
            kinds.
        demonstrations: responses of mixed quality to training prompts.
        pairs, heldout_pairs: noisy preferences, on training and on held-out prompts.
        prompts, heldout_prompts: every prompt of each side; no text stands in both.
    """

    texts: tuple[str, ...]
    demonstrations: tuple[Demonstration, ...]
    pairs: tuple[PreferencePair, ...]
    heldout_pairs: tuple[PreferencePair, ...]
    prompts: tuple[str, ...]
    heldout_prompts: tuple[str, ...]

    @property
    def noise_ceiling(self) -> float:
        return noise_ceiling(self.heldout_pairs)


@dataclass(frozen=True)
class _Question:
    prompt: str
    car: str
    attribute: Attribute


def build_world(settings: ToyWorldSettings, seed: int) -> World:
    """The world of a seed: the same settings and seed give the same records."""
    if settings.num_cars > len(NAMES):
        raise UserError(f"data.toy.num_cars={settings.num_cars}: the world has {len(NAMES)} cars; give at most that")
    rng = random.Random(seed)
    train, heldout = _questions(NAMES[: settings.num_cars], rng)
    return World(
        texts=tuple(_document(rng, train) for _ in range(settings.num_texts)),
        demonstrations=tuple(_demonstration(rng, train) for _ in range(settings.num_demonstrations)),
        pairs=tuple(_pair(rng, train, settings.preference_noise) for _ in range(settings.num_pairs)),
        heldout_pairs=tuple(_pair(rng, heldout, settings.preference_noise) for _ in range(settings.num_heldout_pairs)),
        prompts=tuple(question.prompt for question in train),
        heldout_prompts=tuple(question.prompt for question in heldout),
    )


def write_world(world: World, folder: Path) -> None:
    """Write the records as the JSONL files that a user would bring, into an existing or new folder."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "text.jsonl", ({"text": text} for text in world.texts))
    _write(
        folder / "demonstrations.jsonl",
        ({"prompt": demo.prompt, "completion": demo.response} for demo in world.demonstrations),
    )
    for name, pairs in (("pairs", world.pairs), ("heldout_pairs", world.heldout_pairs)):
        rows = ({"prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected} for pair in pairs)
        _write(folder / f"{name}.jsonl", rows)
    for name, prompts in (("prompts", world.prompts), ("heldout_prompts", world.heldout_prompts)):
        _write(folder / f"{name}.jsonl", ({"prompt": prompt} for prompt in prompts))


def noise_ceiling(pairs: Sequence[PreferencePair]) -> float:
    """Accuracy on these pairs of choosing by the true gold score; a tie counts half.

    No predictor can expect more, since the gold score decides every pair's odds. It is taken on the labels as they were
    drawn, not as the mean of max(p, 1 - p), because a model's accuracy is measured on the same labels: what luck there
    is in them then moves both accuracies alike.
    """
    margins = [gold_score(pair.prompt, pair.chosen) - gold_score(pair.prompt, pair.rejected) for pair in pairs]
    return sum(1.0 if margin > 0 else 0.5 if margin == 0 else 0.0 for margin in margins) / len(margins)


# ------------------------------------------------------------------------------------------------------------- drawing


def _questions(cars: Sequence[str], rng: random.Random) -> tuple[list[_Question], list[_Question]]:
    """Every car, attribute and phrasing, as (training, held-out)."""
    train: list[_Question] = []
    heldout: list[_Question] = []
    for car in cars:
        for attribute in ATTRIBUTES:
            forms = [greeting + form.format(car=car) for greeting in GREETINGS for form in attribute.questions]
            questions = [_Question(f"Question: {form}\nAnswer:", car, attribute) for form in forms]
            rng.shuffle(questions)
            cut = len(questions) // HELDOUT_EVERY
            heldout += questions[:cut]
            train += questions[cut:]
    rng.shuffle(train)
    rng.shuffle(heldout)
    return train, heldout


def _drawn_response(rng: random.Random, question: _Question, styles: Mapping[Style, float]) -> str:
    (style,) = rng.choices(list(styles), weights=list(styles.values()))
    return " " + response(rng, style, question.car, question.attribute)


def _document(rng: random.Random, questions: Sequence[_Question]) -> str:
    question = rng.choice(questions)
    kind = rng.random()
    if kind < 0.5:
        return question.prompt + _drawn_response(rng, question, TEXT_STYLES)
    known = facts()[question.car]
    if kind < 0.6:
        return sentence(statement(rng, question.car, question.attribute, known[question.attribute.name]))
    described = rng.sample(ATTRIBUTES, rng.randint(2, len(ATTRIBUTES)))
    subjects = [f"the {question.car}", *["it"] * (len(described) - 1)]
    return " ".join(
        sentence(statement(rng, question.car, attribute, known[attribute.name], subject))
        for attribute, subject in zip(described, subjects, strict=True)
    )


def _demonstration(rng: random.Random, questions: Sequence[_Question]) -> Demonstration:
    question = rng.choice(questions)
    return Demonstration(question.prompt, _drawn_response(rng, question, DEMONSTRATION_STYLES))


def _pair(rng: random.Random, questions: Sequence[_Question], noise: float) -> PreferencePair:
    """Two different responses; P(the first is preferred) = sigmoid((gold(first) - gold(second)) / noise)."""
    question = rng.choice(questions)
    first = second = _drawn_response(rng, question, PAIR_STYLES)
    while second == first:
        second = _drawn_response(rng, question, PAIR_STYLES)
    margin = (gold_score(question.prompt, first) - gold_score(question.prompt, second)) / noise
    if rng.random() < 0.5 * (1 + math.tanh(margin / 2)):
        return PreferencePair(question.prompt, first, second)
    return PreferencePair(question.prompt, second, first)


def _write(path: Path, rows: Iterable[Mapping[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
