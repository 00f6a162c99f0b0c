"""Programs that try to pass without being right."""

from pathlib import Path

import pytest

from plumbob.configs.settings.programs.reward_programs import CodePart
from plumbob.reward.programs.code_scorer import CodeScorer
from tests.support.sandboxed_programs import LIMITS, passes


@pytest.fixture(scope="module")
def scorer() -> CodeScorer:
    return CodeScorer(CodePart(**LIMITS))


ALL = "class All({0}):\n    def __eq__(self, other): return True\n"
"""What is equal to whatever it is compared with."""

WITHOUT_BEING_RIGHT = {
    "ends at once": "import os\nos._exit(0)",
    "ends with success": "import sys\nsys.exit(0)",
    "ends when it is called": "import os\ndef f(x): os._exit(0)",
    "ends when it is called, politely": "def f(x): raise SystemExit(0)",
    "ends from a thread": "import os, threading\nthreading.Thread(target=os._exit, args=[0]).start()",
    "gives a number that equals all": f"{ALL.format('int')}def f(x): return All(0)",
    "gives a text that equals all": f"{ALL.format('str')}def f(x): return All('')",
    "gives an object that equals all": f"{ALL.format('')}def f(x): return All()",
    "is an object that equals all": f"{ALL.format('')}    def __call__(self, x): return self\nf = All()",
    "has a text of its own": f"{ALL.format('')}import builtins\nbuiltins.str = str = All\ndef f(x): return str()",
    "has an error of its own": "import builtins\nbuiltins.AssertionError = type('E', (), {})\ndef f(x): return 0",
    "raises what a test may catch": "def f(x): raise AssertionError",
    "writes the protocol everywhere": (
        "import os, struct, json\n"
        "lines = ''.join(json.dumps({'test': n, 'passed': True}) + '\\n' for n in range(9)).encode()\n"
        "message = json.dumps({'value': {'result': True, 'arguments': [{'list': []}]}}).encode()\n"
        "def f(x):\n"
        "    for file in range(64):\n"
        "        for content in (lines, b'ready', struct.pack('>I', len(message)) + message):\n"
        "            try: os.write(file, content)\n"
        "            except OSError: pass\n"
        "    return 0\n"
    ),
}


@pytest.mark.parametrize("attempt", WITHOUT_BEING_RIGHT)
def test_a_program_does_not_pass_by_other_means(attempt: str, scorer: CodeScorer) -> None:
    """The expected value is none that it could say by chance."""
    assert not passes(scorer, WITHOUT_BEING_RIGHT[attempt], "assert f(3) == 'seven-and-twenty'")


HELPERS = {
    "abs": "assert abs(f(2.0) - 4.5) < 1e-6",
    "len": "assert len(f(2)) == 3",
    "sorted": "assert sorted(f(2)) == [1, 2, 3]",
    "isinstance": "assert isinstance(f(2), str)",
    "all": "assert all(x == 7 for x in f(2))",
    "round": "assert round(f(2), 2) == 4.5",
    "math": "assert math.isclose(f(2), 4.5)",
    "set": "assert set(f(2)) == {1, 2}",
}


@pytest.mark.parametrize("name", HELPERS)
def test_what_a_test_calls_beside_the_program_is_not_the_programs(name: str, scorer: CodeScorer) -> None:
    """Each value is true of, or equal to, whatever the test compares it with, if it may decide."""
    program = f"""
class Any:
    def __getattr__(self, name): return self
    def __call__(self, *arguments): return self
    def __eq__(self, other): return True
    def __lt__(self, other): return True
    def __bool__(self): return True
    def __iter__(self): return iter([])
{name} = Any()
import builtins
builtins.{name} = {name}
def f(x): return [8]
"""
    assert not passes(scorer, program, HELPERS[name])


def test_the_expected_value_is_nowhere_in_what_it_can_read(scorer: CodeScorer, tmp_path: Path) -> None:
    """In its memory, its frames, its environment, files and processes: it says yes to every text that it finds."""
    program = """
import gc, os, sys
def texts():
    yield from map(repr, gc.get_objects())
    frame = sys._getframe()
    while frame:
        yield repr(frame.f_locals) + repr(frame.f_globals)
        frame = frame.f_back
    yield repr(os.environ) + repr(sys.argv)
    for folder in ("/proc", "/dev/shm", "/tmp", "/", "/var", "/home", "/root"):
        for path, _, names in os.walk(folder):
            for name in names:
                try: yield open(os.path.join(path, name), "rb").read(100000).decode("latin-1")
                except OSError: pass
    for file in range(64):
        try: yield os.pread(file, 100000, 0).decode("latin-1")
        except OSError: pass
def f(x):
    for text in texts():
        at = text.find("-and-" + "twenty-marker")
        if at >= 0: return text[at - 5:at + 18]
    return 0
"""
    (tmp_path / "rows.jsonl").write_text("seven-and-twenty-marker")
    assert not passes(scorer, program, "assert f(3) == 'seven-and-twenty-marker'")
