"""Rows with personal data at known places, beside rows that only look so: how much is found, and how much is right.

`python -m tests.support.personal_cases` prints the table of docs/stewardship.md.
"""

import random
import string
import time
from collections.abc import Callable
from dataclasses import dataclass

from plumbob.core.statistics import proportion_interval
from plumbob.data.personal.personal_finder import PersonalFinder
from plumbob.data.personal.personal_span import KINDS, PersonalKind, PersonalSpan

FIRST = (
    *("Emma", "Liam", "Olivia", "Noah", "Sofia", "Lucas", "Amina", "Mohammed", "Yusuf", "Fatima", "Priya", "Arjun"),
    *("Wei", "Mei", "Hiroshi", "Yuki", "Kwame", "Ngozi", "Chidi", "Carlos", "Lucia", "Mateo", "Olga", "Dmitri"),
    *("Ingrid", "Lars", "Aoife", "Declan", "Leila", "Omar", "Thandiwe", "Sipho", "Ana", "Joao", "Marta", "Pavel"),
)
LAST = (
    *("Smith", "Johnson", "Garcia", "Martinez", "Nguyen", "Patel", "Sharma", "Chen", "Tanaka", "Suzuki", "Okafor"),
    *("Mensah", "Hassan", "Al-Farsi", "Ivanova", "Petrov", "Lindqvist", "O'Brien", "Murphy", "Kowalski", "Novak"),
    *("Silva", "Pereira", "Fischer", "Weber", "Rossi", "Bianchi", "Dubois", "Haddad", "Cohen", "Dlamini", "Larsson"),
)
DOMAINS = ("example.com", "mail.example.org", "university.edu", "firma.de", "correo.es", "company.co.uk", "posta.it")
NAME_FORMS = (
    "My neighbour {0} asked me about the garden fence.",
    "Please forward this to {0}, who runs the workshop.",
    "{0} wrote that the meeting is at noon.",
    "I spoke with {0} yesterday about the invoice.",
    "The patient, {0}, was discharged on Monday.",
    "Thanks,\n{0}",
    "Human: who is {0}?\n\nAssistant: I do not know anyone called {0}.",
    "hi, this is {0} from the second floor, can you help me?",
)
MAIL_FORMS = ("Write to {0} for details.", "my address is {0}, thanks", "From: <{0}>", "Mail me ({0}) or call.")
PHONE_FORMS = ("Call me on {0}.", "My phone number is {0}", "tel: {0} (mornings)", "You can reach her at {0} today.")
CARD_FORMS = ("The card is {0}, valid until June.", "please charge {0}", "card number: {0}")
IBAN_FORMS = ("Send the deposit to {0} please.", "IBAN: {0}", "My account is {0}, at the local bank.")
IP_FORMS = ("The login came from {0} last night.", "ssh root@{0} does not work", "server {0} is down")
MAC_FORMS = ("The device with {0} is unknown.", "MAC address: {0}")
SECRET_FORMS = ("My key is {0}, why is it refused?", "export API_KEY={0}", 'client = Client(token="{0}")')

NEGATIVES = (
    "Order {digits16} was shipped in two parcels.",
    "The ISBN of the book is 978-3-16-148410-0, second edition.",
    "It was built between 1998-2004 and sold in 2011.",
    "Multiply 3 by 1,234,567.89 and round to the nearest ten.",
    "Version {small}.{small}.{small} of the driver fixes it.",
    "The meeting runs from 12:34:56 to 13:00:00.",
    "Commit {hex40} broke the build.",
    "The id is {uuid} in the table.",
    "Paris and Berlin are larger than Bern or Oslo.",
    "Ford, Mercedes and Toyota built cars on Monday.",
    "In April we read Hamlet, and in May the Odyssey.",
    "Set password: <your password here> before you begin.",
    "api_key = os.environ['API_KEY'] reads it from outside.",
    "The token: enabled, the secret: none, the answer: forty-two.",
    "Use @dataclass above the class; user@localhost is no address.",
    "The ratio is 16:9, the score 3:2 and the verse 3:16.",
    "Dial nothing: 2025 was warmer than 2019 2020 2021 2022.",
    "GB29 is a plate, DE89 a road, and A113 a room.",
    "x = {digits10}  # a seed that was drawn once",
    "#### {digits3}",
    "The Amazon and the Nile are rivers; Everest is a mountain.",
    "How do I cook Thai green curry with Basmati rice?",
    "Section 4.10.2 says so, and table 7-12-2024 too.",
    "xxxx-xxxx-xxxx-1234 is what the receipt shows.",
)


@dataclass(frozen=True)
class PersonalCase:
    """A row's text, with what was planted in it as (kind, value)."""

    text: str
    planted: tuple[tuple[PersonalKind, str], ...]


def personal_cases(num_of_kind: int, seed: int = 0) -> list[PersonalCase]:
    """So many rows of each kind, and three times as many that have nothing personal."""
    rng = random.Random(seed)
    makers: dict[PersonalKind, tuple[Callable[[random.Random], str], tuple[str, ...]]] = {
        "secret": (_secret, SECRET_FORMS),
        "mail": (_mail, MAIL_FORMS),
        "iban": (_iban, IBAN_FORMS),
        "card": (_card, CARD_FORMS),
        "mac": (_mac, MAC_FORMS),
        "ip": (_ip, IP_FORMS),
        "phone": (_phone, PHONE_FORMS),
        "name": (_name, NAME_FORMS),
    }
    cases = []
    for kind, (make, forms) in makers.items():
        for number in range(num_of_kind):
            value = make(rng)
            cases.append(PersonalCase(forms[number % len(forms)].format(value), ((kind, value),)))
    for number in range(3 * num_of_kind):
        cases.append(PersonalCase(_negative(rng, NEGATIVES[number % len(NEGATIVES)]), ()))
    rng.shuffle(cases)
    return cases


@dataclass(frozen=True)
class KindRates:
    """Of one kind: planted values, those that were found whole, and finds, right and wrong."""

    planted: int
    found: int
    finds: int
    right: int


def rates_of(cases: list[PersonalCase], found: list[list[PersonalSpan]]) -> dict[PersonalKind, KindRates]:
    """A planted value is found where nothing of it is left outside finds of its kind; a find is right where it is of a
    planted value of its kind, or a part of one."""
    rates = {}
    for kind in KINDS:
        planted = recalled = finds = right = 0
        for case, spans in zip(cases, found, strict=True):
            own = [span for span in spans if span.kind == kind]
            values = [value for one, value in case.planted if one == kind]
            planted += len(values)
            recalled += sum(_is_covered(case.text, value, own) for value in values)
            finds += len(own)
            right += sum(any(span.text in value or value in span.text for value in values) for span in own)
        rates[kind] = KindRates(planted, recalled, finds, right)
    return rates


def _is_covered(text: str, value: str, spans: list[PersonalSpan]) -> bool:
    """Everywhere that it stands."""
    start = text.find(value)
    while start >= 0:
        letters = set(range(start, start + len(value)))
        for span in spans:
            letters -= set(range(span.start, span.end))
        if any(text[place].isalnum() for place in letters):
            return False
        start = text.find(value, start + 1)
    return True


def _name(rng: random.Random) -> str:
    return f"{rng.choice(FIRST)} {rng.choice(LAST)}"


def _mail(rng: random.Random) -> str:
    first, last = rng.choice(FIRST).lower(), rng.choice(LAST).lower().replace("'", "")
    return f"{first}{rng.choice('._-')}{last}{rng.choice(('', '7', '82'))}@{rng.choice(DOMAINS)}"


def _phone(rng: random.Random) -> str:
    four = f"{rng.randrange(10000):04d}"
    return rng.choice(
        (
            f"+1 {rng.choice((212, 415, 206, 617))}-{rng.randrange(220, 999)}-{four}",
            f"({rng.choice((212, 415, 206, 617))}) {rng.randrange(220, 999)}-{four}",
            f"{rng.choice((212, 415, 206, 617))}.{rng.randrange(220, 999)}.{four}",
            f"+44 20 7{rng.randrange(100, 999)} {four}",
            f"+49 30 {rng.randrange(200000, 899999)}",
            f"+91 98{rng.randrange(100, 999)} {rng.randrange(10000, 99999)}",
            f"{rng.choice((212, 415, 206, 617))}{rng.randrange(220, 999)}{four}",
        )
    )


def _card(rng: random.Random) -> str:
    digits = rng.choice(("4", "51", "55")) + "".join(rng.choices(string.digits, k=14))
    digits = digits[:15]
    checksum = next(last for last in string.digits if _luhn(digits + last) % 10 == 0)
    whole = digits + checksum
    sign = rng.choice(("", " ", "-"))
    return sign.join(whole[start : start + 4] for start in range(0, 16, 4))


def _luhn(digits: str) -> int:
    """ISO/IEC 7812-1: every second digit from the right doubled, the digits of the products added."""
    doubled = [int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(digits))]
    return sum(value // 10 + value % 10 for value in doubled)


def _iban(rng: random.Random) -> str:
    """ISO 13616: the check digits make the number, its head moved to its end, 1 modulo 97."""
    country, length = rng.choice((("DE", 18), ("ES", 20), ("AT", 16), ("PT", 21)))
    account = "".join(rng.choices(string.digits, k=length))
    head = "".join(str(ord(letter) - 55) for letter in country)
    whole = f"{country}{98 - int(account + head + '00') % 97:02d}{account}"
    return whole if rng.random() < 0.5 else " ".join(whole[at : at + 4] for at in range(0, len(whole), 4))


def _ip(rng: random.Random) -> str:
    if rng.random() < 0.7:
        return ".".join(str(rng.randrange(1, 255)) for _ in range(4))
    return ":".join(f"{rng.randrange(4096, 65536):x}" for _ in range(8))


def _mac(rng: random.Random) -> str:
    return rng.choice(":-").join(f"{rng.randrange(16, 256):02X}" for _ in range(6))


def _secret(rng: random.Random) -> str:
    letters = string.ascii_letters + string.digits

    def drawn(num: int, alphabet: str = letters) -> str:
        return "".join(rng.choices(alphabet, k=num))

    return rng.choice(
        (
            "AKIA" + drawn(16, string.ascii_uppercase + string.digits),
            "ghp_" + drawn(36),
            "sk-" + drawn(40),
            "hf_" + drawn(34),
            "xoxb-" + drawn(11, string.digits) + "-" + drawn(24),
            f"eyJ{drawn(20)}.eyJ{drawn(40)}.{drawn(43)}",
        )
    )


def _negative(rng: random.Random, form: str) -> str:
    def digits(num: int) -> str:
        return "".join(rng.choices(string.digits, k=num))

    number = digits(15)
    # One that fails the checksum of cards.
    number += next(last for last in string.digits if _luhn(number + last) % 10)
    hexadecimal = "".join(rng.choices("0123456789abcdef", k=40))
    uuid = "-".join((hexadecimal[:8], hexadecimal[8:12], hexadecimal[12:16], hexadecimal[16:20], hexadecimal[20:32]))
    slots = {"digits16": number, "digits10": digits(10), "digits3": digits(3), "hex40": hexadecimal, "uuid": uuid}
    return form.replace("{small}", str(rng.randrange(1, 30))).format(**slots)


def main() -> None:
    cases = personal_cases(60)
    finder = PersonalFinder()
    began = time.monotonic()
    found = finder.found_in([case.text for case in cases])
    seconds = time.monotonic() - began
    print("| kind | planted | found | recall | finds | right | precision |\n|---|---|---|---|---|---|---|")
    for kind, rates in rates_of(cases, found).items():
        recall, precision = (
            proportion_interval(*pair) if pair[1] else None
            for pair in ((rates.found, rates.planted), (rates.right, rates.finds))
        )
        shown = [
            "" if one is None else f"{one.mean:.1%} [{one.low:.1%}, {one.high:.1%}]" for one in (recall, precision)
        ]
        print(f"| {kind} | {rates.planted} | {rates.found} | {shown[0]} | {rates.finds} | {rates.right} | {shown[1]} |")
    print(f"\n{len(cases)} rows in {seconds:.1f} s")
    for case, spans in zip(cases, found, strict=True):
        wrong = [span for span in spans if not any(span.text in v or v in span.text for k, v in case.planted)]
        missed = [v for k, v in case.planted if not _is_covered(case.text, v, [s for s in spans if s.kind == k])]
        if wrong or missed:
            print(f"# {case.text!r}: wrong {[(s.kind, s.text) for s in wrong]}, missed {missed}")


if __name__ == "__main__":
    main()
