"""The transformers sampler: seeds, stopping, temperature, versions, and the proof of a load."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AddedToken, AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM

from plumbob.configs.settings.models import ModelRef
from plumbob.core.errors import UserError
from plumbob.data.tokenization import encode_prompt_ids
from plumbob.models.adapter import Adapter
from plumbob.models.tuning import hosting
from plumbob.rollout.publish_proof import PublishError
from plumbob.rollout.samplers import transformers_policy, transformers_sampler
from plumbob.rollout.samplers.sampler import BASE_VERSION, Sampler, SamplerSpec, sample, stop_token_ids
from plumbob.rollout.samplers.transformers_sampler import TransformersSampler, draw
from tests.support.control_tokenizers import Spacing, space_tokenizer
from tests.support.opened_models import policy_ref
from tests.support.plain_transformers import load_plain, plain_logprobs
from tests.support.tiny_policy import EOS, TEMPERATURE, make_requests


def test_draw_inverts_the_cumulative_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    # Cumulative 0.25, 0.25, 1.0: u = 0.2 falls on token 0, u = 0.26 past it and past token 1, which has probability 0.
    logprobs = torch.tensor([[0.25, 0.0, 0.75]] * 3).log()
    uniform = iter([0.2, 0.26, 0.999])
    monkeypatch.setattr(torch, "rand", lambda *_, **__: torch.tensor([next(uniform)], dtype=torch.float64))
    assert draw(logprobs, [torch.Generator()] * 3).tolist() == [0, 2, 2]


def test_draw_follows_the_probabilities() -> None:
    probabilities = torch.tensor([0.1, 0.6, 0.3])
    generators = [torch.Generator().manual_seed(seed) for seed in range(4000)]
    drawn = draw(probabilities.log().expand(4000, 3), generators)
    # The standard deviation of a share over 4000 draws is below sqrt(0.25 / 4000) = 0.008; the bound is four of them.
    assert (torch.bincount(drawn, minlength=3) / 4000 - probabilities).abs().max() < 0.032


def test_logprobs_are_those_of_the_whole_sequence(sampler: Sampler, folder: str) -> None:
    rollouts = sample(sampler, make_requests(12))
    model = load_plain(folder)
    for rollout in rollouts:
        expected = plain_logprobs(model, rollout.request.prompt_ids, rollout.token_ids, TEMPERATURE)
        assert np.abs(expected - rollout.logprobs).max() < 1e-4
        assert set(rollout.versions) == {BASE_VERSION}
        assert rollout.action_mask.all() and len(rollout.action_mask) == len(rollout.token_ids)


def test_a_response_does_not_depend_on_its_neighbours(sampler: Sampler) -> None:
    requests = make_requests(9)
    together = sample(sampler, requests)
    for request, rollout in zip(requests, together, strict=True):
        (alone,) = sample(sampler, [request])
        np.testing.assert_array_equal(alone.token_ids, rollout.token_ids)
        np.testing.assert_allclose(alone.logprobs, rollout.logprobs, atol=1e-4)
    (reseeded,) = sample(sampler, [replace(requests[0], seed=77)])
    assert reseeded.token_ids.tolist() != together[0].token_ids.tolist()


def test_more_requests_than_a_batch_come_back_in_order(sampler: Sampler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformers_sampler, "BATCH_ROWS", 4)
    requests = make_requests(10)
    assert [rollout.request.group_id for rollout in sample(sampler, requests)] == [f"g{index}" for index in range(10)]
    with pytest.raises(ValueError, match="same group_id and sample_index"):
        sample(sampler, [requests[0], requests[0]])


def test_eos_ends_a_response_and_stays_in_it(sampler: Sampler) -> None:
    rollouts = sample(sampler, make_requests(64))
    stopped = [rollout for rollout in rollouts if rollout.finish_reason == "stop"]
    assert 0 < len(stopped) < 64
    for rollout in rollouts:
        eos_at = np.flatnonzero(rollout.token_ids == EOS).tolist()
        length = len(rollout.token_ids)
        assert (eos_at, length <= 32) == ([length - 1], True) if rollout in stopped else (eos_at, length) == ([], 32)
        assert "<eos>" not in rollout.response


def test_what_the_template_ends_a_turn_with_ends_a_response(spec: SamplerSpec, folder: str, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(folder, model)
    tokenizer = AutoTokenizer.from_pretrained(model)
    # Decoding would leave out a special one by itself.
    tokenizer.add_tokens([AddedToken("<end_of_turn>", special=False)])
    end = tokenizer.convert_tokens_to_ids("<end_of_turn>")
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}<end_of_turn>{% endfor %}"
    tokenizer.save_pretrained(model)
    weights = LlamaForCausalLM.from_pretrained(folder)
    weights.resize_token_embeddings(len(tokenizer))
    with torch.no_grad():  # As likely as a word that it knows.
        weights.lm_head.weight[end] = weights.lm_head.weight[tokenizer.convert_tokens_to_ids("the")]
    weights.save_pretrained(model)
    sampler = TransformersSampler(replace(spec, model=policy_ref(model), tokenizer=str(model)))
    rollouts = sample(sampler, make_requests(64))
    ended = [rollout for rollout in rollouts if rollout.token_ids[-1] == end]
    assert ended
    for rollout in ended:
        assert rollout.finish_reason == "stop"
        assert rollout.response == tokenizer.decode(rollout.token_ids[:-1], skip_special_tokens=True)
    assert all(end not in rollout.token_ids[:-1] for rollout in rollouts)


@pytest.mark.parametrize("spacing", ["normalizer", "first"])
def test_prompt_and_response_are_the_text_of_their_ids(spec: SamplerSpec, spacing: Spacing, tmp_path: Path) -> None:
    """Also where a tokenizer reads a text that stands alone as if a space were before it."""
    tokenizer, model = space_tokenizer(spacing), tmp_path / "model"
    torch.manual_seed(0)
    small = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=64, eos_token_id=2, **small)
    LlamaForCausalLM(config).save_pretrained(model)
    tokenizer.save_pretrained(model)
    sampler = TransformersSampler(replace(spec, model=policy_ref(model), tokenizer=str(model), max_tokens=4))
    (ids,) = encode_prompt_ids(tokenizer, ["What is"])
    requests = [replace(request, prompt="What is", prompt_ids=ids) for request in make_requests(256)]
    rollouts = sample(sampler, requests)
    for rollout in rollouts:
        whole = tokenizer.decode([*ids, *rollout.token_ids], skip_special_tokens=True)
        assert rollout.request.prompt + rollout.response == whole
    assert any(rollout.response.startswith(" ") for rollout in rollouts)


def test_only_special_tokens_of_the_generation_config_stop(spec: SamplerSpec, folder: str, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<end_of_turn>"]})
    end_of_turn = tokenizer.convert_tokens_to_ids("<end_of_turn>")
    # 5 is an ordinary token: an EOS id that a config carries by default.
    GenerationConfig(eos_token_id=[end_of_turn, 5]).save_pretrained(tmp_path)
    assert stop_token_ids(replace(spec, model=policy_ref(tmp_path)), tokenizer) == (EOS, end_of_turn)
    assert stop_token_ids(replace(spec, model=policy_ref(tmp_path / "no generation config")), tokenizer) == (EOS,)


def test_requests_keep_the_version_that_they_were_given(sampler: Sampler, adapters: list[Adapter]) -> None:
    requests = make_requests(3)
    alone = []
    for adapter, request in zip(adapters, requests, strict=True):
        sampler.load(adapter)
        alone += sample(sampler, [request])
    for adapter, request in zip(adapters, requests, strict=True):
        sampler.load(adapter)
        sampler.submit([request])
        sampler.poll()
    rollouts = sorted(sampler.run_to_completion(), key=lambda rollout: rollout.request.prompt_id)
    assert [set(rollout.versions) for rollout in rollouts] == [{0}, {1}, {2}]
    for expected, rollout in zip(alone, rollouts, strict=True):
        np.testing.assert_array_equal(expected.token_ids, rollout.token_ids)


def test_adapters_that_are_held_at_once_answer_those_who_name_them(
    sampler: Sampler, adapters: list[Adapter], tmp_path: Path
) -> None:
    requests = make_requests(4)
    alone = {}
    for adapter in adapters:
        sampler.load(adapter)
        alone[adapter.version] = sample(sampler, requests)
    proofs = sampler.load_adapters(adapters)
    assert [proof.version for proof in proofs] == [0, 1, 2] and sampler.version == 2
    asked = [
        replace(request, version=adapter.version, group_id=f"{request.group_id}/{adapter.version}")
        for request in requests
        for adapter in adapters
    ]
    rollouts = sample(sampler, [*asked, requests[3]])
    for index, rollout in enumerate(rollouts[:-1]):
        request, version = index // 3, index % 3
        expected = alone[version][request]
        assert set(rollout.versions) == {version}
        np.testing.assert_array_equal(rollout.token_ids, expected.token_ids)
        np.testing.assert_allclose(rollout.logprobs, expected.logprobs, atol=1e-4)
    assert set(rollouts[-1].versions) == {2}
    # The seeds are the same: what differs is the adapters.
    assert len({tuple(rollout.token_ids) for rollout in rollouts[:3]}) > 1
    sampler.load(replace(adapters[0], version=9))
    (newest,) = sample(sampler, requests[:1])
    assert set(newest.versions) == {9}


def test_cancel_gives_partial_and_waiting_responses(sampler: Sampler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformers_sampler, "BATCH_ROWS", 2)
    sampler.submit(make_requests(3))
    sampler.poll()
    sampler.poll()
    cancelled = sampler.cancel()
    assert [(rollout.finish_reason, len(rollout.token_ids)) for rollout in cancelled] == [
        ("partial", 2),
        ("partial", 2),
        ("partial", 0),
    ]
    assert sampler.run_to_completion() == []


def test_a_load_is_proven(sampler: Sampler, adapters: list[Adapter]) -> None:
    proof = sampler.load(adapters[1])
    # 2 layers x (q, k, v, o, gate, up, down) x (A, B).
    assert (proof.num_tensors, proof.max_abs_difference, sampler.version) == (28, 0.0, 1)


def test_an_adapter_that_is_not_what_was_sent_is_caught(
    sampler: Sampler, adapters: list[Adapter], monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler.load(adapters[0])
    # Stale: the tensors that reach the model are those of the version before.
    monkeypatch.setattr(
        transformers_policy,
        "put_adapter",
        lambda model, adapter, name: hosting.put_adapter(model, replace(adapters[0], version=1), name),
    )
    with pytest.raises(PublishError, match=r"worker rollout-0, version 1: .*differs"):
        sampler.load(adapters[1])
    assert sampler.version == 0
    monkeypatch.undo()
    name = next(iter(adapters[1].tensors))
    partial = {key: tensor for key, tensor in adapters[1].tensors.items() if key != name}
    with pytest.raises(PublishError, match=r"holds no|differs"):
        sampler.load(replace(adapters[1], tensors=partial))


@pytest.mark.parametrize("setting", ["policy.baseline", "calibration.policy"])
def test_a_model_that_cannot_be_sampled_from_is_named_by_its_setting(
    spec: SamplerSpec, tmp_path: Path, setting: str
) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert", "architectures": ["BertForMaskedLM"]}')
    ref = ModelRef(str(tmp_path), setting)
    with pytest.raises(UserError, match=rf"^{setting}={tmp_path}: BertForMaskedLM is not a causal language model"):
        TransformersSampler(replace(spec, model=ref))


def test_what_does_not_fit_is_refused(sampler: Sampler, spec: SamplerSpec, adapters: list[Adapter]) -> None:
    long = replace(make_requests(1)[0], prompt_ids=np.full(256, 5, np.int32))
    with pytest.raises(UserError, match=r"prompt p0 has 256 tokens and the context of .* is 256: no room"):
        sampler.submit([long])
    tensors = {name.replace("q_proj", "no_such_proj"): tensor for name, tensor in adapters[0].tensors.items()}
    with pytest.raises(UserError, match=r"no place for the adapter's .*no_such_proj"):
        sampler.load(replace(adapters[0], tensors=tensors))
    with pytest.raises(PublishError, match="without adapters"):
        TransformersSampler(replace(spec, lora_rank=0)).load(adapters[0])


def test_the_context_cuts_a_response(sampler: Sampler) -> None:
    long = replace(make_requests(1)[0], prompt_ids=np.full(250, 5, np.int32))
    (rollout,) = sample(sampler, [long])
    # 256 - 250.
    assert len(rollout.token_ids) == 6 or rollout.token_ids[-1] == EOS
