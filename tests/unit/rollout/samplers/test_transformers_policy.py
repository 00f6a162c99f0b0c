"""Weights of the model itself in a transformers sampler: in place, proven, adapters in turn, and the base again."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from plumbob.core.errors import UserError
from plumbob.models.adapter import Adapter
from plumbob.models.tuning import hosting
from plumbob.rollout.publish_proof import PublishError
from plumbob.rollout.rollout_records import Rollout
from plumbob.rollout.samplers import transformers_policy
from plumbob.rollout.samplers.sampler import BASE_VERSION, Sampler, SamplerSpec, sample
from plumbob.rollout.samplers.transformers_sampler import TransformersSampler
from tests.support.opened_models import policy_ref
from tests.support.published_adapters import largest_gap
from tests.support.published_weights import changed_weights, tie_embeddings, weight_gaps
from tests.support.tiny_policy import make_requests, write_policy

NORM, QUERY = "model.norm.weight", "model.layers.0.self_attn.q_proj.weight"


def same(left: list[Rollout], right: list[Rollout]) -> bool:
    pairs = list(zip(left, right, strict=True))
    return all(np.array_equal(a.token_ids, b.token_ids) and np.array_equal(a.logprobs, b.logprobs) for a, b in pairs)


def test_each_version_is_sampled_from_as_transformers_computes_it(sampler: Sampler, folder: str) -> None:
    sent = [changed_weights(folder, 1), changed_weights(folder, 2, names=(NORM, QUERY)), changed_weights(folder, 3)]
    for weights in sent:
        proof = sampler.load(weights)
        assert (proof.version, proof.num_tensors, proof.max_abs_difference) == (
            weights.version, len(weights.tensors), 0.0,
        )  # fmt: skip
        rollouts = sample(sampler, make_requests(8))
        assert {int(version) for rollout in rollouts for version in rollout.versions} == {weights.version}
        # The second is of two parameters: what the first changed beside them is as in the folder again.
        assert weight_gaps(folder, weights, rollouts).max() < 1e-4
        others = [other for other in sent if other is not weights]
        assert min(weight_gaps(folder, other, rollouts).max() for other in others) > 0.05


def test_in_bfloat16_with_shared_embeddings(spec: SamplerSpec, tmp_path: Path) -> None:
    folder = tie_embeddings(write_policy(tmp_path))
    sampler = TransformersSampler(replace(spec, model=policy_ref(folder, "bfloat16"), lora_rank=0))
    weights = changed_weights(folder, 1, torch.bfloat16)
    assert "lm_head.weight" not in weights.tensors
    assert sampler.load(weights).max_abs_difference == 0.0
    assert weight_gaps(folder, weights, sample(sampler, make_requests(8))).max() < 0.5


def test_weights_and_adapters_in_turn_leave_the_base_as_it_was(
    sampler: Sampler, folder: str, adapters: list[Adapter], tmp_path: Path
) -> None:
    before = sample(sampler, make_requests(8))
    sampler.load(changed_weights(folder, 1, names=(QUERY,)))
    sampler.load(adapters[0])
    assert largest_gap(adapters[0], tmp_path, sample(sampler, make_requests(8))) < 1e-4
    # Beside the layers of an adapter, whose parameters have other names there.
    weights = changed_weights(folder, 2)
    sampler.load(weights)
    assert weight_gaps(folder, weights, sample(sampler, make_requests(8))).max() < 1e-4
    sampler.serve_base()
    after = sample(sampler, make_requests(8))
    assert sampler.version == BASE_VERSION
    # Through layers that could take an adapter, which rounds otherwise.
    for own, other in zip(before, after, strict=True):
        assert own.token_ids.tolist() == other.token_ids.tolist()
        np.testing.assert_allclose(own.logprobs, other.logprobs, rtol=0, atol=1e-4)


def test_weights_that_are_not_what_was_sent_are_caught(
    sampler: Sampler, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stale(model: Any, tensors: Any) -> None:
        hosting.put_weights(model, {name: tensor for name, tensor in tensors.items() if name != NORM})

    monkeypatch.setattr(transformers_policy, "put_weights", stale)
    with pytest.raises(PublishError, match=rf"worker rollout-0, version 1: the engine's {NORM} differs"):
        sampler.load(changed_weights(folder, 1))
    assert sampler.version == BASE_VERSION


def test_what_does_not_fit_is_refused_and_changes_nothing(sampler: Sampler, folder: str) -> None:
    weights, before = changed_weights(folder, 1), sample(sampler, make_requests(4))
    for name, tensor, said in (
        ("model.nowhere", torch.zeros(2), "no parameter model.nowhere"),
        (NORM, torch.zeros(2), r"model.norm.weight is \[128\], and was sent as \[2\]"),
    ):
        with pytest.raises(UserError, match=f"the weights do not fit policy.model={folder}: .*{said}"):
            sampler.load(replace(weights, tensors={**weights.tensors, name: tensor}))
    assert same(before, sample(sampler, make_requests(4)))


def test_an_adapter_that_fails_leaves_the_weights_that_were_loaded(
    sampler: Sampler, folder: str, adapters: list[Adapter], monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, adapter = changed_weights(folder, 1), replace(adapters[0], version=2)
    sampler.load(weights)
    tensors = {name.replace("q_proj", "no_such_proj"): tensor for name, tensor in adapter.tensors.items()}
    with pytest.raises(UserError, match=r"no place for the adapter's .*no_such_proj"):
        sampler.load(replace(adapter, tensors=tensors))
    assert sampler.version == 1
    assert weight_gaps(folder, weights, sample(sampler, make_requests(8))).max() < 1e-4
    # The tensors that reach the model are another adapter's.
    monkeypatch.setattr(
        transformers_policy,
        "put_adapter",
        lambda model, _, name: hosting.put_adapter(model, replace(adapters[1], version=2), name),
    )
    with pytest.raises(PublishError, match=r"worker rollout-0, version 2: .*differs"):
        sampler.load(adapter)
    rollouts = sample(sampler, make_requests(8))
    assert {int(version) for rollout in rollouts for version in rollout.versions} == {1}
    assert weight_gaps(folder, weights, rollouts).max() < 1e-4
    sampler.submit(make_requests(1))
    with pytest.raises(PublishError, match=r"versions \[1\] are still being made.*before version 2 is loaded"):
        sampler.load(adapter)


def test_a_version_is_not_taken_from_what_is_being_sampled(sampler: Sampler, folder: str) -> None:
    sampler.load(changed_weights(folder, 1))
    sampler.submit(make_requests(2))
    sampler.poll()
    for change in (lambda: sampler.load(changed_weights(folder, 2)), sampler.serve_base):
        with pytest.raises(PublishError, match=r"versions \[1\] are still being made.*: drain or cancel before"):
            change()
    assert {int(version) for rollout in sampler.run_to_completion() for version in rollout.versions} == {1}
