"""What `plumbob status` says to a person."""

import time

from plumbob.console.commands.status import STALE_S, lines


def test_a_status_that_is_old_says_so() -> None:
    now = time.time()
    found = {"running": True, "stage": "ppo", "step": 3, "num_steps": 9}
    assert lines(found | {"time": now})[0] == "running; ppo: step 3 of 9"
    assert lines(found | {"time": now - STALE_S - 80})[0].startswith("running, as of 1 min 3")
    over = {"running": False, "why": "runs/a: this run is not going on", "time": now - 7200}
    assert lines(over)[0] == "runs/a: this run is not going on\nlast heard of 2 h 00 min ago; no stage yet"
