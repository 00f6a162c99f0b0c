"""Groups of real Ray actors as what a loop works with."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import ray

from plumbob.cluster.calls import Actor
from plumbob.cluster.failures import LearnersLost
from plumbob.cluster.worker_groups import LearnerGroup
from plumbob.cluster.workers.published_weights import BucketedTensors
from plumbob.models.adapter import FullWeights
from tests.support.folder_names import names
from tests.support.pool_of_actors import TIMEOUT_S
from tests.support.publishing_rank import PublishingRank
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


def test_weights_of_a_model_go_to_samplers_in_buckets(tmp_path: Path) -> None:
    actor = Actor("rank", ray.remote(num_cpus=0.25)(PublishingRank).remote(), tmp_path / "log")
    learners = LearnerGroup([actor], TIMEOUT_S, lambda: None, lambda: None, bucket_bytes=16)
    weights = learners.policy_weights(3)
    assert isinstance(weights, FullWeights) and weights.version == 3
    assert isinstance(weights.tensors, BucketedTensors)
    assert ray.get(actor.handle.asked_for.remote(), timeout=TIMEOUT_S) == [16, ["a", "b"], ["c"], ["d"]]
    # By whoever they are sent to, also by name, in another order and twice.
    sent: FullWeights = ray.get(ray.put(weights))
    assert list(sent.tensors) == ["a", "b", "c", "d"] and "e" not in sent.tensors
    for name in ("d", "a", "b", "d"):
        assert sent.tensors[name].tolist() == [3.0, float(ord(name))]
    assert sent.tensors.keys() >= {"a", "d"} and len(sent.tensors) == 4
    # No more than two are held by the reader.
    assert isinstance(sent.tensors, BucketedTensors) and len(sent.tensors._kept) == 2


def test_an_adapter_goes_whole(tmp_path: Path) -> None:
    actor = Actor("rank", ray.remote(num_cpus=0.25)(PublishingRank).remote(buckets=()), tmp_path / "log")
    learners = LearnerGroup([actor], TIMEOUT_S, lambda: None, lambda: None)
    weights = learners.policy_weights(3)
    assert set(weights.tensors) == {"a", "b", "c", "d"} and isinstance(weights.tensors, dict)
