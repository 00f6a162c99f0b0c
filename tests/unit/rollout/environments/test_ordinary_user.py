"""Episodes, and a function, of a user without any right: they open, are bounded and end as those of root's do."""

import json
import tempfile
from pathlib import Path

from tests.support.ordinary_user import printed_as_nobody

WORLD = """
import os, subprocess, sys, time
class World:
    def reset(self, row, seed):
        self.row = row
        return [{"role": "user", "content": f"{row['n']} {seed}"}]
    def step(self, turn):
        text = turn["content"]
        if text == "hang":
            time.sleep(600)
        if text == "hoard":
            bytearray(2 ** 30)
        if text == "start":
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
            return {"messages": [{"role": "user", "content": str(os.getpid())}]}
        return {"reward": float(self.row["n"]), "done": True}
def score(prompt, response, row):
    if response == "hang":
        time.sleep(600)
    return len(response)
"""

PROGRAM = """
import json, os, sys
import psutil
from plumbob.configs.settings.programs.environments import EnvironmentSettings
from plumbob.configs.settings.programs.reward_programs import FunctionPart
from plumbob.reward.programs.function_scorer import FunctionScorer
from plumbob.reward.scorer import ScoreRequest
from plumbob.rollout.environments.environment_host import EnvironmentHost
from plumbob.rollout.environments.environment_protocol import EnvironmentFailed
from tests.support.environments import gone_soon, replied

def scratches():
    return {one.path for one in os.scandir("/tmp")
            if one.name.startswith("plumbob-environment-") and one.stat().st_uid == os.geteuid()}

before = scratches()
host = EnvironmentHost(EnvironmentSettings(source=f"{sys.argv[1]}:World", timeout_s=2, memory_gib=0.5))
found = {"uid": os.geteuid()}
beside = host.open({"n": 7}, 1)
for what in ("hang", "hoard"):
    try:
        replied(host, host.open({"n": 1}, 1), what)
    except EnvironmentFailed as error:
        found[what] = error.reason
started = host.open({"n": 2}, 1)
(message,) = replied(host, started, "start").messages
of_episode = psutil.Process(int(message["content"]))
pids = [of_episode.pid, *(one.pid for one in of_episode.children())]
started.close()
found["number"], found["ended"] = len(pids), gone_soon(*pids)
found["beside"] = replied(host, beside, "bye").reward
host.close()
part = FunctionPart(function=f"{sys.argv[1]}:score", timeout_s=1, on_failure=-1)
requests = [ScoreRequest("p", response, {}) for response in ("abc", "hang", "de")]
found["scores"] = [score.total for score in FunctionScorer(part).score(requests)]
found["left"] = sorted(scratches() - before)
print(json.dumps(found))
"""


def test_episodes_and_functions_of_an_ordinary_user() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        source = Path(folder) / "world.py"
        source.write_text(WORLD)
        found = json.loads(printed_as_nobody(PROGRAM, str(source)).splitlines()[-1])
    assert found.pop("hang").startswith("time-out: step took more than timeout_s=2 s")
    assert found.pop("hoard").startswith("MemoryError")
    assert found == {
        "uid": 65534, "number": 2, "ended": True, "beside": 7.0, "scores": [3.0, -1.0, 2.0], "left": [],
    }  # fmt: skip
