"""A response's program by the tests of its row: what passes, what does not, and what it is worth."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from plumbob.configs.settings.programs.reward_programs import CodePart
from plumbob.core.errors import RunFailed
from plumbob.reward.programs.code_scorer import CodeScorer
from plumbob.reward.programs.program_tests import program_in
from plumbob.reward.scorer import Score, ScoreRequest

Passed = Callable[..., float]


@pytest.fixture(scope="module")
def asserts() -> CodeScorer:
    return CodeScorer(CodePart(value="share"))


@pytest.fixture(scope="module")
def stdio() -> CodeScorer:
    return CodeScorer(CodePart(value="share", form="stdio"))


def share(scorer: CodeScorer, program: str, *tests: Any) -> float:
    (found,) = scorer.score([ScoreRequest("q", program, {"tests": list(tests)})])
    return found.total


def test_the_program_is_the_last_fenced_block_or_all() -> None:
    assert program_in("x = 1") == "x = 1"
    assert program_in("First:\n```python\na = 1\n```\nor\n```\nb = 2\nc = 3\n```\nThat is it.") == "b = 2\nc = 3\n"
    assert program_in("so:\n~~~ py\na = '```'\n~~~\n") == "a = '```'\n"
    assert program_in("cut:\n```python\ndef f():\n    return") == "def f():\n    return"
    assert program_in("````\n```\ninner\n```\n````") == "```\ninner\n```\n"
    assert program_in("inline ```a``` alone") == "inline ```a``` alone"


def test_the_share_of_tests_or_all_of_them() -> None:
    program = "Here:\n```python\ndef double(x):\n    return 2 * x if x else 1\n```"
    tests = ["assert double(1) == 2", "assert double(0) == 0", "assert double(-4) == -8", "assert double('a') == 'aa'"]
    asked = [ScoreRequest("q", program, {"tests": tests}), ScoreRequest("q", program, {"tests": tests[2:]})]
    assert CodeScorer(CodePart(value="share")).score(asked) == [Score(0.75, {"passed": 0.75}), Score(1, {"passed": 1})]
    assert CodeScorer(CodePart()).score(asked) == [Score(0.0, {"passed": 0.75}), Score(1.0, {"passed": 1.0})]


@pytest.mark.parametrize(
    ("program", "test"),
    [
        ("import math\ndef area(r): return math.pi * r ** 2", "assert abs(area(2) - 12.566) < 1e-3"),
        ("def f(): return [1, (2.5, 'é'), {'a': {3}}, None, True, b'x', 1j, frozenset([4])]",
         "assert f() == [1, (2.5, 'é'), {'a': {3}}, None, True, b'x', 1j, frozenset([4])] and type(f()[1]) is tuple"),
        ("from collections import *\nfrom decimal import *\nimport datetime\n"
         "def f(): return Counter('aab'), OrderedDict(a=1), deque([1]), Decimal('0.1'), datetime.timedelta(1)",
         "import collections, decimal, datetime\nassert f() == (collections.Counter('aab'), {'a': 1}, "
         "collections.deque([1]), decimal.Decimal('0.1'), datetime.timedelta(days=1))"),
        ("def sort(items): items.sort()", "items = [3, 1, 2]\nsort(items)\nassert items == [1, 2, 3]"),
        ("def fill(table, key): table[key] = 1", "d = {}\nfill(d, key='a')\nfill(d, 2)\nassert d == {'a': 1, 2: 1}"),
        ("class Stack:\n    def __init__(self): self.items = []\n    def push(self, x): self.items.append(x)\n"
         "    def __len__(self): return len(self.items)",
         "s = Stack()\ns.push(1)\ns.push(2)\nassert len(s) == 2 and s.items == [1, 2]"),
        ("def count(n):\n    for i in range(n): yield i * i", "assert list(count(3)) == [0, 1, 4] and 9 in count(9)"),
        ("class P:\n    def __init__(self, x): self.x = x\n    def __eq__(self, o): return self.x == o.x",
         "assert P(1) == P(1) and not P(1) == P(2) and P(1) != 1"),
        ("def f(x):\n    if x < 0: raise ValueError('below')\n    return x",
         "try:\n    f(-1)\nexcept ValueError as error:\n    assert str(error) == 'below'\nelse:\n    assert False"),
        ("class Own(KeyError): pass\ndef f(): raise Own('x')",
         "try:\n    f()\nexcept LookupError:\n    pass\nelse:\n    assert False"),
        # It is called as it is asked for, whatever else has the name.
        ("def sum(a, b): return a + b", "assert sum(10, 15) == 25"),
        ("def bisect(items): return items[len(items) // 2]", "assert bisect([1, 2, 3]) == 2"),
        ("def f(x): return x + 0.5", "assert math.isclose(f(1), 1.5)"),
        ("LIMIT = 7\ndef f(): return LIMIT", "def check(candidate):\n    assert candidate() == LIMIT\ncheck(f)"),
        ("def f(x): return x\nprint('prints')\nif __name__ == '__main__': raise SystemExit", "assert f(1) == 1"),
        ("import numpy as np\ndef f(): return float(np.mean([1, 2]))", "assert f() == 1.5"),
    ],
)  # fmt: skip
def test_what_passes(program: str, test: str, asserts: CodeScorer) -> None:
    assert share(asserts, program, test) == 1.0


@pytest.mark.parametrize(
    ("program", "test"),
    [
        ("def f(x): return x", "assert f(1) == 2"),
        ("def g(x): return x", "assert f(1) == 1"),
        ("def f(x) return x", "assert f(1) == 1"),
        ("", "assert f(1) == 1"),
        ("raise RuntimeError\ndef f(x): return x", "assert f(1) == 1"),
        ("def f(x): return f(x)", "assert f(1) == 1"),
        ("def f(x): return [1, 2]", "assert f(1) == (1, 2)"),
        ("def f(x): return 1", "assert f(1) == 1\nassert g == 1"),
        ("def f(x): return 1", "assert f(1) =="),
    ],
)
def test_what_does_not(program: str, test: str, asserts: CodeScorer) -> None:
    assert share(asserts, program, test) == 0.0


def test_one_test_that_ends_the_process_costs_no_other(asserts: CodeScorer) -> None:
    program = "import os\ndef f(x):\n    if x == 1: os._exit(0)\n    if x == 3: os.abort()\n    return x"
    assert share(asserts, program, *(f"assert f({x}) == {x}" for x in range(5))) == 3 / 5


def test_one_test_that_takes_all_its_cpu_costs_no_other() -> None:
    program = "def f(x):\n    while x == 1: pass\n    return x"
    began = time.monotonic()
    scorer = CodeScorer(CodePart(value="share", cpu_s=1, timeout_s=30))
    assert share(scorer, program, *(f"assert f({x}) == {x}" for x in range(3))) == 2 / 3
    assert time.monotonic() - began < 20


ECHO = "import sys\nfor line in sys.stdin:\n    print(int(line) * 2, end='  \\n')"


@pytest.mark.parametrize(
    ("program", "tests", "expected"),
    [
        (ECHO, [{"input": "1\n2\n", "output": "2\n4"}, {"input": "5", "output": "10\n\n"}, ["7", "15"]], 2 / 3),
        ("if __name__ == '__main__':\n    print(input())", [["a b", "a b"], ["a", " a"]], 1 / 2),
        ("print(1)\nraise ValueError", [["", "1"]], 0.0),
        ("print(1)\nimport sys\nsys.exit(1)", [["", "1"]], 0.0),
        ("print(1)\nimport sys\nsys.exit()", [["", "1"]], 1.0),
        ("print('a', end='')\nimport os\nos._exit(0)", [["", "a"]], 0.0),
    ],
)
def test_what_a_program_prints(program: str, tests: list[Any], expected: float, stdio: CodeScorer) -> None:
    assert share(stdio, program, *tests) == pytest.approx(expected)


def test_tests_in_the_forms_that_data_sets_have(stdio: CodeScorer, asserts: CodeScorer) -> None:
    for tests in ({"inputs": ["1"], "outputs": ["2"]}, '{"inputs": ["1"], "outputs": ["2"]}', '[["1", "2"]]'):
        assert stdio.score([ScoreRequest("q", ECHO, {"tests": tests})])[0].total == 1.0
    humaneval = "def check(candidate):\n    assert candidate(1) == 2\n\ncheck(f)"
    assert asserts.score([ScoreRequest("q", "def f(x): return 2", {"tests": humaneval})])[0].total == 1.0


@pytest.mark.parametrize(
    ("form", "row", "reason"),
    [
        ("asserts", {"answer": 1}, "tests: the row has no tests; its columns: answer"),
        ("asserts", {"tests": []}, "tests: the column tests holds no text of asserts, nor a list of such"),
        ("stdio", {"tests": ["a"]}, "tests: the column tests holds no list of inputs and outputs"),
        ("stdio", {"tests": [["a", 1]]}, "tests: the column tests holds no list of inputs and outputs, which are"),
        ("asserts", {"tests": ["assert f(lambda: 1) == 1"]}, "tests: it gives the program a function, where"),
    ],
)
def test_tests_that_cannot_be_run_are_no_fault_of_the_program(form: Any, row: dict[str, Any], reason: str) -> None:
    request = ScoreRequest("What?", "def f(x): return x()", row)
    (found,) = CodeScorer(CodePart(form=form, on_failure=0.5)).score([request])
    assert (found.total, found.parts) == (0.5, {}) and found.failures["code"].startswith(reason)
    with pytest.raises(RunFailed, match="a response's program could not be tested: "):
        CodeScorer(CodePart(form=form)).score([request])


def test_several_at_once_keep_their_order(asserts: CodeScorer) -> None:
    asked = [ScoreRequest("q", f"def f(): return {n}", {"tests": ["assert f() % 2 == 0"]}) for n in range(9)]
    assert [score.total for score in asserts.score(asked)] == [1, 0, 1, 0, 1, 0, 1, 0, 1]
