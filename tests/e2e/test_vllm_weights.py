"""The vLLM sampler with weights of the model itself, on a real engine: parity, proofs, adapters in turn, the base."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from plumbob.configs.settings.workers import VllmEngine
from plumbob.models.adapter import FullWeights
from plumbob.models.loading import DTYPES
from plumbob.rollout.publish_proof import PublishError
from plumbob.rollout.rollout_records import Rollout
from plumbob.rollout.samplers.sampler import BASE_VERSION, SamplerSpec, sample
from plumbob.rollout.samplers.vllm import engine_weights
from plumbob.rollout.samplers.vllm.engine_weights import load_in_engine
from plumbob.rollout.samplers.vllm.vllm_sampler import VllmSampler
from tests.e2e.test_vllm_merged import OTHERS
from tests.support.opened_models import policy_ref
from tests.support.published_adapters import largest_gap
from tests.support.published_weights import changed_weights, tie_embeddings, weight_gaps
from tests.support.tiny_policy import EOS, TEMPERATURE, make_adapter, make_requests, write_policy

NORMS = {f"model.layers.{n}.{name}_layernorm.weight" for n in (0, 1) for name in ("input", "post_attention")}
SOME = {*NORMS, "model.norm.weight", "model.layers.1.self_attn.k_proj.weight"}


@dataclass
class Opened:
    sampler: VllmSampler
    folder: str
    dtype: torch.dtype

    def changed(self, version: int, names: set[str] | None = None) -> FullWeights:
        return changed_weights(self.folder, version, self.dtype, names)

    def gap(self, weights: FullWeights, rollouts: list[Rollout]) -> float:
        return float(weight_gaps(self.folder, weights, rollouts).max())

    @property
    def bound(self) -> float:
        """As of merged adapters."""
        return 3e-5 if self.dtype == torch.float32 else 0.5


@pytest.fixture(scope="module", params=["float32 tied", "bfloat16"])
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    dtype, _, is_tied = request.param.partition(" ")
    folder = write_policy(tmp_path_factory.mktemp("policy"))
    folder = tie_embeddings(folder) if is_tied else folder
    engine = VllmEngine(kv_cache_gib=0.05, max_num_seqs=64)
    sampler = VllmSampler(SamplerSpec(policy_ref(folder, dtype), "w", engine, TEMPERATURE, 40, 0, adapter="merged"))
    yield Opened(sampler, folder, DTYPES[dtype])
    sampler.close()


@pytest.fixture
def served(opened: Opened) -> Iterator[Opened]:
    yield opened
    opened.sampler.cancel()
    opened.sampler.serve_base()


def same(left: list[Rollout], right: list[Rollout]) -> bool:
    pairs = list(zip(left, right, strict=True))
    return all(np.array_equal(a.token_ids, b.token_ids) and np.array_equal(a.logprobs, b.logprobs) for a, b in pairs)


def test_each_publish_is_sampled_from_as_transformers_computes_it(served: Opened) -> None:
    sent = [served.changed(1), served.changed(2), served.changed(3, SOME)]
    rollouts = {}
    for weights in sent:
        proof = served.sampler.load(weights)
        assert (proof.version, proof.num_tensors, proof.max_abs_difference) == (
            weights.version, len(weights.tensors), 0.0,
        )  # fmt: skip
        # The same prompts, so that what the cache has of the version before would show.
        rollouts[weights.version] = sample(served.sampler, make_requests(16))
        assert {int(v) for rollout in rollouts[weights.version] for v in rollout.versions} == {weights.version}
    for weights in sent:
        own = served.gap(weights, rollouts[weights.version])
        assert own < served.bound, weights.version
        others = [served.gap(weights, rollouts[v]) for v in rollouts if v != weights.version]
        assert min(others) > max(0.05, 2 * own)


def test_weights_and_adapters_in_turn_leave_the_base_as_it_was(served: Opened, tmp_path: Path) -> None:
    before = sample(served.sampler, make_requests(8))
    served.sampler.load(served.changed(4, SOME))
    adapter = make_adapter(served.folder, 5, seed=5)
    served.sampler.load(adapter)  # On the base, not on what stood there.
    assert largest_gap(adapter, tmp_path, sample(served.sampler, make_requests(8))) < served.bound
    whole = served.changed(6)
    served.sampler.load(whole)
    assert served.gap(whole, sample(served.sampler, make_requests(8))) < served.bound
    served.sampler.serve_base()
    assert served.sampler.version == BASE_VERSION and same(before, sample(served.sampler, make_requests(8)))


def one_norm_stale(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in weights.items() if name != "model.norm.weight"}


def embeddings_stale(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in weights.items() if "embed_tokens" not in name}


@pytest.mark.parametrize(("damage", "named"), [(one_norm_stale, r"model\.norm"), (embeddings_stale, "embed_tokens")])
def test_what_the_engine_does_not_hold_is_not_proven(
    served: Opened,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[dict[str, Tensor]], dict[str, Tensor]],
    named: str,
) -> None:
    served.sampler.load(served.changed(7))
    before = sample(served.sampler, make_requests(6))
    times = iter([True, False])

    def damaged(worker: object, weights: Iterable[tuple[str, Tensor]]) -> None:
        load_in_engine(worker, damage(dict(weights)).items() if next(times) else weights)

    monkeypatch.setattr(engine_weights, "load_in_engine", damaged)
    with pytest.raises(PublishError, match=rf"worker w, version 8: .*{named}.* differs"):
        served.sampler.load(served.changed(8))
    # What was served before is served again.
    assert served.sampler.version == 7 and same(before, sample(served.sampler, make_requests(6)))


def test_a_head_that_was_left_behind_is_seen(served: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """It multiplies with a form of the embeddings of its own, which vLLM's reloading does not make anew."""
    if "lm_head.weight" in served.changed(0).tensors:
        pytest.skip("this head is a parameter by itself")
    monkeypatch.setattr(engine_weights, "tied_heads", lambda model: [])
    with pytest.raises(PublishError, match=r"embed_tokens\.weight differs"):
        served.sampler.load(served.changed(9))


def test_a_version_is_not_taken_from_what_is_being_sampled(served: Opened) -> None:
    served.sampler.load(served.changed(10))
    served.sampler.submit(make_requests(2))
    served.sampler.poll()
    with pytest.raises(PublishError, match=r"versions \[10\] are still being made"):
        served.sampler.load(served.changed(11))
    assert {int(version) for rollout in served.sampler.run_to_completion() for version in rollout.versions} == {10}


@pytest.mark.slow
@pytest.mark.parametrize("kind", OTHERS)
def test_another_architecture(kind: str, tmp_path: Path) -> None:
    folder = write_policy(tmp_path / "policy")
    config = OTHERS[kind](len(AutoTokenizer.from_pretrained(folder)))
    config.update({"initializer_range": 0.15, "bos_token_id": None, "eos_token_id": EOS, "pad_token_id": 0})
    config.update({"max_position_embeddings": 256, "sliding_window": None})
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    engine = VllmEngine(kv_cache_gib=0.05, max_num_seqs=16)
    sampler = VllmSampler(SamplerSpec(policy_ref(folder), "w", engine, TEMPERATURE, 24, 0, adapter="merged"))
    try:
        before = sample(sampler, make_requests(8))
        biases = {name for name in changed_weights(folder, 0).tensors if name.endswith("bias")}
        for version, names in ((1, None), (2, biases), (3, {"lm_head.weight"})):
            weights = changed_weights(folder, version, names=names)
            if weights.tensors:
                sampler.load(weights)
                assert weight_gaps(folder, weights, sample(sampler, make_requests(8))).max() < 3e-5, version
        sampler.serve_base()
        assert same(before, sample(sampler, make_requests(8)))
    finally:
        sampler.close()
