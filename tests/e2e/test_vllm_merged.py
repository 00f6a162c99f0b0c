"""The vLLM sampler with adapters merged into its weights, on a real engine: parity, versions, proofs, the base."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import IA3Config, LoraConfig, VeraConfig, get_peft_model
from peft.utils import get_peft_model_state_dict
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    MistralConfig,
    PretrainedConfig,
    Qwen2Config,
)

from plumbob.configs.settings.workers import VllmEngine
from plumbob.models.adapter import Adapter
from plumbob.rollout.publish_proof import PublishError
from plumbob.rollout.requests import continuation
from plumbob.rollout.rollout_records import Rollout
from plumbob.rollout.samplers.sampler import BASE_VERSION, SamplerSpec, sample
from plumbob.rollout.samplers.vllm import engine_weights
from plumbob.rollout.samplers.vllm.engine_weights import load_in_engine
from plumbob.rollout.samplers.vllm.vllm_sampler import VllmSampler
from plumbob.rollout.served_adapter import lora_pairs
from tests.support.opened_models import policy_ref
from tests.support.published_adapters import largest_gap, logprob_gaps, of_config, on_embeddings
from tests.support.tiny_policy import EOS, TEMPERATURE, make_adapter, make_requests, write_policy

UP = "model.layers.1.mlp.up_proj.weight"
METHODS = {
    "ia3": IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"], task_type="CAUSAL_LM"),
    "vera": VeraConfig(r=8, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM"),
    "dora": LoraConfig(
        r=4, lora_alpha=10, use_dora=True, target_modules=["q_proj", "down_proj", "lm_head"], task_type="CAUSAL_LM"
    ),
}


@dataclass
class MergedEngine:
    sampler: VllmSampler
    folder: str
    spec: SamplerSpec


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MergedEngine]:
    folder = write_policy(tmp_path_factory.mktemp("policy"))
    engine = VllmEngine(kv_cache_gib=0.05, max_num_seqs=64)
    spec = SamplerSpec(
        policy_ref(folder, request.param),
        "rollout-0",
        engine,
        TEMPERATURE,
        max_tokens=40,
        lora_rank=0,
        adapter="merged",
    )
    sampler = VllmSampler(spec)
    yield MergedEngine(sampler, folder, spec)
    sampler.close()


@pytest.fixture
def served(opened: MergedEngine) -> Iterator[MergedEngine]:
    yield opened
    opened.sampler.cancel()
    opened.sampler.serve_base()


def with_patterns(folder: str) -> Adapter:
    """rsLoRA of several ranks and alphas, on two parts of what vLLM packs with a third, and on one layer alone."""
    config = LoraConfig(
        r=4,
        lora_alpha=6,
        target_modules=["q_proj", "v_proj", "down_proj"],
        rank_pattern={"layers.0.self_attn.q_proj": 9},
        alpha_pattern={"v_proj": 3, "layers.1.mlp.down_proj": 11},
        use_rslora=True,
        task_type="CAUSAL_LM",
    )
    return random_adapter(folder, config, version=3)


def random_adapter(folder: str, config: LoraConfig, version: int) -> Adapter:
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(folder), config)
    generator = torch.Generator().manual_seed(version)
    tensors = {
        name: torch.randn(tensor.shape, generator=generator) * 0.05
        for name, tensor in get_peft_model_state_dict(model).items()
    }
    content = {
        **make_config(config),
        "base_model_name_or_path": folder,
        "target_modules": sorted(model.peft_config["default"].target_modules),
    }
    return Adapter(version, content, tensors)


def make_config(config: LoraConfig) -> dict[str, object]:
    names = ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "task_type")
    return {"peft_type": "LORA", **{name: getattr(config, name) for name in names}}


def bound(served: MergedEngine) -> float:
    """On the gap to PEFT's unmerged float32, where a log-prob of -30, as these have, steps by 2e-6."""
    return 3e-5 if served.spec.model.dtype == "float32" else 0.5


def same(left: list[Rollout], right: list[Rollout]) -> bool:
    pairs = list(zip(left, right, strict=True))
    return all(np.array_equal(a.token_ids, b.token_ids) and np.array_equal(a.logprobs, b.logprobs) for a, b in pairs)


def test_each_publish_is_sampled_from_as_peft_computes_it(served: MergedEngine, tmp_path: Path) -> None:
    adapters = [
        make_adapter(served.folder, 1, seed=1),
        make_adapter(served.folder, 2, seed=2),
        with_patterns(served.folder),
    ]
    rollouts: dict[int, list[Rollout]] = {}
    for adapter in adapters:
        proof = served.sampler.load(adapter)
        assert (proof.version, proof.num_tensors, proof.max_abs_difference) == (
            adapter.version, len(adapter.tensors), 0.0,
        )  # fmt: skip
        # The same prompts, so that what the cache has of the version before would show.
        rollouts[adapter.version] = sample(served.sampler, make_requests(16))
        assert all(set(rollout.versions) == {adapter.version} for rollout in rollouts[adapter.version])
    for adapter in adapters:
        own = largest_gap(adapter, tmp_path / "own", rollouts[adapter.version])
        assert own < bound(served), adapter.version
        others = [largest_gap(adapter, tmp_path / "own", rollouts[v]) for v in rollouts if v != adapter.version]
        assert min(others) > max(0.05, 2 * own)
    # A retry.
    assert served.sampler.load(adapters[-1]).version == 3


def test_no_lora_runs_in_the_engine(served: MergedEngine) -> None:
    assert served.sampler._engine.vllm_config.lora_config is None


def test_an_adapter_on_embeddings_is_merged(served: MergedEngine, tmp_path: Path) -> None:
    adapter = on_embeddings(served.folder, 4)
    assert served.sampler.load(adapter).num_tensors == 4
    rollouts = sample(served.sampler, make_requests(8))
    assert largest_gap(adapter, tmp_path / "own", rollouts) < bound(served)
    assert largest_gap(make_adapter(served.folder, 0, seed=99), tmp_path / "other", rollouts) > 0.1


@pytest.mark.parametrize("method", METHODS)
def test_what_vllm_has_no_kernels_for_is_merged(served: MergedEngine, tmp_path: Path, method: str) -> None:
    adapter = of_config(served.folder, METHODS[method], 20)
    proof = served.sampler.load(adapter)
    assert (proof.num_tensors, proof.max_abs_difference) == (len(adapter.tensors), 0.0)
    rollouts = sample(served.sampler, make_requests(8))
    assert largest_gap(adapter, tmp_path / "own", rollouts) < bound(served)
    assert largest_gap(make_adapter(served.folder, 0, seed=99), tmp_path / "other", rollouts) > 0.1


def test_the_base_is_given_back_to_the_bit(served: MergedEngine) -> None:
    before = sample(served.sampler, make_requests(8))
    served.sampler.load(make_adapter(served.folder, 5, seed=5))
    assert not same(before, sample(served.sampler, make_requests(8)))
    served.sampler.serve_base()
    after = sample(served.sampler, make_requests(8))
    assert served.sampler.version == BASE_VERSION and same(before, after)
    assert {int(version) for rollout in after for version in rollout.versions} == {BASE_VERSION}


def nothing_loaded(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {}


def one_element_changed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """By one step of the dtype."""
    changed = weights[UP].clone()
    value = changed[17, 3]
    changed[17, 3] = (
        torch.nextafter(value.float(), torch.tensor(9.0)) if changed.dtype == torch.float32 else value * (1 + 2**-7)
    )
    return {**weights, UP: changed}


def one_module_left_out(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: weight for name, weight in weights.items() if "layers.1.mlp.down_proj" not in name}


def keys_and_values_swapped(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    key, value = (f"model.layers.0.self_attn.{part}_proj.weight" for part in "kv")
    return {**weights, key: weights[value], value: weights[key]}


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (nothing_loaded, r"model\.layers\.0\.self_attn"),
        (one_element_changed, r"model\.layers\.1\.mlp\.up_proj\.weight"),
        (one_module_left_out, r"model\.layers\.1\.mlp\.down_proj\.weight"),
        (keys_and_values_swapped, r"model\.layers\.0\.self_attn\.k_proj\.weight"),
    ],
)
def test_what_the_engine_does_not_hold_is_not_proven(
    served: MergedEngine,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Mapping[str, Tensor]], dict[str, Tensor]],
    named: str,
) -> None:
    good = make_adapter(served.folder, 6, seed=6)
    served.sampler.load(good)
    before = sample(served.sampler, make_requests(6))
    times = iter([True, False])

    def damaged(worker: object, weights: Iterable[tuple[str, Tensor]]) -> None:
        load_in_engine(worker, damage(dict(weights)).items() if next(times) else weights)

    monkeypatch.setattr(engine_weights, "load_in_engine", damaged)
    # One small update lies between the two: 1e-3 of every element.
    bad = replace(good, version=7, tensors={name: tensor * 1.001 for name, tensor in good.tensors.items()})
    with pytest.raises(PublishError, match=rf"worker rollout-0, version 7: .*{named}.* differs"):
        served.sampler.load(bad)
    # What was served before is served again.
    assert served.sampler.version == 6 and same(before, sample(served.sampler, make_requests(6)))


def test_a_version_is_not_taken_from_what_is_being_sampled(served: MergedEngine) -> None:
    served.sampler.load(make_adapter(served.folder, 8, seed=8))
    served.sampler.submit(make_requests(2))
    served.sampler.poll()
    for change in (lambda: served.sampler.load(make_adapter(served.folder, 9, seed=9)), served.sampler.serve_base):
        with pytest.raises(PublishError, match=r"versions \[8\] are still being made, and with rollout.adapter=merged"):
            change()
    assert {int(version) for rollout in served.sampler.run_to_completion() for version in rollout.versions} == {8}


def test_a_part_is_continued_by_the_next_version(
    served: MergedEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served.sampler, "_spec", replace(served.spec, partial_tokens=16))
    old, new = make_adapter(served.folder, 10, seed=10), make_adapter(served.folder, 11, seed=11)
    served.sampler.load(old)
    begun = sample(served.sampler, make_requests(24))
    served.sampler.load(new)
    rest = [request for rollout in begun if (request := continuation(rollout)) is not None]
    done = sample(served.sampler, rest)
    assert len(done) > 4 and all(set(rollout.versions) == {10, 11} for rollout in done)

    def tokens(rollout: Rollout, version: int) -> Rollout:
        """Only the log-probs of that version count: the others are taken from the policy that is compared with."""
        return replace(rollout, logprobs=np.where(rollout.versions == version, rollout.logprobs, np.nan))

    for adapter in (old, new):
        gaps = logprob_gaps(adapter, tmp_path, [tokens(rollout, adapter.version) for rollout in done])
        # The context that the older version wrote is read by the new one, cached or not.
        assert np.nanmax(gaps) < bound(served)


# ------------------------------------------------------------------------------------------------- other architectures


SIZES = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}
OTHERS: dict[str, Callable[[int], PretrainedConfig]] = {
    "gpt2": lambda vocabulary: GPT2Config(vocab_size=vocabulary, n_positions=256, n_embd=128, n_layer=2, n_head=4),
    "qwen2": lambda vocabulary: Qwen2Config(vocab_size=vocabulary, num_key_value_heads=2, **SIZES),
    "mistral": lambda vocabulary: MistralConfig(
        vocab_size=vocabulary, num_key_value_heads=2, sliding_window=None, **SIZES
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", OTHERS)
def test_another_architecture(kind: str, tmp_path: Path) -> None:
    folder = write_policy(tmp_path / "policy")
    config = OTHERS[kind](len(AutoTokenizer.from_pretrained(folder)))
    config.update({"initializer_range": 0.15, "bos_token_id": None, "eos_token_id": EOS, "pad_token_id": 0})
    config.update({"max_position_embeddings": 256, "sliding_window": None})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    engine = VllmEngine(kv_cache_gib=0.05, max_num_seqs=16)
    sampler = VllmSampler(SamplerSpec(policy_ref(folder), "w", engine, TEMPERATURE, 24, 0, adapter="merged"))
    try:
        targets = "all-linear"
        adapter = random_adapter(
            folder, LoraConfig(r=4, lora_alpha=10, target_modules=targets, task_type="CAUSAL_LM"), 1
        )
        assert len(lora_pairs(adapter)) >= 8
        sampler.load(adapter)
        rollouts = sample(sampler, make_requests(8))
        assert largest_gap(adapter, tmp_path / "own", rollouts) < 3e-5
        other = replace(
            adapter,
            tensors={name: -tensor for name, tensor in adapter.tensors.items() if "lora_A" in name}
            | {name: tensor for name, tensor in adapter.tensors.items() if "lora_B" in name},
        )
        assert largest_gap(other, tmp_path / "other", rollouts) > 0.05
        # Factors of outputs are factors of their biases too; the base's own come back.
        outputs, inputs = (["c_attn"], ["mlp.c_proj"]) if kind == "gpt2" else (["k_proj", "v_proj"], ["down_proj"])
        scaled = IA3Config(target_modules=outputs + inputs, feedforward_modules=inputs, task_type="CAUSAL_LM")
        vectors = of_config(folder, scaled, 2)
        sampler.load(vectors)
        assert largest_gap(vectors, tmp_path / "vectors", sample(sampler, make_requests(8))) < 3e-5
        sampler.load(adapter)
        assert largest_gap(adapter, tmp_path / "own", sample(sampler, make_requests(8))) < 3e-5
    finally:
        sampler.close()
