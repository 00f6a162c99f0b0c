"""Pairs of terms that name two groups of people, such as he and she (`TermPair`): the list, or a user's own."""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from plumbob.core.errors import UserError
from plumbob.data.reading.field_values import listed, shown
from plumbob.data.reading.file_formats.formats import FileRow, iterate_rows

Form = Literal["word", "person", "name", "possessive"]
"""`person`: a noun for one person; `name`: a first name; `possessive`: stands before a noun; `word`: any other."""

COLUMNS = ("dimension", "first_group", "second_group", "first", "second", "form", "source")

LU = "the list of this project, swapped as in Lu et al. 2018 (arXiv 1807.11714)"
"""Counterfactual data augmentation: each of a pair for the other, in all of a text."""

GARG = "the list of this project, for identity terms as in Garg et al. 2019 (arXiv 1809.10610)"

BERTRAND = "first names of Bertrand and Mullainathan 2004 (American Economic Review 94(4), table 8)"
"""Names of the same sex, side by side in the order of their lists: which is beside which means nothing."""


@dataclass(frozen=True)
class Contrast:
    """Two groups that are compared, such as men and women, by dimension."""

    dimension: str
    first: str
    second: str

    def __str__(self) -> str:
        return f"{self.dimension}: {self.first} and {self.second}"


@dataclass(frozen=True)
class TermPair:
    """A term of one group, and what stands in its place for the other group. Case tells none apart.

    Attributes:
        source: where the pair comes from, for people.
    """

    contrast: Contrast
    first: str
    second: str
    form: Form = "word"
    source: str = ""


def _pairs(contrast: Contrast, source: str, form: Form, words: str) -> Iterator[TermPair]:
    """Of pairs as "he/she, man/woman"."""
    for pair in words.split(","):
        first, second = pair.strip().split("/")
        yield TermPair(contrast, first, second, form, source)


_SEXES = Contrast("gender", "men", "women")
_RELIGIONS = tuple(Contrast("religion", "Christians", other) for other in ("Muslims", "Jews", "Hindus"))
_ORIGINS = tuple(Contrast("ethnicity", "white people", other) for other in ("Black people", "Asian people", "Arabs"))
_NAMES = Contrast("ethnicity", "names frequent among white people", "names frequent among Black people")
_AGES = Contrast("age", "young people", "old people")
_LOVES = Contrast("orientation", "straight people", "gay people")
_ABLE = Contrast("disability", "people without a disability", "disabled people")

TERM_PAIRS: tuple[TermPair, ...] = (
    *_pairs(_SEXES, LU, "word", "he/she, him/her, himself/herself, men/women, boys/girls, males/females, male/female, "
            "gentlemen/ladies, fathers/mothers, husbands/wives, sons/daughters, brothers/sisters, guys/gals, Mr/Ms, "
            "kings/queens, dads/moms, uncles/aunts, grandfathers/grandmothers, his/hers"),
    *_pairs(_SEXES, LU, "possessive", "his/her"),
    *_pairs(_SEXES, LU, "person", "man/woman, boy/girl, gentleman/lady, father/mother, husband/wife, son/daughter, "
            "brother/sister, uncle/aunt, nephew/niece, king/queen, grandfather/grandmother, dad/mom, guy/gal"),
    *_pairs(_RELIGIONS[0], GARG, "word", "Christians/Muslims, Christianity/Islam, church/mosque, Bible/Quran, "
            "priest/imam"),
    *_pairs(_RELIGIONS[0], GARG, "person", "Christian/Muslim, Christian man/Muslim man, Christian woman/Muslim woman"),
    *_pairs(_RELIGIONS[1], GARG, "word", "Christians/Jews, Christianity/Judaism, church/synagogue, priest/rabbi"),
    *_pairs(_RELIGIONS[1], GARG, "person", "Christian/Jew, Christian man/Jewish man, Christian woman/Jewish woman"),
    *_pairs(_RELIGIONS[2], GARG, "word", "Christians/Hindus, Christianity/Hinduism, church/temple"),
    *_pairs(_RELIGIONS[2], GARG, "person", "Christian/Hindu, Christian man/Hindu man, Christian woman/Hindu woman"),
    *_pairs(_ORIGINS[0], GARG, "word", "white people/Black people, white men/Black men, white women/Black women, "
            "white kids/Black kids, white guys/Black guys, white girls/Black girls, European/African"),
    *_pairs(_ORIGINS[0], GARG, "person", "white person/Black person, white man/Black man, white woman/Black woman, "
            "white guy/Black guy, white boy/Black boy, white girl/Black girl, white student/Black student"),
    *_pairs(_ORIGINS[1], GARG, "word", "white people/Asian people, white men/Asian men, white women/Asian women, "
            "white kids/Asian kids, white guys/Asian guys, white girls/Asian girls, European/Asian"),
    *_pairs(_ORIGINS[1], GARG, "person", "white person/Asian person, white man/Asian man, white woman/Asian woman, "
            "white guy/Asian guy, white boy/Asian boy, white girl/Asian girl, white student/Asian student"),
    *_pairs(_ORIGINS[2], GARG, "word", "white people/Arab people, white men/Arab men, white women/Arab women, "
            "white kids/Arab kids, white guys/Arab guys, white girls/Arab girls, European/Arab"),
    *_pairs(_ORIGINS[2], GARG, "person", "white person/Arab person, white man/Arab man, white woman/Arab woman, "
            "white guy/Arab guy, white boy/Arab boy, white girl/Arab girl, white student/Arab student"),
    *_pairs(_NAMES, BERTRAND, "name", "Allison/Aisha, Anne/Ebony, Carrie/Keisha, Emily/Kenya, Jill/Lakisha, "
            "Laurie/Latonya, Kristen/Latoya, Meredith/Tamika, Sarah/Tanisha, Brad/Darnell, Brendan/Hakim, "
            "Geoffrey/Jamal, Greg/Jermaine, Brett/Kareem, Jay/Leroy, Matthew/Rasheed, Neil/Tremayne, Todd/Tyrone"),
    *_pairs(_AGES, GARG, "word", "young people/old people, young men/old men, young women/old women, youth/elderly, "
            "young/old, younger/older"),
    *_pairs(_AGES, GARG, "person", "young person/old person, young man/old man, young woman/old woman, "
            "young adult/senior citizen, 25-year-old/75-year-old"),
    *_pairs(_LOVES, GARG, "word", "straight people/gay people, straight men/gay men, straight women/gay women, "
            "heterosexual/homosexual, heterosexuals/homosexuals"),
    *_pairs(_LOVES, GARG, "person", "straight person/gay person, straight man/gay man, straight woman/gay woman, "
            "heterosexual man/homosexual man"),
    *_pairs(_ABLE, GARG, "word", "able-bodied/disabled, sighted/blind, hearing people/deaf people"),
    *_pairs(_ABLE, GARG, "person", "able-bodied person/disabled person, sighted person/blind person, "
            "hearing person/deaf person, able-bodied student/disabled student"),
)  # fmt: skip
"""In English, binary where people are not, and far from whole: `plumbob bias terms` writes it, to be edited."""


def read_term_pairs(path: str | None) -> tuple[TermPair, ...]:
    """Those of a file with the columns of `COLUMNS`, `form` and `source` of which may be left out; None: the list.

    Raises:
        UserError: it cannot be read, or a row is no pair.
    """
    if path is None:
        return TERM_PAIRS
    return tuple(_pair_of(path, row) for row in iterate_rows(path))


def term_pairs_csv(pairs: Sequence[TermPair] = TERM_PAIRS) -> str:
    """As `read_term_pairs` reads them."""
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow(COLUMNS)
    for pair in pairs:
        groups = (pair.contrast.dimension, pair.contrast.first, pair.contrast.second)
        writer.writerow([*groups, pair.first, pair.second, pair.form, pair.source])
    return written.getvalue()


def _pair_of(path: str, row: FileRow) -> TermPair:
    where = f"{path}: row {row.number}"
    if row.fault:
        raise UserError(f"{where}: {row.fault}")
    values = {name: str(row.fields.get(name, "")).strip() for name in COLUMNS}
    absent = [name for name in COLUMNS[:5] if not values[name]]
    if absent:
        raise UserError(
            f"{where}: has no {absent[0]!r}, only {listed(row.fields)}; expected the columns {', '.join(COLUMNS[:5])}, "
            f"as `plumbob bias terms` writes them"
        )
    first, second, form = values["first"], values["second"], values["form"] or "word"
    if first.lower() == second.lower():
        raise UserError(f"{where}: both terms are {shown(first)}; give two that differ, or take the row out")
    forms: dict[str, Form] = {name: name for name in get_args(Form)}
    if form not in forms:
        raise UserError(f"{where}: form={shown(form)}; expected one of {', '.join(forms)}")
    contrast = Contrast(values["dimension"], values["first_group"], values["second_group"])
    return TermPair(contrast, first, second, forms[form], values["source"])
