"""A user's environment in its real processes: what its methods are given, what becomes of what they give."""

import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path

import pytest

from plumbob.configs.settings.programs.environments import EnvironmentSettings
from plumbob.core.errors import UserError
from plumbob.data.records import RowError
from plumbob.rollout.environments import environment_host
from plumbob.rollout.environments.environment_host import EnvironmentHost
from plumbob.rollout.environments.environment_protocol import EnvironmentReply, episode_seed
from plumbob.rollout.environments.openings import openings_of
from tests.support.environments import awaited, environment, gone_soon, replied, said, stepping

COUNTING = """
    class World:
        def __init__(self, most, word="no"):
            self.most, self.word = most, word

        def reset(self, row, seed):
            self.count = row["start"]
            return [{"role": "system", "content": f"Seed {seed}."}, {"role": "user", "content": "Count."}]

        def step(self, turn):
            self.count += 1
            right = turn["content"] == str(self.count)
            if self.count == self.most:
                return {"reward": 1 if right else 0, "done": True}
            return {"messages": [{"role": "user", "content": "Go." if right else self.word}], "reward": -0.25}
    """


def test_an_episode_of_several_turns(tmp_path: Path) -> None:
    host = EnvironmentHost(environment(tmp_path, COUNTING, arguments={"most": 8, "word": "Wrong."}))
    episode = host.open({"start": 5}, 7)
    assert replied(host, episode, "6") == EnvironmentReply(({"role": "user", "content": "Go."},), -0.25, False)
    assert episode.opening == [{"role": "system", "content": "Seed 7."}, {"role": "user", "content": "Count."}]
    assert replied(host, episode, "9") == EnvironmentReply(({"role": "user", "content": "Wrong."},), -0.25, False)
    assert replied(host, episode, "8") == EnvironmentReply((), 1.0, True)
    episode.close()
    with pytest.raises(ValueError, match="closed"):
        episode.poll()


def test_episodes_are_apart(tmp_path: Path) -> None:
    """What one changes of its class and its module no other sees."""
    head = "SEEN = []"
    step = """
        SEEN.append(text)
        World.name = getattr(World, "name", "") + text
        return {"messages": [{"role": "tool", "content": f"{SEEN} {World.name}"}]}
        """
    host = EnvironmentHost(stepping(tmp_path, step, head))
    one, other = host.open({}, 0), host.open({}, 0)
    assert replied(host, one, "a").messages[0]["content"] == "['a'] a"
    assert replied(host, other, "b").messages[0]["content"] == "['b'] b"
    assert replied(host, one, "c").messages[0]["content"] == "['a', 'c'] ac"


def test_a_turn_goes_as_it_is(tmp_path: Path) -> None:
    host = EnvironmentHost(stepping(tmp_path, "return {'messages': [{'role': 'tool', 'content': json.dumps(turn)}]}"))
    call = {"id": "call00000", "type": "function", "function": {"name": "f", "arguments": {"é": [1, None]}}}
    turn = {**said("\ud800 \u2028 \x00 é"), "tool_calls": [call]}
    episode = host.open({}, 0)
    assert json.loads(replied(host, episode, turn).messages[0]["content"]) == turn
    with pytest.raises(ValueError, match="one turn at a time"):
        episode.begin(said("a"))
        episode.begin(said("b"))


def test_methods_that_are_awaited(tmp_path: Path) -> None:
    body = """
        import asyncio
        class World:
            async def reset(self, row, seed):
                await asyncio.sleep(0)
                self.lock = asyncio.Lock()
            async def step(self, turn):
                async with self.lock:
                    return {"done": True, "reward": 0.5}
        """
    host = EnvironmentHost(environment(tmp_path, body))
    assert replied(host, host.open({}, 0), "a") == EnvironmentReply((), 0.5, True)


def test_numbers_of_other_types(tmp_path: Path) -> None:
    step = "import numpy; return {'reward': numpy.float32(0.5), 'done': numpy.bool_(True)}"
    host = EnvironmentHost(stepping(tmp_path, step))
    assert replied(host, host.open({}, 0), "a") == EnvironmentReply((), 0.5, True)


def test_what_the_modules_generators_draw_is_decided_by_the_seed(tmp_path: Path) -> None:
    step = "return {'messages': [{'role': 'tool', 'content': str(random.random())}], 'reward': len({'a', 'b'})}"
    host = EnvironmentHost(stepping(tmp_path, step))
    drawn = [replied(host, host.open({}, seed), "a").messages[0]["content"] for seed in (3, 3, 4)]
    assert drawn == [str(random.Random(seed).random()) for seed in (3, 3, 4)]


def test_its_own_parser_of_calls(tmp_path: Path) -> None:
    body = """
        def calls(text):
            return [{"function": {"name": "f", "arguments": {"x": text}}}] if "!" in text else None
        class World:
            def reset(self, row, seed): pass
            def step(self, turn):
                return {"messages": [{"role": "tool", "content": str(turn.get("tool_calls"))}]}
        """
    settings = environment(tmp_path, body)
    host = EnvironmentHost(settings.model_copy(update={"tool_calls": f"{tmp_path}/my_world.py:calls"}))
    episode = host.open({}, 0)
    assert replied(host, episode, "a!").messages[0]["content"] == (
        "[{'function': {'name': 'f', 'arguments': {'x': 'a!'}}}]"
    )
    assert replied(host, episode, "a").messages[0]["content"] == "None"


def test_close_is_called_and_what_it_started_and_wrote_is_gone(tmp_path: Path) -> None:
    body = """
        import os, subprocess, tempfile
        class World:
            def reset(self, row, seed):
                self.child = subprocess.Popen(["sleep", "600"], start_new_session=True)
                self.file = tempfile.NamedTemporaryFile(delete=False)
            def step(self, turn):
                return {"messages": [{"role": "tool", "content": f"{os.getpid()} {self.child.pid} {self.file.name}"}]}
            def close(self):
                open(f"closed-{os.getpid()}", "w").close()
        """
    host = EnvironmentHost(environment(tmp_path, body))
    episode = host.open({}, 0)
    pid, child, file = replied(host, episode, "a").messages[0]["content"].split()
    assert Path(file).exists()
    episode.close()
    assert gone_soon(int(pid), int(child)) and (tmp_path / f"closed-{pid}").exists()
    deadline = time.monotonic() + 10
    while Path(file).exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    host.close()
    assert not Path(file).parent.parent.exists()


def test_many_at_once(tmp_path: Path) -> None:
    """64 episodes of two turns, all open together, each with its own numbers."""
    step = """
        self.count = getattr(self, "count", 0) + 1
        return {"messages": [{"role": "tool", "content": f"{self.row['n']} {self.seed} {text}"}], "reward": self.count}
        """
    host = EnvironmentHost(stepping(tmp_path, step))
    began = time.monotonic()
    episodes = [host.open({"n": number}, number * number) for number in range(64)]
    for turn in (1, 2):
        for number, episode in enumerate(episodes):
            episode.begin(said(f"{turn}-{number}"))
        for number, episode in enumerate(episodes):
            reply = awaited(host, episode)
            assert reply.reward == turn
            assert reply.messages[0]["content"] == f"{number} {number * number} {turn}-{number}"
    seconds = time.monotonic() - began
    print(f"64 episodes of two turns: {seconds:.2f} s")
    assert seconds < 20


# ------------------------------------------------------------------------------------------------------------ openings


def test_openings_are_those_of_the_episodes(tmp_path: Path) -> None:
    body = """
        import random
        class World:
            def reset(self, row, seed):
                if row["n"] == 3:
                    return None
                return [{"role": "user", "content": f"{row['n']} {random.Random(seed).random()}"}]
            def step(self, turn):
                return {"done": True}
        """
    rows = [{"n": number} for number in range(40)]
    settings = environment(tmp_path, body)
    with openings_of(settings, 5) as opening:
        assert opening is not None
        found = [opening(row) for row in rows]
    host = EnvironmentHost(settings)
    expected = [f"{row['n']} {random.Random(episode_seed(5, row)).random()}" for row in rows]
    assert found[3] is None
    assert [opening[0]["content"] for opening in found if opening] == expected[:3] + expected[4:]
    episode = host.open(rows[7], episode_seed(5, rows[7]))
    replied(host, episode, "a")
    assert episode.opening == found[7]


def test_a_seed_is_of_the_row_and_the_run() -> None:
    row = {"a": 1, "b": [2]}
    assert episode_seed(0, row) == episode_seed(0, {"b": [2], "a": 1}) < 2**31
    assert len({episode_seed(0, row), episode_seed(1, row), episode_seed(0, {**row, "a": 2})}) == 3


@pytest.mark.parametrize(
    ("reset", "told"),
    [
        ("raise KeyError('x')", "cannot open an episode on it: KeyError: 'x'\n  Traceback"),
        ("os._exit(3)", "cannot open an episode on it: its process ended: with status 3"),
        ("return []", "cannot open an episode on it: wrong reply: reset gave no messages, or one of the assist"),
        ("return 'Hi'", "cannot open an episode on it: wrong messages: 'messages of reset': expected a list"),
    ],
)
def test_rows_that_cannot_be_opened(reset: str, told: str, tmp_path: Path) -> None:
    body = f"""
        import os
        class World:
            def reset(self, row, seed):
                if row["n"] == 2:
                    {reset}
            def step(self, turn):
                pass
        """
    settings = environment(tmp_path, body)
    with openings_of(settings, 0) as opening:
        assert opening is not None
        for number in (0, 1):
            assert opening({"n": number}) is None
        with pytest.raises(RowError) as refused:
            opening({"n": 2})
        assert str(refused.value).startswith(f"{settings.source} {told}")
        assert opening({"n": 3}) is None, "the next row is opened all the same"


def test_the_first_four_rows_are_opened_twice(tmp_path: Path) -> None:
    body = """
        class World:
            resets = 0
            def reset(self, row, seed):
                World.resets += 1
                return [{"role": "user", "content": "Hi" if World.resets < row["from"] else str(World.resets)}]
            def step(self, turn):
                pass
        """
    # The fourth row's two are the seventh and the eighth; of the fifth there is one, the ninth.
    for first_other, is_seen in ((8, True), (9, False)):
        with openings_of(environment(tmp_path, body), 0) as opening:
            assert opening is not None
            for number in range(3):
                opening({"n": number, "from": first_other})
            if is_seen:
                with pytest.raises(UserError, match="other messages when it is reset again"):
                    opening({"n": 3, "from": first_other})
            else:
                assert opening({"n": 3, "from": first_other}) == [{"role": "user", "content": "Hi"}]
                assert opening({"n": 4, "from": first_other}) == [{"role": "user", "content": "9"}]


def test_an_opening_that_is_another_when_it_is_asked_again(tmp_path: Path) -> None:
    body = """
        import time
        class World:
            def reset(self, row, seed):
                return [{"role": "user", "content": str(time.time_ns())}]
            def step(self, turn):
                pass
        """
    with openings_of(environment(tmp_path, body), 0) as opening:
        assert opening is not None
        with pytest.raises(UserError, match="gives other messages when it is reset again with the same row and seed"):
            opening({"n": 0})


# ------------------------------------------------------------------------------------------------------------ refusals

METHODS = "    def reset(self, row, seed): pass\n    def step(self, turn): pass"
REFUSED = {
    f"class Worlds:\n{METHODS}": "has no World; its classes: Worlds",
    "World = 1": "World in {0}/my_world.py is no class but a int",
    "class World:\n    def step(self, turn): pass": "World has no reset; expected reset(self, row, seed)",
    "class World:\n    def reset(self, row, seed): pass": "World has no step; expected step(self, turn)",
    "class World:\n    def reset(self, row): pass\n    def step(self, turn): pass": "World.reset(self, row) takes",
    "class World:\n    def reset(self, row, seed): pass\n    def step(self): pass": "World.step(self) takes other",
    f"class World:\n    def __init__(self, size): pass\n{METHODS}": "World(size) does not take arguments={{}}",
    "class World(:": "cannot be imported\n",
    "import no_such_package": "ModuleNotFoundError: No module named 'no_such_package'",
    "import os; os._exit(4)": "its process ended as it was imported, with status 4",
    f"kept = bytearray(2 ** 29)\nclass World:\n{METHODS}": "its import alone takes 0.5",
}


@pytest.mark.parametrize("body", REFUSED)
def test_what_is_no_environment_is_refused(body: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        EnvironmentHost(environment(tmp_path, body, memory_gib=0.5), quiet=True)
    assert str(refused.value).startswith(f"rollout.environment.source={tmp_path}/my_world.py:World: ")
    assert REFUSED[body].format(tmp_path) in str(refused.value)


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"environment\.source=.*/gone\.py:World: there is no such file on this host"):
        EnvironmentHost(EnvironmentSettings(source=f"{tmp_path}/gone.py:World"))
    with pytest.raises(UserError, match=r"environment\.source=no_such:World: no Python source of a module no_such is"):
        EnvironmentHost(EnvironmentSettings(source="no_such:World"))
    settings = environment(tmp_path, f"class World:\n{METHODS}", variables=("NO_SUCH_VARIABLE",))
    with pytest.raises(UserError, match="variables has NO_SUCH_VARIABLE, which is not set here"):
        EnvironmentHost(settings)


@pytest.mark.parametrize("lacks", ["python", "a variable"])
def test_of_one_that_does_not_start_nothing_is_left(
    lacks: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    wanted = ("NO_SUCH_VARIABLE",) if lacks == "a variable" else ()
    settings = environment(tmp_path, f"class World:\n{METHODS}", variables=wanted)
    if lacks == "python":
        (tmp_path / "python").write_text("no program")
        monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    why = r"its process cannot be started: .*Permission denied" if lacks == "python" else "which is not set here"
    with pytest.raises(UserError, match=rf"environment\..*{why}"):
        EnvironmentHost(settings)
    assert list(scratch.iterdir()) == []


def test_an_import_that_never_ends_is_refused_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment_host, "START_TIMEOUT_S", 1.0)
    monkeypatch.setattr(environment_host, "EXIT_WAIT_S", 1.0)
    body = "import os, time\nopen('pid', 'w').write(str(os.getpid()))\ntime.sleep(600)"
    with pytest.raises(UserError, match="its import takes more than 1 s"):
        EnvironmentHost(environment(tmp_path, body))
    assert gone_soon(int((tmp_path / "pid").read_text()))


def test_a_source_that_has_changed_is_not_taken_in_the_middle_of_a_run(tmp_path: Path) -> None:
    settings = stepping(tmp_path, "return {'done': True}")
    host = EnvironmentHost(settings)
    source = (tmp_path / "my_world.py").read_text()
    (tmp_path / "my_world.py").write_text(source + "\n")
    assert replied(host, host.open({}, 0), "a").is_done
    os.kill(host.pid, 9)
    assert gone_soon(host.pid)
    with pytest.raises(UserError, match="it has changed since the run began"):
        host.open({}, 0)
    (tmp_path / "my_world.py").write_text(source)
    assert replied(host, host.open({}, 0), "a").is_done
