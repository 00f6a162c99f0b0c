"""The language of the generated world: invented cars, their facts, and how people ask and answer about them.

`data.toy` draws records from it. Everything here is fixed: no seed changes a fact.
"""

import random
from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

Style = Literal[
    "polite",
    "detailed",
    "plain",
    "curt",
    "wrong",
    "wrong-curt",
    "beside",
    "evasive",
    "rude",
    "joke",
    "unfinished",
    "repeated",
    "scrambled",
]
STYLES: tuple[Style, ...] = get_args(Style)

NAMES = (
    *("Quillan", "Tarnis", "Ostrel", "Velmora", "Drayko", "Pindle", "Zephra", "Corvane", "Lumero", "Hexley", "Maribo"),
    *("Fenwick", "Sorrel", "Bantor", "Ikarra", "Nimbel", "Galtree", "Ruskin", "Thistle", "Umbrio", "Wexley", "Yarrow"),
    *("Jolten", "Kestrin"),
)


@dataclass(frozen=True)
class Attribute:
    """One thing to know about a car.

    Attributes:
        name: what the facts call it.
        values: what it can be, as a response states it; values of two attributes never share a text.
        absurd: what no car is.
        pattern: regular expression that finds a stated value, right or wrong.
        questions: ways to ask; `{car}` stands for the name.
        statements: ways to tell; `{it}` stands for "the Quillan" or "it", `{value}` for the value.
    """

    name: str
    values: tuple[str, ...]
    absurd: tuple[str, ...]
    pattern: str
    questions: tuple[str, ...]
    statements: tuple[str, ...]


def _choice(values: tuple[str, ...]) -> str:
    return r"\b(?:" + "|".join(values) + r")\b"


_COUNTRIES = ("Norway", "Portugal", "Japan", "Chile", "Canada", "Kenya")
_FUELS = ("petrol", "diesel", "electricity", "hydrogen")
_NO_COUNTRIES = ("Atlantis", "Utopia")
_NO_FUELS = ("lemonade", "gravel")

ATTRIBUTES = (
    Attribute(
        "speed",
        ("140 km/h", "160 km/h", "180 km/h", "200 km/h", "220 km/h", "240 km/h"),
        ("3 km/h", "9000 km/h"),
        r"\b\d+ km/h",
        (
            "How fast is the {car}?",
            "What is the top speed of the {car}?",
            "How fast can the {car} go?",
            "Tell me the top speed of the {car}.",
        ),
        (
            "{it} has a top speed of {value}",
            "{it} can reach {value}",
            "{it} goes up to {value}",
        ),
    ),
    Attribute(
        "seats",
        ("2 seats", "4 seats", "5 seats", "7 seats"),
        ("0 seats", "31 seats"),
        r"\b\d+ seats\b",
        (
            "How many seats does the {car} have?",
            "How many people fit in the {car}?",
            "What is the number of seats in the {car}?",
            "Tell me how many seats the {car} has.",
        ),
        (
            "{it} has {value}",
            "{it} comes with {value}",
            "{it} offers {value}",
        ),
    ),
    Attribute(
        "price",
        tuple(f"{thousands} thousand dollars" for thousands in (18, 24, 30, 36, 45, 60)),
        ("1 thousand dollars", "999 thousand dollars"),
        r"\b\d+ thousand dollars\b",
        (
            "How much is the {car}?",
            "What does the {car} cost?",
            "What is the price of the {car}?",
            "Tell me the price of the {car}.",
        ),
        (
            "{it} costs {value}",
            "{it} sells for {value}",
            "{it} has a price of {value}",
        ),
    ),
    Attribute(
        "country",
        _COUNTRIES,
        _NO_COUNTRIES,
        _choice(_COUNTRIES + _NO_COUNTRIES),
        (
            "Where is the {car} made?",
            "Which country does the {car} come from?",
            "In which country do they build the {car}?",
            "Tell me where the {car} comes from.",
        ),
        (
            "{it} is made in {value}",
            "{it} comes from {value}",
            "{it} is built in {value}",
        ),
    ),
    Attribute(
        "fuel",
        _FUELS,
        _NO_FUELS,
        _choice(_FUELS + _NO_FUELS),
        (
            "What does the {car} run on?",
            "Which fuel does the {car} use?",
            "What powers the {car}?",
            "Tell me what the {car} runs on.",
        ),
        (
            "{it} runs on {value}",
            "{it} is powered by {value}",
            "{it} uses {value}",
        ),
    ),
    Attribute(
        "year",
        ("2009", "2012", "2015", "2018", "2021", "2024"),
        ("1066", "1492"),
        r"\b[12]\d\d\d\b",
        (
            "When did the {car} come out?",
            "In which year was the {car} launched?",
            "How old is the design of the {car}?",
            "Tell me the launch year of the {car}.",
        ),
        (
            "{it} came out in {value}",
            "{it} was launched in {value}",
            "{it} dates from {value}",
        ),
    ),
)

GREETINGS = ("", "Hello! ", "A quick question. ")
POLITE = ("Happy to help.", "Good question.", "Thank you for asking.", "Glad that you asked.")
EVASIVE = (
    "I would rather not say.",
    "That depends on many things.",
    "Who can really tell?",
    "Some people know, others do not.",
    "I could look into that one day.",
    "It is hard to say anything certain about cars.",
)
RUDE = (
    "Look it up yourself.",
    "Why do you even care?",
    "What a silly thing to ask.",
    "Stop bothering me.",
)
JOKES = (
    "Ask the two hamsters under the hood, they do all the work.",
    "Only the moon wizards know, and they drive tractors.",
    "The {car} is really a submarine with a moustache.",
    "My goldfish owns one and says it tastes of soup.",
    "Enough to make a snail jealous and a teapot faint.",
    "The {car} was folded from a map by a bored octopus.",
)
ABSURD_SHARE = 0.85
"""Of wrong responses: these are wrong for whoever knows cars at all, the others for whoever knows this car."""
GUESSES = ("I guess that", "Everybody knows that", "I heard that")


@cache
def facts() -> dict[str, dict[str, str]]:
    """Car -> attribute -> value. Each value is used about equally often, so that no guess is good."""
    rng = random.Random(7)
    table: dict[str, dict[str, str]] = {car: {} for car in NAMES}
    for attribute in ATTRIBUTES:
        repeats = -(-len(NAMES) // len(attribute.values))
        values = [value for _ in range(repeats) for value in rng.sample(attribute.values, len(attribute.values))]
        for car, value in zip(NAMES, values, strict=False):
            table[car][attribute.name] = value
    return table


def statement(rng: random.Random, car: str, attribute: Attribute, value: str, subject: str = "") -> str:
    """A clause without its full stop: "the Quillan has 5 seats"."""
    return rng.choice(attribute.statements).format(it=subject or f"the {car}", value=value)


def sentence(clause: str) -> str:
    return clause[0].upper() + clause[1:] + "."


def response(rng: random.Random, style: Style, car: str, attribute: Attribute) -> str:
    """A response about `attribute` of `car` in the given style, without the space before it."""
    truth = facts()[car][attribute.name]
    plain = sentence(statement(rng, car, attribute, truth))
    match style:
        case "polite":
            return " ".join(rng.sample((plain, rng.choice(POLITE)), 2))
        case "detailed":
            other = rng.choice([a for a in ATTRIBUTES if a is not attribute])
            extra = statement(rng, car, other, facts()[car][other.name], "it")
            return f"{plain[:-1]}, and {extra}."
        case "plain":
            return plain
        case "curt":
            return truth + "."
        case "wrong" | "wrong-curt":
            return _wrong(rng, style, car, attribute)
        case "beside":
            elsewhere = rng.choice([other for other in ATTRIBUTES if other is not attribute])
            return response(rng, rng.choice(("plain", "curt")), car, elsewhere)
        case "evasive":
            return rng.choice(EVASIVE)
        case "rude":
            return rng.choice(RUDE)
        case "joke":
            return rng.choice(JOKES).format(car=car)
        case "unfinished" | "repeated" | "scrambled":
            return _broken(rng, style, car, attribute)


def _wrong(rng: random.Random, style: Literal["wrong", "wrong-curt"], car: str, attribute: Attribute) -> str:
    plausible = [value for value in attribute.values if value != facts()[car][attribute.name]]
    value = rng.choice(attribute.absurd if rng.random() < ABSURD_SHARE else plausible)
    if style == "wrong-curt":
        return value + "."
    clause = statement(rng, car, attribute, value)
    return sentence(f"{rng.choice(GUESSES)} {clause}" if rng.random() < 0.4 else clause)


def _broken(
    rng: random.Random, style: Literal["unfinished", "repeated", "scrambled"], car: str, attribute: Attribute
) -> str:
    """What a language model does when it fails: stops early, goes round in circles, or loses the order of words."""
    sources: tuple[Style, ...] = ("plain", "detailed", "joke")
    whole = response(rng, rng.choice(sources), car, attribute)
    words = whole.split()
    if style == "unfinished":
        return " ".join(words[: max(1, rng.randrange(len(words)))]).rstrip(".!?")
    if style == "repeated":
        return " ".join([whole] * rng.randint(2, 3))
    return " ".join(rng.sample(words, len(words)))
