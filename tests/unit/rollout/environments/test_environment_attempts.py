"""Episodes that fail, and that try to break out: what they do is told, and those beside them continue as they were."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from plumbob.rollout.environments.environment_host import EnvironmentHost
from plumbob.rollout.environments.environment_protocol import EnvironmentFailed, EnvironmentReply
from plumbob.rollout.environments.host_program import MAX_PROCESSES
from tests.support.environments import awaited, environment, gone_soon, is_alive, replied, said, stepping

OBEDIENT = """
    if text == "good":
        return {"done": True, "reward": 1.0}
    result = {}
    exec(text, globals(), result)
    return result.get("reply")
    """
GOOD = EnvironmentReply((), 1.0, True)
NUMBERS = "wrong type: reward is a str, and should be a number"
TURN_S = 3
"""For a turn, and for an environment to open: a busy machine needs some of it."""

TOO_LONG = f"time-out: step took more than timeout_s={TURN_S} s"
FAILURES = {
    "1 / 0": "ZeroDivisionError: division by zero",
    "sys.exit(3)": "SystemExit: 3",
    "raise KeyboardInterrupt": "KeyboardInterrupt",
    "raise ValueError('line\\nline')": "ValueError: line",
    "pass": "wrong type: step gave a NoneType, and a reply is a dictionary",
    "reply = [1]": "wrong type: step gave a list, and a reply is a dictionary",
    "reply = {'rewards': 1, 'done': True}": "wrong reply: step gave 'rewards'; a reply has messages, reward, done",
    "reply = {}": "wrong reply: step gave no messages and did not end the episode",
    "reply = {'reward': '1', 'done': True}": NUMBERS,
    "reply = {'reward': None, 'done': True}": "wrong type: reward is a NoneType, and should be a number",
    "reply = {'reward': float('nan'), 'done': True}": "not finite: the reward is nan",
    "reply = {'reward': -float('inf'), 'done': True}": "not finite: the reward is -inf",
    "reply = {'reward': 10 ** 400, 'done': True}": "not finite: the reward is inf",
    "reply = {'reward': 1e39, 'done': True}": "not finite: the reward is 1e+39",
    "reply = {'done': 1}": "wrong type: done is a int, and should be True or False",
    "reply = {'done': object()}": "TypeError: wrong type: it gave a object, and a reply is made of plain values",
    "reply = {'messages': 'Hi'}": "wrong messages: 'messages of step': expected a list of messages with",
    "reply = {'messages': [{'role': 'tool'}]}": "wrong messages: 'messages of step': expected messages with role",
    "reply = {'messages': [{'role': 'tool', 'content': 5}]}": "wrong messages: 'content': expected text, found 5",
    "reply = {'messages': [{'role': 'assistant', 'content': 'I win.'}]}": (
        "wrong reply: step gave a message of the assistant's, which the policy alone writes"
    ),
    "reply = {'messages': [{'role': 'tool', 'content': '\\ud800'}]}": (
        "wrong messages: those of step hold what is no Unicode text"
    ),
    "reply = {'messages': [{'role': 'tool', 'content': 'a', 'x': eval('[' * 90 + ']' * 90)}]}": (
        "wrong messages: those of step are nested more than 64 deep"
    ),
    "reply = {'messages': [{'role': 'tool', 'content': 'a' * 2 ** 23}]}": (
        "wrong message: its process sent a message of more than 4 MiB"
    ),
    "reply = []\nfor _ in range(10 ** 5): reply = [reply]": "RecursionError: maximum recursion depth exceeded",
    "time.sleep(600)": TOO_LONG,
    "while True: pass": TOO_LONG,
    "import re; re.match('(a+)+$', 'a' * 200 + 'b')": TOO_LONG,
    "os._exit(3)": "its process ended: with status 3",
    "os.kill(os.getpid(), signal.SIGSEGV)": "its process ended: by SIGSEGV",
    "os.kill(os.getpid(), signal.SIGSTOP)": TOO_LONG,
    "held = bytearray(2 ** 31)": "MemoryError",
    "os.closerange(3, 256)": "its process ended: with status 0",
}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> EnvironmentHost:
    return EnvironmentHost(stepping(tmp_path_factory.mktemp("world"), OBEDIENT, timeout_s=TURN_S, memory_gib=0.5))


def failure(host: EnvironmentHost, text: str) -> EnvironmentFailed:
    """Of a turn that makes an episode fail, while another beside it is open."""
    beside, episode = host.open({}, 0), host.open({}, 0)
    began = time.monotonic()
    with pytest.raises(EnvironmentFailed) as failed:
        replied(host, episode, text)
    assert time.monotonic() - began < 30 and episode.is_closed
    assert replied(host, beside, "good") == GOOD
    beside.close()
    return failed.value


@pytest.mark.parametrize("text", FAILURES)
def test_a_failure_is_told_and_touches_no_other_episode(text: str, host: EnvironmentHost) -> None:
    assert failure(host, text).reason.startswith(FAILURES[text])
    assert replied(host, host.open({}, 0), "good") == GOOD


def test_a_traceback_has_the_users_own_lines(host: EnvironmentHost) -> None:
    found = failure(host, "{}['door']")
    assert found.reason == "KeyError: 'door'" and found.detail[-1] == "KeyError: 'door'"
    shown = "\n".join(found.detail)
    assert (
        "my_world.py" in shown
        and "episode_program" not in shown
        and str(found) == "\n  ".join([found.reason, *found.detail])
    )


def test_what_it_printed_is_told_with_its_end(host: EnvironmentHost) -> None:
    text = "print('to', 'out'); print('to err', file=sys.stderr); os.system('echo of a child'); os._exit(1)"
    assert failure(host, text).detail == ("to out", "to err", "of a child")
    (last,) = failure(host, "print('x' * 10 ** 7); os._exit(1)").detail
    assert last == "x" * 300
    assert failure(host, "print('hanging'); time.sleep(600)").detail == ("hanging",)


@pytest.mark.parametrize(
    "text",
    [
        "os.write(1, bytes(7) + b'\\x10{\"reply\": {}}xxxx'); reply = {'done': True, 'reward': 1.0}",
        "print('{\"ended\": 0}'); sys.stdin.read(); reply = {'done': True, 'reward': 1.0}",
        "sys.stdout.close(); os.close(2); reply = {'done': True, 'reward': 1.0}",
    ],
)
def test_prints_are_no_messages(text: str, host: EnvironmentHost) -> None:
    assert replied(host, host.open({}, 0), text) == GOOD


SEND = "import socket; s = socket.socket(fileno=os.dup({0})); s.sendall({1}); time.sleep(600)"


@pytest.mark.parametrize(
    "content",
    [
        "b'\\xff' * 64",
        "bytes(7) + b'\\x02[]'",
        "bytes(7) + b'\\x04nope'",
        "bytes(7) + b'\\x0b{\"other\": 1}'",
        "(10 ** 5).to_bytes(8, 'big') + b'[' * 10 ** 5",
    ],
)
def test_what_it_writes_on_the_socket_itself_is_not_believed(content: str, host: EnvironmentHost) -> None:
    find = "[n for n in map(int, os.listdir('/proc/self/fd')) if n > 2 and os.path.exists(f'/proc/self/fd/{n}') and"
    place = f"{find} os.readlink(f'/proc/self/fd/{{n}}').startswith('socket')][0]"
    assert failure(host, SEND.format(place, content)).reason.startswith("wrong message: its process sent")


def test_a_flood_of_prints_stops_no_other(host: EnvironmentHost) -> None:
    flooding = host.open({}, 0)
    flooding.begin(said("while True: os.write(1, b'x' * 65536)"))
    began = time.monotonic()
    assert replied(host, host.open({}, 0), "good") == GOOD
    assert time.monotonic() - began < 5
    with pytest.raises(EnvironmentFailed, match="time-out"):
        awaited(host, flooding)


def test_a_hanging_reset_is_bounded_and_a_whole_episode_has_its_time(tmp_path: Path) -> None:
    body = """
        import time
        class World:
            def reset(self, row, seed): time.sleep(row["s"])
            def step(self, turn): return {"messages": [{"role": "tool", "content": "a"}]}
        """
    host = EnvironmentHost(environment(tmp_path, body, timeout_s=1, episode_s=0.5))
    with pytest.raises(EnvironmentFailed, match="time-out: reset took more than timeout_s=1 s"):
        awaited(host, host.open({"s": 600}, 0))
    episode = host.open({"s": 0}, 0)
    assert not episode.is_past_its_time
    time.sleep(0.6)
    # Whoever gives the turns looks at that; the turn that is given has a time of its own.
    assert episode.is_past_its_time and replied(host, episode, "a").messages
    # What is asked of it meanwhile waits for its `reset`, and has a time of its own.
    assert replied(host, host.open({"s": 0.7}, 0), "a").messages


def test_a_file_descriptor_that_a_child_keeps_hides_no_death(host: EnvironmentHost) -> None:
    text = "if os.fork() == 0: time.sleep(600)\nos._exit(7)"
    assert failure(host, text).reason == "its process ended: with status 7"


ESCAPES = {
    "in its group": "pid = os.fork()",
    "in a session of its own": "pid = os.fork()\nif pid == 0: os.setsid()",
    "of a parent that has gone": (
        "reading, writing = os.pipe()\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    pid = os.fork()\n"
        "    if pid: os.write(writing, str(pid).encode()); os._exit(0)\n"
        "else:\n"
        "    pid = int(os.read(reading, 20))"
    ),
}


@pytest.mark.parametrize("way", ESCAPES)
@pytest.mark.parametrize("end", ["hangs", "exits", "is closed"])
def test_what_it_started_ends_with_it(way: str, end: str, host: EnvironmentHost, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    last = {"hangs": "time.sleep(600)", "exits": "os._exit(0)", "is closed": "reply = {'done': True}"}[end]
    told = f"open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{pid}}')"
    text = f"{ESCAPES[way]}\nif pid == 0: time.sleep(600)\n{told}\n{last}"
    episode = host.open({}, 0)
    if end == "is closed":
        assert replied(host, episode, text).is_done
        own, child = map(int, pids.read_text().split())
        assert is_alive(own) and is_alive(child)
        episode.close()
    else:
        with pytest.raises(EnvironmentFailed):
            replied(host, episode, text)
        own, child = map(int, pids.read_text().split())
    assert gone_soon(own, child)
    assert replied(host, host.open({}, 0), "good") == GOOD


@pytest.mark.parametrize("sets_sessions", [False, True])
def test_too_many_processes_end_an_episode(sets_sessions: bool, host: EnvironmentHost, tmp_path: Path) -> None:
    """A bomb, which here stops by itself at 2,000; each process leaves a file."""
    text = f"""
folder = {str(tmp_path)!r}
while len(os.listdir(folder)) < 2000:
    if os.fork() == 0:
        open(f"{{folder}}/{{os.getpid()}}", "w").close()
        {"os.setsid()" if sets_sessions else "pass"}
time.sleep(600)
"""
    found = failure(host, text)
    assert found.reason in (
        f"its process ended: as it had more than {MAX_PROCESSES} processes",
        TOO_LONG,  # On a machine so busy that no 64 came together.
    )
    pids = [int(name) for name in sorted(path.name for path in tmp_path.iterdir())]
    print(f"a bomb of {len(pids)} processes")
    assert gone_soon(*pids)


def test_it_does_not_see_the_runs_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("SERVICE_KEY", "asked for")
    step = "return {'messages': [{'role': 'tool', 'content': json.dumps(dict(os.environ))}]}"
    plain, asking = stepping(tmp_path, step), stepping(tmp_path, step, variables=("SERVICE_KEY",))
    host = EnvironmentHost(plain)
    seen = replied(host, host.open({}, 0), "a").messages[0]["content"]
    assert "secret" not in seen and "asked for" not in seen and '"PATH"' in seen
    host = EnvironmentHost(asking)
    seen = replied(host, host.open({}, 0), "a").messages[0]["content"]
    assert "secret" not in seen and "asked for" in seen


def test_its_own_sockets_alone_are_open_in_it(host: EnvironmentHost) -> None:
    """Neither another episode's nor the host's."""
    beside = host.open({}, 0)
    text = (
        "files = {n: os.readlink(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd') "
        "if os.path.exists(f'/proc/self/fd/{n}')}\n"
        "reply = {'messages': [{'role': 'tool', 'content': json.dumps(files)}]}"
    )
    files = eval(replied(host, host.open({}, 0), text).messages[0]["content"])
    assert sum(name.startswith("socket") for name in files.values()) == 1
    assert sorted(number for number, name in files.items() if name.startswith("pipe")) == ["1", "2"]
    assert replied(host, beside, "good") == GOOD


# ------------------------------------------------------------------------------------------------- ends of the others


def test_a_host_that_is_killed_fails_its_episodes_and_the_next_has_another(tmp_path: Path) -> None:
    step = "return {'messages': [{'role': 'tool', 'content': f'{os.getppid()} {os.getpid()}'}]}"
    host = EnvironmentHost(stepping(tmp_path, step))
    episodes = [host.open({}, 0) for _ in range(3)]
    pids = [list(map(int, replied(host, one, "a").messages[0]["content"].split())) for one in episodes]
    assert {parent for parent, _ in pids} == {host.pid}
    os.kill(host.pid, signal.SIGKILL)
    assert gone_soon(*(own for _, own in pids))
    for episode in episodes:
        with pytest.raises(EnvironmentFailed, match="its process ended: its host's process ended by SIGKILL"):
            replied(host, episode, "a")
    before = host.pid
    assert replied(host, host.open({}, 0), "a").messages and host.pid != before


@pytest.mark.parametrize("way", ["idle", "in a call"])
def test_all_end_when_the_worker_is_killed(way: str, tmp_path: Path) -> None:
    step = """
        import subprocess
        child = subprocess.Popen(["sleep", "600"], start_new_session=True)
        open("pids", "w").write(f"{os.getppid()} {os.getpid()} {child.pid} {os.environ['TMPDIR']}")
        os.rename("pids", "all-pids")
        if text == "in a call":
            time.sleep(600)
        return {"messages": [{"role": "tool", "content": "a"}]}
        """
    settings = stepping(tmp_path, step, timeout_s=600)
    code = (
        "import time\n"
        "from plumbob.configs.settings.programs.environments import EnvironmentSettings\n"
        "from plumbob.rollout.environments.environment_host import EnvironmentHost\n"
        f"host = EnvironmentHost(EnvironmentSettings.model_validate_json({settings.model_dump_json()!r}))\n"
        "episode = host.open({}, 0)\n"
        f"episode.begin({said(way)})\n"
        "while True: episode.poll(); time.sleep(0.05)"
    )
    worker = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 60
    while not (tmp_path / "all-pids").exists():
        assert time.monotonic() < deadline and worker.poll() is None
        time.sleep(0.05)
    *pids, scratch = (tmp_path / "all-pids").read_text().split()
    assert all(is_alive(int(pid)) for pid in pids) and Path(scratch).is_dir()
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait(20)
    assert gone_soon(*map(int, pids))
    while Path(scratch).parent.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_memory_of_one_is_its_own(tmp_path: Path) -> None:
    """Each has its bound, and what another holds is not counted."""
    host = EnvironmentHost(stepping(tmp_path, OBEDIENT, memory_gib=0.5))
    text = "World.held = bytearray(2 ** 28); reply = {'messages': [{'role': 'tool', 'content': 'a'}]}"
    one, other = host.open({}, 0), host.open({}, 0)
    for episode in (one, other):
        assert replied(host, episode, text).messages
    with pytest.raises(EnvironmentFailed, match="MemoryError"):
        replied(host, one, "more = bytearray(2 ** 28)")
    assert replied(host, other, "good") == GOOD
