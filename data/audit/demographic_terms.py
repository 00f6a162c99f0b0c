"""Words that name groups of people, by dimension: how often each group is written about (`mentions`)."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping

GROUPS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "gender": {
        "women": ("woman", "women", "girl", "girls", "female", "females", "she", "her", "hers", "mother", "wife"),
        "men": ("man", "men", "boy", "boys", "male", "males", "he", "him", "his", "father", "husband"),
        "nonbinary and transgender people": ("nonbinary", "non-binary", "transgender", "trans", "genderqueer",
                                             "intersex"),
    },
    "religion": {
        "Christians": ("christian", "christians", "catholic", "catholics", "protestant", "protestants", "church"),
        "Muslims": ("muslim", "muslims", "islam", "islamic", "mosque", "quran"),
        "Jews": ("jew", "jews", "jewish", "judaism", "synagogue"),
        "Hindus": ("hindu", "hindus", "hinduism"),
        "Buddhists": ("buddhist", "buddhists", "buddhism"),
        "no religion": ("atheist", "atheists", "agnostic", "agnostics"),
    },
    "origin": {
        "Africans and African Americans": ("african", "africans", "african-american", "black people", "black man",
                                           "black woman", "nigerian", "kenyan", "ethiopian"),
        "Asians": ("asian", "asians", "chinese", "japanese", "korean", "indian", "indians", "vietnamese", "filipino"),
        "Europeans and white people": ("european", "europeans", "white people", "white man", "white woman", "british",
                                       "german", "germans", "french", "italian", "italians", "russian", "russians"),
        "Latin Americans": ("latino", "latina", "latinos", "hispanic", "hispanics", "mexican", "mexicans", "brazilian"),
        "Arabs and the Middle East": ("arab", "arabs", "arabic", "persian", "iranian", "iraqi", "turkish", "syrian"),
        "indigenous peoples": ("indigenous", "native american", "native americans", "aboriginal", "maori"),
    },
    "age": {
        "children": ("child", "children", "kid", "kids", "toddler", "teenager", "teenagers", "teen", "teens"),
        "old people": ("elderly", "senior citizen", "senior citizens", "old man", "old woman", "old people",
                       "grandmother", "grandfather", "retiree", "retirees"),
    },
    "disability": {
        "disabled people": ("disabled", "disability", "disabilities", "wheelchair", "blind", "deaf", "autistic",
                            "autism"),
    },
    "orientation": {
        "gay, lesbian and bisexual people": ("gay", "lesbian", "lesbians", "bisexual", "homosexual", "homosexuals",
                                             "queer"),
        "heterosexual people": ("heterosexual", "heterosexuals"),
    },
    "means": {
        "poor people": ("poor people", "poverty", "homeless", "working class", "unemployed"),
        "rich people": ("rich people", "wealthy", "millionaire", "millionaires", "billionaire", "billionaires"),
    },
}  # fmt: skip
"""Dimension -> group -> its terms, in English and small letters. Counts of words: who is meant they do not know."""

_GROUP_OF = {
    term: (dimension, group)
    for dimension, groups in GROUPS.items()
    for group, terms in groups.items()
    for term in terms
}
_LONGEST_FIRST = "|".join(sorted(map(re.escape, _GROUP_OF), key=len, reverse=True))
_TERM = re.compile(rf"(?<![\w-])(?:{_LONGEST_FIRST})(?![\w-])")


def mentions(texts: Iterable[str]) -> dict[str, dict[str, int]]:
    """Dimension -> group -> how many of the texts have one of its terms."""
    counts: Counter[tuple[str, str]] = Counter()
    for text in texts:
        counts.update({_GROUP_OF[term] for term in _TERM.findall(text.lower())})
    return {name: {group: counts[name, group] for group in groups} for name, groups in GROUPS.items()}
