"""Hosts that allow a sandbox less: what they contain then, and when they are refused."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from plumbob.configs.settings.programs.reward_programs import CodePart
from plumbob.reward.programs.code_scorer import CodeScorer
from tests.support.ordinary_user import printed_as_nobody
from tests.support.sandboxed_programs import LIMITS, passes, said_by

WITHOUT_SYS_ADMIN = ("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin")
"""As root has it in a container: it has no namespaces without one of users."""

WITHOUT_NAMESPACES = ("unshare", "-r", "sh", "-c", 'echo 0 > /proc/sys/user/max_user_namespaces; exec "$@"', "-")
"""Within it nobody gets a namespace of users."""

SCORE = """
import os, sys
from plumbob.configs.settings.programs.reward_programs import CodePart
from plumbob.core.errors import UserError
from plumbob.reward.programs.code_scorer import CodeScorer
from plumbob.reward.scorer import ScoreRequest
PROGRAM = '''
import ctypes, os
def f():
    found = [path for path in ("/etc/passwd", "/proc/1", "/sys/kernel") if os.path.exists(path)]
    for folder in ("/usr", "/", "/var/tmp", "/lib/x86_64-linux-gnu"):
        try: open(folder + "/plumbob-mark", "w")
        except OSError: continue
        found.append(folder)
    libc = ctypes.CDLL(None)
    gained = [libc.unshare(0x10000000), libc.mount(b"tmpfs", b"/tmp", b"tmpfs", 0, None)]
    return found, gained, os.getpid() < 5
'''
try:
    scorer = CodeScorer(CodePart(value="share", cpu_s=2, max_processes=2))
except UserError as error:
    print(error)
else:
    tests = ["assert f() == ([], [-1, -1], True)", "import os\\nassert os.getpid() < 5 and not os.path.exists('/etc')"]
    print(scorer.score([ScoreRequest("q", PROGRAM, {"tests": tests})])[0].total)
"""


def said_under(*command: str) -> str:
    """What the program above prints that is started by a command."""
    done = subprocess.run(
        [*command, sys.executable, "-c", SCORE], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="gives up a right of root's")
def test_root_without_the_right_has_a_namespace_of_users() -> None:
    assert said_under(*WITHOUT_SYS_ADMIN) == "1.0\n"


def test_an_ordinary_user_has_a_namespace_of_users() -> None:
    """Where the host gives users any: what it contains is what it does of root's."""
    found = printed_as_nobody(SCORE)
    if "this host does not give programs a sandbox" in found:
        pytest.skip(found)
    assert found == "1.0\n"


LIMITED_AS_NOBODY = """
import os
from plumbob.configs.settings.programs.reward_programs import CodePart
from plumbob.reward.programs.code_scorer import CodeScorer
from plumbob.reward.scorer import ScoreRequest
PROGRAM = '''
import os
def forks():
    try: os.fork()
    except OSError: return "none"
def environment(): return [name for name in os.environ if name == "SECRET"]
def endless():
    while True: pass
'''
os.environ["SECRET"] = "x"
scorer = CodeScorer(CodePart(value="share", isolation="limits", cpu_s=1, timeout_s=8))
tests = ["assert forks() == 'none'", "assert environment() == []", "assert endless() is None"]
print(scorer.score([ScoreRequest("q", PROGRAM, {"tests": tests})])[0].total)
"""


def test_limits_hold_for_an_ordinary_user_too() -> None:
    """Two of three: the endless loop is ended. The program is of the user's own then, which the documents say."""
    assert float(printed_as_nobody(LIMITED_AS_NOBODY)) == pytest.approx(2 / 3)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives up a right of root's")
def test_a_host_that_allows_none_is_refused() -> None:
    said = said_under(*WITHOUT_NAMESPACES, *WITHOUT_SYS_ADMIN)
    assert said.startswith(
        "kind=code: this host does not give programs a sandbox with isolation=namespaces: unshare: "
    ) and said.endswith("or set isolation=limits, which contains less (docs/rewards.md)\n")


@pytest.fixture(scope="module")
def limited() -> CodeScorer:
    return CodeScorer(CodePart(isolation="limits", **LIMITS))


LIMITED = {
    "no process": ("try: os.fork()\nexcept OSError: return 'none'\nreturn 'one'", "'none'"),
    "no memory": ("try: return len(bytearray(2 ** 29))\nexcept MemoryError: return 'none'", "'none'"),
    "no environment": ("return [name for name in os.environ if 'TOKEN' in name or 'RAY' in name]", "[]"),
    "no killing": (
        f"try: os.kill({os.getpid()}, 15)\nexcept OSError as e: return type(e).__name__",
        "'PermissionError'",
    ),
    "no rights": ("return ctypes.CDLL(None).mount(b'tmpfs', b'/tmp', b'tmpfs', 0, None)", "-1"),
    "a scratch": ("open(os.environ['TMPDIR'] + '/a', 'w').write('b')\nreturn os.listdir('.')", "['a']"),
}


@pytest.mark.skipif(os.geteuid() != 0, reason="another user is for root to become")
@pytest.mark.parametrize("attempt", LIMITED)
def test_what_limits_alone_contain(attempt: str, limited: CodeScorer) -> None:
    said_by(limited, *LIMITED[attempt])


@pytest.mark.skipif(os.geteuid() != 0, reason="another user is for root to become")
def test_limits_alone_contain_time_and_folders_of_others(limited: CodeScorer, tmp_path: Path) -> None:
    assert not passes(limited, "while True: pass", "assert True == f()")
    body = f"try: open({str(tmp_path / 'mark')!r}, 'w')\nexcept OSError: return 'refused'"
    said_by(limited, body, "'refused'")
    # What they do not: files that anybody may read.
    said_by(limited, "return os.path.exists('/etc/passwd')", "True")
    assert list(Path(limited._folder).iterdir()) == []
