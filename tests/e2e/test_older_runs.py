"""A run that an earlier version began, kept in this repository, resumes with the code of today.

`tests/older_runs/2026-12-01`: three steps of PPO, with a critic and an adaptive KL, whose driver was killed as the
second ended: its checkpoint is the first's. It was begun with the code of commit 9ce018d5, whose settings said
`kind: ppo` and `ppo.*`. In its files FOLDER stands for where it lies.
"""

import json
import shutil
from pathlib import Path

import pytest

from tests.support.small_run import Left, Stages

OLDER = Path(__file__).parents[1] / "older_runs/2026-12-01"


def test_a_run_of_an_earlier_version_resumes_from_its_checkpoint(stage: Stages, tmp_path: Path) -> None:
    folder = shutil.copytree(OLDER, tmp_path / "older")
    for file in ("resolved.json", "models.json", "events.jsonl"):
        path = folder / "run" / file
        path.write_text(path.read_text().replace("FOLDER", str(folder)))
    config = json.loads((folder / "run/resolved.json").read_text())["config"]
    assert (config["kind"], config["ppo"]["kl"]["target"]) == ("ppo", 0.5) and "online" not in config
    before = Left(folder / "run")
    then = [before.untimed[1], [row.token_ids.tolist() for step, row in before.journal if step == 2]]

    left = stage.resume(before, f"cluster.address={stage.address}")

    # The second step is made again from the first's weights, optimizer, KL coefficient and place in the prompts: to the
    # rounding of another processor it is what the earlier version made of it.
    assert [line["step"] for line in left.untimed] == [1, 2, 3]
    assert left.untimed[1]["metrics"] == pytest.approx(then[0]["metrics"], rel=1e-3, abs=1e-4)
    assert [row.token_ids.tolist() for step, row in left.journal if step == 2] == then[1]
    assert list(left.summary["stages"]) == ["ppo"]
    resolved = json.loads((left.folder / "resolved.json").read_text())
    assert resolved["config"]["kind"] == "online" and resolved["config"]["online"]["kl"]["target"] == 0.5
    # What else is on file as changed are settings that the earlier version did not have.
    changed = resolved["resumed"][0]["changed"]
    assert changed.pop("cluster.address")[1] == stage.address
    assert all(before is None for before, _ in changed.values())
