"""The vLLM sampler on a real engine: parity with transformers, versions, proofs of publishes, clean shutdown."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from plumbob.configs.settings.training import OnlineSettings
from plumbob.configs.settings.workers import VllmEngine
from plumbob.core.errors import UserError
from plumbob.models.adapter import Adapter
from plumbob.rollout.publish_proof import PublishError
from plumbob.rollout.samplers.sampler import SamplerSpec, sample
from plumbob.rollout.samplers.vllm.vllm_sampler import NUM_SLOTS, VllmSampler
from plumbob.trainers.online.monitors import Monitors
from plumbob.trainers.online.step_metrics import StepMetrics
from tests.support.opened_models import policy_ref
from tests.support.published_adapters import (
    AdapterWriter,
    change_one_element,
    change_the_scaling,
    largest_gap,
    leave_one_module_out,
    logprob_gaps,
    on_embeddings,
)
from tests.support.tiny_policy import EOS, TEMPERATURE, make_adapter, make_requests, write_policy


def test_a_model_without_a_kernel_is_refused_at_once(tmp_path: Path) -> None:
    # 128 / 8 = 16 a head, which vLLM's attention on a CPU does not have.
    engine = VllmEngine(kv_cache_gib=0.05, max_num_seqs=8)
    spec = SamplerSpec(policy_ref(write_policy(tmp_path, 8)), "rollout-0", engine, TEMPERATURE, 8, lora_rank=0)
    with pytest.raises(UserError, match=r"cannot sample from it: .*head_dim=16"):
        VllmSampler(spec)


def test_an_engine_that_does_not_start_leaves_no_rendezvous(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    # Too little for one response of the model's context.
    engine = VllmEngine(kv_cache_gib=1e-5, max_num_seqs=8)
    spec = SamplerSpec(policy_ref(write_policy(tmp_path)), "rollout-0", engine, TEMPERATURE, 8, lora_rank=0)
    with pytest.raises(UserError, match="vLLM cannot serve"):
        VllmSampler(spec)
    assert not list(temporary.iterdir())


@dataclass
class Served:
    sampler: VllmSampler
    writer: AdapterWriter
    folder: str
    spec: SamplerSpec
    adapters: dict[int, Adapter]
    next_version: int = 0

    def fresh(self) -> Adapter:
        """An adapter with tensors and a version that were not used before."""
        self.next_version += 1
        adapter = make_adapter(self.folder, self.next_version, seed=self.next_version)
        self.adapters[self.next_version] = adapter
        return adapter


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    others, temporary = psutil.Process().children(recursive=True), tmp_path_factory.mktemp("temporary")
    folder = write_policy(tmp_path_factory.mktemp("policy"))
    engine = VllmEngine(kv_cache_gib=0.05, max_num_seqs=64)
    spec = SamplerSpec(policy_ref(folder, request.param), "rollout-0", engine, TEMPERATURE, max_tokens=48, lora_rank=4)
    writer = AdapterWriter()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(temporary))
        sampler = VllmSampler(spec, writer)
    # vLLM's `vllm_dist_...`: gone while it runs, so that it is when somebody ends the process.
    assert not list(temporary.iterdir())
    yield Served(sampler, writer, folder, spec, {})
    sampler.close()
    assert not set(psutil.Process().children(recursive=True)) - set(others)
    assert not list(Path("/dev/shm").glob("plumbob-*"))


@pytest.fixture
def served(opened: Served) -> Iterator[Served]:
    yield opened
    opened.writer.damage = lambda folder: None
    opened.sampler.cancel()


def test_logprobs_equal_those_of_transformers(served: Served, tmp_path: Path) -> None:
    adapter = served.fresh()
    served.sampler.load(adapter)
    rollouts = sample(served.sampler, make_requests(32))
    assert sum(len(rollout.token_ids) for rollout in rollouts) > 500
    gap = largest_gap(adapter, tmp_path, rollouts)
    other = largest_gap(make_adapter(served.folder, 0, seed=99), tmp_path / "other", rollouts)
    if served.spec.model.dtype == "float32":
        assert gap < 1e-4
    # The adapter matters, also where bfloat16 leaves a gap to the float32 of the other side.
    assert other > max(0.1, 5 * gap), (gap, other)


def test_a_sampler_at_another_temperature_than_the_learner_s_is_told(served: Served, tmp_path: Path) -> None:
    adapter = served.fresh()
    served.sampler.load(adapter)
    rollouts = sample(served.sampler, make_requests(32))

    def told(temperature: float) -> list[str]:
        gap = float(logprob_gaps(adapter, tmp_path, rollouts, temperature).mean())
        monitors = Monitors(OnlineSettings())
        monitors.observe(StepMetrics.from_disk({"kl": 0.0, "sampler_gap_fresh": gap}))
        return [alarm.name for alarm in monitors.alarms]

    assert told(TEMPERATURE) == [] and told(1.1 * TEMPERATURE) == ["sampler_gap"]


def test_a_chunk_repeats_to_the_byte(served: Served) -> None:
    served.sampler.load(served.fresh())
    requests = make_requests(40)
    first = sample(served.sampler, requests)
    sample(served.sampler, make_requests(5, first_seed=50))
    second = sample(served.sampler, requests)
    for left, right in zip(first, second, strict=True):
        np.testing.assert_array_equal(left.token_ids, right.token_ids)
        np.testing.assert_array_equal(left.logprobs, right.logprobs)
    other = sample(served.sampler, [replace(request, seed=request.seed + 1000) for request in requests])
    assert any(
        len(a.token_ids) != len(b.token_ids) or (a.token_ids != b.token_ids).any()
        for a, b in zip(first, other, strict=True)
    )


def test_eos_is_the_last_token_of_a_stopped_response(served: Served) -> None:
    rollouts = sample(served.sampler, make_requests(64))
    stopped = [rollout for rollout in rollouts if rollout.finish_reason == "stop"]
    cut = [rollout for rollout in rollouts if rollout.finish_reason == "length"]
    assert stopped and cut and len(stopped) + len(cut) == 64
    for rollout in stopped:
        assert rollout.token_ids[-1] == EOS
        assert EOS not in rollout.token_ids[:-1]
        assert "<eos>" not in rollout.response
    for rollout in cut:
        assert len(rollout.token_ids) == 48
        assert EOS not in rollout.token_ids


def test_adapters_that_are_held_at_once_are_sampled_together(served: Served, tmp_path: Path) -> None:
    adapters = [served.fresh() for _ in range(NUM_SLOTS)]
    served.sampler.load_adapters(adapters)
    asked = [
        replace(request, version=adapter.version, group_id=f"{request.group_id}/{adapter.version}")
        for request in make_requests(8)
        for adapter in adapters
    ]
    served.sampler.submit(asked)
    made = served.sampler.poll() + served.sampler.poll()
    running = {response.version for response in served.sampler._running.values() if response.token_ids}
    assert running | {int(rollout.versions[0]) for rollout in made} == {adapter.version for adapter in adapters}
    rollouts = made + served.sampler.run_to_completion()
    for index, adapter in enumerate(adapters):
        own = [rollout for rollout in rollouts if set(rollout.versions) == {adapter.version}]
        assert len(own) == 8 and all(rollout.request.version == adapter.version for rollout in own)
        if served.spec.model.dtype == "float32":
            assert largest_gap(adapter, tmp_path / str(index), own) < 1e-4
            other = adapters[index - 1]
            assert largest_gap(other, tmp_path / f"other-{index}", own) > 0.1


def test_requests_in_flight_keep_their_version(served: Served, tmp_path: Path) -> None:
    old, new = served.fresh(), served.fresh()
    requests = make_requests(12)
    served.sampler.load(old)
    served.sampler.submit(requests[:6])
    done = [rollout for _ in range(5) for rollout in served.sampler.poll()]
    served.sampler.load(new)
    served.sampler.submit(requests[6:])
    done += served.sampler.run_to_completion()
    by_version = {version: [r for r in done if set(r.versions) == {version}] for version in (old.version, new.version)}
    assert {r.request.prompt_id for r in by_version[old.version]} == {f"p{index}" for index in range(6)}
    assert {r.request.prompt_id for r in by_version[new.version]} == {f"p{index}" for index in range(6, 12)}
    for adapter, other in ((old, new), (new, old)):
        own_gap = largest_gap(adapter, tmp_path / "own", by_version[adapter.version])
        assert own_gap < largest_gap(other, tmp_path / "other", by_version[adapter.version]) / 5


def test_cancel_gives_the_partial_responses(served: Served) -> None:
    served.sampler.load(served.fresh())
    served.sampler.submit(make_requests(3))
    for _ in range(4):
        assert served.sampler.poll() == []
    partial = served.sampler.cancel()
    # A step makes one token of each response.
    assert [(r.finish_reason, len(r.token_ids), len(r.logprobs)) for r in partial] == [("partial", 4, 4)] * 3
    assert served.sampler.run_to_completion() == []
    assert len(sample(served.sampler, make_requests(2))) == 2


def test_a_correct_adapter_is_proven(served: Served) -> None:
    adapter = served.fresh()
    proof = served.sampler.load(adapter)
    # 2 layers x (q, k, v, o, gate, up, down) x (A, B).
    assert (proof.num_tensors, proof.max_abs_difference, proof.version) == (28, 0.0, adapter.version)
    assert served.sampler.version == adapter.version
    # The same version again, as after a retry, is no harm.
    assert served.sampler.load(adapter).num_tensors == 28


def test_an_adapter_on_embeddings_is_served(served: Served, tmp_path: Path) -> None:
    adapter = on_embeddings(served.folder, served.fresh().version)
    assert served.sampler.load(adapter).num_tensors == 4
    if served.spec.model.dtype == "float32":
        rollouts = sample(served.sampler, make_requests(8))
        assert largest_gap(adapter, tmp_path / "own", rollouts) < 1e-4
        plain = largest_gap(make_adapter(served.folder, 0, seed=99), tmp_path / "other", rollouts)
        assert plain > 0.1


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (change_one_element, r"layers\.1\.mlp\.up_proj\.lora_B"),
        (leave_one_module_out, r"layers\.1\.mlp\.up_proj\.lora_"),
        (change_the_scaling, r"lora_B"),
    ],
)
def test_a_corrupt_adapter_is_caught(served: Served, damage, named: str) -> None:
    good, bad = served.fresh(), served.fresh()
    served.sampler.load(good)
    served.writer.damage = damage
    with pytest.raises(PublishError, match=rf"worker rollout-0, version {bad.version}: .*{named}.* differs"):
        served.sampler.load(bad)
    # Nothing is sampled under what failed.
    assert served.sampler.version == good.version
    assert set(sample(served.sampler, make_requests(1))[0].versions) == {good.version}
    served.writer.damage = lambda folder: None
    assert served.sampler.load(bad).version == bad.version


def test_a_stale_adapter_is_caught(served: Served) -> None:
    """vLLM does not load an id that it holds. One small update lies between the two: 1e-4 on every element."""
    before = served.fresh()
    served.sampler.load(before)
    after = replace(before, tensors={name: tensor + 1e-4 for name, tensor in before.tensors.items()})
    with pytest.raises(PublishError, match="stale"):
        served.sampler.load(after)


def test_no_version_is_pushed_out_while_it_is_used(served: Served) -> None:
    requests = make_requests(NUM_SLOTS)
    for request in requests:
        served.sampler.load(served.fresh())
        served.sampler.submit([request])
    with pytest.raises(PublishError, match="are still being made"):
        served.sampler.load(served.fresh())
    assert len({int(rollout.versions[0]) for rollout in served.sampler.run_to_completion()}) == NUM_SLOTS
    served.sampler.load(served.fresh())


def test_a_user_error_is_reported(served: Served) -> None:
    long = replace(make_requests(1)[0], prompt_ids=np.full(256, 5, np.int32))
    with pytest.raises(UserError, match=r"prompt p0 has 256 tokens and the context of .* is 256: no room"):
        served.sampler.submit([long])
    with pytest.raises(UserError, match="rank 16 is greater than max_lora_rank 8"):
        served.sampler.load(make_adapter(served.folder, 900, seed=1, rank=16))
    dora = make_adapter(served.folder, 901, seed=1)
    with pytest.raises(UserError, match="does not yet support DoRA"):
        served.sampler.load(replace(dora, config={**dora.config, "use_dora": True}))


def test_the_context_cuts_a_response(served: Served) -> None:
    # 256 - 250 leaves 6 tokens.
    long = replace(make_requests(1)[0], prompt_ids=np.full(250, 5, np.int32))
    (rollout,) = sample(served.sampler, [long])
    assert len(rollout.token_ids) <= 6
    assert rollout.finish_reason == "length" or rollout.token_ids[-1] == EOS
