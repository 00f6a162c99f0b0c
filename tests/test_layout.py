"""The house: how large its rooms are, and that each name in it means one thing."""

import ast
import io
import re
import tokenize
from collections import Counter, defaultdict
from collections.abc import Iterator

import pytest

from tests.support.annotated_tree import FILES_PAGE, FOLDERS_PAGE, annotated_tree, tree_in
from tests.support.source_tree import ROOT, modules, modules_beside, packages, text
from tests.test_docs import DOCUMENTS

MOST_MODULES = 12

WRONG_WORDS = {
    "attend": "poll",
    "dismiss": "stop_worker",
    "foresaw": "unexpected",
    "heard": "known, notified",
    "heart": "main_message",
    "hire": "start_worker",
    "judged": "what the second reward model scored",
    "judgements": "feedback",
    "lacking": "shortage",
    "leaving": "draining",
    "mend": "fix",
    "mistake": "error, user error or planted bug",
    "mistaken": "wrong, buggy",
    "mistakes": "errors, user errors or planted bugs",
    "outcome": "result",
    "said": "notify, message",
    "scene": "context",
    "seat": "reservation",
    "seated": "placed",
    "seating": "reservations",
    "seats": "reservations",
    "settle": "drain",
    "staffed": "pool entry",
    "surroundings": "a Protocol, such as PoolBackend",
    "told": "notified, described",
    "unwatched": "NullListener",
    "watcher": "listener, display",
    "whereabouts": "connection file",
}
"""Word of an identifier -> what the field says."""

WRONG_TERMS = {
    r"(?:go|goes|going|gone|went) on": "continue, resume",
    r"keep_partial|in slices": "partial rollout, partial_tokens",
    r"nobody fore(?:saw|sees)|unforeseen": "unexpected error",
    r"(?:hires?|hired|dismiss|dismisses|dismissed) (?:a|another|the) workers?": "start, stop",
    r"judgements?": "human feedback",
    r"samples?d? ahead|sampling ahead": "asynchronous rollout",
    r"seated|seating|whereabouts|unwatched|surroundings": "placed, reservations, connection file, PoolBackend",
    r"takes? over what|took over what": "restore",
    r"whoever watches|who watches": "listener",
    r"(?:is|are|was|were) to leave": "draining",
    r"(?:its|their) kin": "its variants",
    r"second judge": "gold reward",
    r"private Rays?(?! clusters?)": "private Ray cluster",
}
"""Pattern of prose -> what the field says: terms that can mean nothing else; plain English words are not here."""

SAME_IDEA = {
    "instructions": "that can be verified in a response",
    "kuberay": "the launcher of that name",
    "monitors": "what is watched in an online run",
    "soft_prompts": "vectors before every text",
    "weights": "methods that train weights of the model itself",
}
"""A module of settings and the one that reads them, under one name: what both are about."""

OLD_KEYS = ("configs.renamed_keys", "tests/unit/configs/test_renamed_keys.py")
"""Files that name what settings were called before."""

THIS_FILE = "tests/test_layout.py"

FILES_OF_TESTS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("*.py"))

PRESETS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "configs/presets").glob("*.yaml"))

PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "console/web/static").rglob("*.js")
    if "vendor" not in path.parts
)


def test_no_folder_has_more_than_a_dozen_modules() -> None:
    sizes = Counter(module.rpartition(".")[0] for module in (*modules(), *modules_beside()))
    assert {folder: size for folder, size in sizes.items() if size > MOST_MODULES} == {}


def test_no_two_classes_share_a_name() -> None:
    """Nor does one of a test, one within a function, or one whose name begins with an underscore."""
    homes = defaultdict(list)
    of_tests = {file: (ROOT / file).read_text(encoding="utf-8") for file in FILES_OF_TESTS}
    for file, source in ({module: text(module) for module in (*modules(), *modules_beside())} | of_tests).items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ClassDef):
                homes[node.name].append(file)
    assert {name: found for name, found in homes.items() if len(found) > 1} == {}


def test_no_two_modules_share_a_name() -> None:
    """But for `SAME_IDEA`, each of which is there twice: as settings, and as what reads them."""
    homes = defaultdict(list)
    for module in (*modules(), *modules_beside()):
        homes[module.rpartition(".")[2]].append(module)
    shared = {name: found for name, found in homes.items() if len(found) > 1 and name != "__main__"}
    assert shared.keys() == SAME_IDEA.keys()
    assert all(len(found) == 2 and _num_of_settings(found) == 1 for found in shared.values())


def _num_of_settings(found: list[str]) -> int:
    return sum(module.startswith("configs.settings.") for module in found)


@pytest.mark.parametrize("module", [*modules(), *packages(), *modules_beside()])
def test_a_module_begins_with_a_line_that_says_what_is_in_it(module: str) -> None:
    docstring = ast.get_docstring(ast.parse(text(module))) or ""
    first = docstring.partition("\n")[0]
    assert first.endswith(".") and len(first) <= 117, first


def test_the_tree_in_the_documents_is_that_of_the_source() -> None:
    assert tree_in(FOLDERS_PAGE) == annotated_tree(with_files=False), "run `make tree`"
    assert tree_in(FILES_PAGE) == annotated_tree(with_files=True), "run `make tree`"


def identifiers(source: str) -> Iterator[str]:
    """What a source names: classes, functions, arguments, variables and attributes."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name


def wrong_words(source: str) -> set[str]:
    words = (word.lower() for name in identifiers(source) for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name))
    return {f"{word}: say {WRONG_WORDS[word]}" for word in words if word in WRONG_WORDS}


@pytest.mark.parametrize("module", [*modules(), *modules_beside()])
def test_names_are_made_of_the_words_of_the_field(module: str) -> None:
    assert wrong_words(text(module) + "\n" + "\n".join(f"{part} = 0" for part in module.split("."))) == set()


@pytest.mark.parametrize(
    "source", ["Whereabouts = 1", "def on_outcome(): ...", "class A:\n    def f(self, watcher): self.USER_MISTAKE = 1"]
)
def test_a_wrong_word_is_found(source: str) -> None:
    assert wrong_words(source)


def test_words_within_words_are_left_alone() -> None:
    assert wrong_words("settlement = unmistakable = 1") == set()


def prose(source: str) -> str:
    """What a source says in words: docstrings, messages and comments, one a line, lines joined."""
    kinds = (tokenize.STRING, tokenize.COMMENT)
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    joined = (token.string if token.type in kinds else "\n" for token in tokens if token.type != tokenize.NL)
    # A message that goes over several lines is several literals.
    return re.sub(r"\"\s*f?\"", "", "".join(joined))


def wrong_terms(words: str) -> set[str]:
    flat = " ".join(words.split())
    return {
        f"{found[0]}: say {right}"
        for wrong, right in WRONG_TERMS.items()
        for found in re.finditer(rf"\b(?:{wrong})\b", flat, re.IGNORECASE)
    }


@pytest.mark.parametrize(
    "module", [module for module in (*modules(), *packages(), *modules_beside()) if module not in OLD_KEYS]
)
def test_docstrings_messages_and_comments_use_the_terms_of_the_field(module: str) -> None:
    assert wrong_terms(prose(text(module))) == set()


@pytest.mark.parametrize("file", [file for file in FILES_OF_TESTS if file not in (*OLD_KEYS, THIS_FILE)])
def test_tests_use_the_terms_of_the_field(file: str) -> None:
    assert wrong_terms(prose((ROOT / file).read_text(encoding="utf-8"))) == set()


@pytest.mark.parametrize("document", [*DOCUMENTS, *PRESETS, *PAGES])
def test_documents_presets_and_pages_use_the_terms_of_the_field(document: str) -> None:
    assert wrong_terms((ROOT / document).read_text(encoding="utf-8")) == set()


@pytest.mark.parametrize(
    "source",
    [
        '"""A run goes\non."""',
        'raise RunFailed(\n    f"a worker raised what nobody "\n    f"foresaw: {error}"\n)',
        "x = 1  # One that is to leave.",
    ],
)
def test_a_wrong_term_is_found_in_docstrings_messages_and_comments(source: str) -> None:
    assert wrong_terms(prose(source))


def test_code_and_words_within_words_are_no_prose() -> None:
    assert wrong_terms(prose("judgement = 1")) == set() and wrong_terms("a misjudgement, unseated") == set()
