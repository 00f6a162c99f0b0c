"""Groups of real Ray actors as what a loop works with."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import ray

from plumbob.cluster.calls import Actor
from plumbob.cluster.failures import LearnersLost
from plumbob.cluster.worker_groups import LearnerGroup
from tests.support.folder_names import names
from tests.support.pool_of_actors import TIMEOUT_S
from tests.support.ray_worker import Writer

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("one_cpu")]


def writer(name: str, folder: Path) -> Actor:
    made = ray.remote(num_cpus=0.25, max_concurrency=2)(Writer).remote(folder / name)
    return Actor(name, made, folder / name)


def group(actor: Actor, timeout_s: float) -> LearnerGroup:
    return LearnerGroup([actor], timeout_s, lambda: None, lambda: None)


def test_a_rank_that_was_given_up_replaces_no_result_however_late_it_wakes(tmp_path: Path) -> None:
    frozen, other, folder = writer("frozen", tmp_path), writer("other", tmp_path), tmp_path / "result" / "policy"
    late = frozen.handle.release  # Called when nobody waits for it any more.
    with pytest.raises(LearnersLost, match="frozen: still writing the result after 1 s"):
        group(frozen, 1.0).export(folder)
    assert names(folder.parent) == []
    other.handle.release.remote()
    group(other, TIMEOUT_S).export(folder)
    ray.get(late.remote(), timeout=TIMEOUT_S)
    ray.get(frozen.handle.export.remote(tmp_path / "end", tmp_path), timeout=TIMEOUT_S)  # Both of its calls have ended.
    assert (folder / "model.bin").read_text() == "other"


def test_learners_that_crash_say_whether_they_had_worked(tmp_path: Path) -> None:
    batch = SimpleNamespace(num_rows=1)
    for has_worked in (False, True):
        actor = writer(f"rank-{has_worked}", tmp_path)
        learners = group(actor, TIMEOUT_S)
        if has_worked:
            assert learners.compute(batch, "policy", len).tolist() == [0.5]
        with pytest.raises(LearnersLost, match=r"^rank-.* died while crashing: SIGILL, an illegal inst") as lost:
            learners._all("crashing", lambda handle: handle.crash.remote())
        assert (lost.value.crash, lost.value.has_worked) == ("SIGILL", has_worked)
