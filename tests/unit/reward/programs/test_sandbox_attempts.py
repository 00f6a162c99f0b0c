"""Programs that try to break out of their sandbox."""

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from plumbob.configs.settings.programs.reward_programs import CodePart
from plumbob.reward.programs.code_scorer import CodeScorer
from plumbob.reward.scorer import ScoreRequest
from tests.support.sandboxed_programs import LIMITS, assert_soon, leftover, passes, said_by


@pytest.fixture(scope="module")
def scorer() -> CodeScorer:
    return CodeScorer(CodePart(**LIMITS))


@pytest.fixture(scope="module")
def script_scorer() -> CodeScorer:
    return CodeScorer(CodePart(form="stdio", **LIMITS))


def test_fork_bombs_end(scorer: CodeScorer, script_scorer: CodeScorer) -> None:
    bomb = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"
    before = len(psutil.pids())
    assert not passes(scorer, bomb, "assert True == f()")
    (found,) = script_scorer.score([ScoreRequest("q", bomb, {"tests": [["", "1"]]})])
    assert found.total == 0.0 and leftover() == [] and abs(len(psutil.pids()) - before) < 20


def test_it_has_as_many_processes_as_it_may(scorer: CodeScorer) -> None:
    body = """
children = 0
while children < 50:
    try: pid = os.fork()
    except OSError: break
    if pid == 0: time.sleep(60)
    children += 1
return children
"""
    said_by(scorer, body, "3")  # Beside itself, of max_processes=4.


def test_a_daemon_ends_with_its_program(scorer: CodeScorer) -> None:
    body = """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        while True: time.sleep(1)
    os._exit(0)
return 1
"""
    said_by(scorer, body, "1")


def test_endless_output_is_not_kept(scorer: CodeScorer, script_scorer: CodeScorer) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    endless = "while True: print('x' * 100_000)"
    assert not passes(scorer, f"def f():\n    {endless}", "assert f() == 1")
    (found,) = script_scorer.score([ScoreRequest("q", endless, {"tests": [["", "x"]]})])
    assert found.total == 0.0 and leftover() == []
    assert not passes(scorer, "def f(): return 'x' * 50_000_000", "assert f() == 1")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


def test_it_writes_nowhere_but_in_its_scratch(scorer: CodeScorer, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    tmp_path.parent.chmod(0o755)
    body = f"""
written = []
for folder in ({str(tmp_path)!r}, "/", "/usr", "/usr/lib", "/bin", "/lib", "/dev", "/dev/shm", "/etc", "/var/tmp",
               "/root", "/home", "/proc", "/sys", "/run", sys.prefix, os.__file__.rpartition("/")[0], "..", "../.."):
    try: open(folder + "/mark", "w").write("x")
    except OSError: continue
    written.append(folder)
open("mine", "w").write("mine")
os.makedirs("a/b")
return written, open("/tmp/mine").read(), os.getcwd(), os.listdir("/tmp/a")
"""
    said_by(scorer, body, "([], 'mine', '/tmp', ['b'])")
    assert list(tmp_path.iterdir()) == [] and not Path("/tmp/mark").exists() and not Path("/tmp/mine").exists()


def test_it_fills_no_disk(scorer: CodeScorer) -> None:
    body = """
total = 0
for number in range(100):
    try:
        with open(f"file-{number}", "wb", buffering=0) as file:
            while True: total += file.write(bytes(2 ** 20))
    except OSError: continue
return total // 2 ** 20, max(os.path.getsize(f"file-{n}") for n in range(4)) // 2 ** 20
"""
    said_by(scorer, body, "(16, 4)")  # scratch_mib and max_file_mib


def test_it_reads_nothing_of_ours(scorer: CodeScorer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    body = """
found = sorted(set(os.environ) - {"LANG", "PATH", "HOME", "TMPDIR", "PYTHONHASHSEED", "LC_CTYPE"})
for path in ("/etc/passwd", "/proc/self/environ", "/proc/1/environ", "/root/.ssh", "/home", "/var", "/sys", "/dev/shm"):
    if os.path.exists(path): found.append(path)
return [name for name in found if not name.endswith("_NUM_THREADS")]
"""
    said_by(scorer, body, "[]")


def test_it_kills_nobody_else(scorer: CodeScorer) -> None:
    body = f"""
for kill, target in ((os.kill, os.getppid()), (os.kill, {os.getpid()}), (os.killpg, {os.getpgrp()}), (os.kill, -1)):
    try: kill(target, signal.SIGKILL)
    except OSError: pass
return os.getpid() < 5
"""
    said_by(scorer, body, "True")  # It is alone with its process 1, and we are here.


def test_it_sleeps_no_longer_than_it_may() -> None:
    scorer = CodeScorer(CodePart(timeout_s=2))
    began = time.monotonic()
    assert not passes(scorer, "import time\ndef f(): time.sleep(600)", "assert f() == 1")
    deaf = "import signal\nsignal.pthread_sigmask(0, range(1, 65))\nwhile True: signal.pause()"
    assert not passes(scorer, deaf, "assert f() == 1")
    assert time.monotonic() - began < 12


def test_it_has_no_memory_beyond_its_own(scorer: CodeScorer) -> None:
    body = """
try: return len(bytearray(2 ** 29))
except MemoryError: return "none"
"""
    said_by(scorer, body, "'none'")


def test_it_reaches_no_network(scorer: CodeScorer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        body = f"""
import socket
found = []
for address in (("127.0.0.1", {server.getsockname()[1]}), ("1.1.1.1", 53)):
    try: socket.create_connection(address, timeout=1)
    except OSError: continue
    found.append(address)
return found
"""
        said_by(scorer, body, "[]")
        with pytest.raises(TimeoutError):
            server.accept()


def test_it_gets_no_right_that_it_has_not(scorer: CodeScorer) -> None:
    body = """
libc = ctypes.CDLL(None, use_errno=True)
gained = []
for name, attempt in {
    "users": lambda: libc.unshare(0x10000000),
    "mounts": lambda: libc.unshare(0x20000),
    "mount": lambda: libc.mount(b"tmpfs", b"/tmp", b"tmpfs", 0, None),
    "remount": lambda: libc.mount(None, b"/usr", None, 32 | 4096, None),
    "umount": lambda: libc.umount2(b"/tmp", 2),
    "root": lambda: libc.setresuid(0, 0, 0),
    "chroot": lambda: libc.chroot(b"/tmp"),
    "ptrace": lambda: libc.ptrace(16, 1, 0, 0),
    "limit": lambda: libc.setrlimit(9, (ctypes.c_ulong * 2)(2 ** 40, 2 ** 40)),
    "host name": lambda: libc.sethostname(b"mine", 4),
}.items():
    if attempt() == 0: gained.append(name)
return gained
"""
    said_by(scorer, body, "[]")


def test_it_ends_with_its_worker(tmp_path: Path) -> None:
    code = (
        "from plumbob.configs.settings.programs.reward_programs import CodePart\n"
        "from plumbob.reward.programs.code_scorer import CodeScorer\n"
        "from plumbob.reward.scorer import ScoreRequest\n"
        "scorer = CodeScorer(CodePart(timeout_s=600))\n"
        f"open({str(tmp_path / 'folder')!r}, 'w').write(str(scorer._folder))\n"
        "scorer.score([ScoreRequest('q', 'import time\\ndef f(): time.sleep(600)', {'tests': ['f()']})])"
    )
    worker = subprocess.Popen([sys.executable, "-c", code])
    assert_soon(lambda: len(leftover()) == 6)  # Three of the program's, three of its tests'.
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait(20)
    folder = Path((tmp_path / "folder").read_text())
    assert_soon(lambda: leftover() == [] and not folder.exists())
