"""Targets of LoRA that the model does not have, that take no LoRA, or that vLLM cannot serve, and adapters on them."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

from plumbob.configs.settings.models import AlignedPolicySettings, NewLlamaSettings
from plumbob.configs.settings.tuning.adapters import LoraTuning
from plumbob.configs.settings.workers import SamplerEngine, TransformersEngine, VllmEngine
from plumbob.core.errors import UserError
from plumbob.models.adapter import WEIGHTS_FILE, ModelRole, save_adapter
from plumbob.models.loading import open_policy
from plumbob.models.tuning.adapter_support import WHAT_PEFT_LOADS
from plumbob.models.tuning.lora import LORA
from plumbob.models.tuning.methods import check_served, check_tunable, method_of
from plumbob.models.tuning.targets import check_adapted, check_targets
from plumbob.rollout.samplers.open_sampler import support_of
from tests.support.opened_models import opened_policy
from tests.support.tiny_policy import make_adapter, write_policy

LINEAR = "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"
ROLES: tuple[ModelRole, ...] = ("policy", "reference")
ENGINES = [None, TransformersEngine(), VllmEngine()]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Its vLLM class names `embed_tokens` and `lm_head` among what takes LoRA."""
    return write_policy(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Its vLLM class does not. Its config alone, of the Llama's sizes: no weights are read."""
    folder = tmp_path_factory.mktemp("qwen")
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4, "num_key_value_heads": 2}
    Qwen2Config(num_hidden_layers=1, vocab_size=50, **sizes).save_pretrained(folder)
    return str(folder)


def check(model: str, *targets: str, engine: SamplerEngine | None = None, adapter: Path | None = None) -> None:
    support = WHAT_PEFT_LOADS if engine is None else support_of(engine)
    if adapter is not None:
        check_adapted(opened_policy(model, adapter), adapter, LORA, support)
    else:
        check_targets(opened_policy(model), targets or "all-linear", support)


@pytest.mark.parametrize("engine", ENGINES)
def test_linear_layers_take_lora_everywhere(llama: str, qwen: str, engine: SamplerEngine | None) -> None:
    for model in (llama, qwen):
        check(model, engine=engine)
        check(model, "q_proj", "mlp.down_proj", "model.layers.0.self_attn.o_proj", engine=engine)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("target", ["q_prj", "proj", "layers.9.self_attn.q_proj"])
def test_a_name_that_no_module_has(llama: str, engine: SamplerEngine | None, target: str) -> None:
    """PEFT passes over it where another name is found, and trains less than was asked for."""
    with pytest.raises(UserError) as refused:
        check(llama, "v_proj", target, engine=engine)
    assert str(refused.value) == (
        f"policy.tuning.targets: {target} is no module in {llama}; choose among down_proj, embed_tokens, gate_proj, "
        f"k_proj, lm_head, o_proj, q_proj, up_proj, v_proj, or set policy.tuning.targets=all-linear"
    )


def test_a_block_is_no_layer(llama: str) -> None:
    with pytest.raises(UserError, match=r"targets: self_attn \(LlamaAttention\) takes no LoRA in "):
        check(llama, "self_attn")


@pytest.mark.parametrize("target", ["embed_tokens", "lm_head"])
def test_embeddings_are_served_for_some_architectures(llama: str, qwen: str, target: str) -> None:
    for engine in ENGINES:
        check(llama, target, engine=engine)
    for engine in ENGINES[:2]:
        check(qwen, target, engine=engine)
    with pytest.raises(UserError) as refused:
        check(qwen, "q_proj", target, engine=VllmEngine())
    assert f"policy.tuning.targets: {target} (" in str(refused.value)
    assert "lies outside the layers, where vLLM serves no LoRA for this architecture" in str(refused.value)
    assert f"choose among {LINEAR}, or set" in str(refused.value)
    assert str(refused.value).endswith("set rollout.engine.kind=transformers")


@pytest.mark.parametrize("target", ["embed_tokens", "lm_head"])
def test_one_side_of_a_shared_weight_takes_no_merge(llama: str, qwen: str, tmp_path: Path, target: str) -> None:
    """PEFT leaves the other side as it was."""
    merged = support_of(VllmEngine(), "merged")
    for apart in (llama, qwen):
        check_targets(opened_policy(apart), (target,), merged)
    sizes = {"hidden_size": 64, "num_attention_heads": 2, "num_hidden_layers": 1, "vocab_size": 50}
    LlamaConfig(tie_word_embeddings=True, **sizes).save_pretrained(tmp_path)
    check_targets(opened_policy(tmp_path), "all-linear", merged)
    with pytest.raises(UserError, match=rf"{target} \(\w+\) shares its weight, .*; or set rollout\.adapter=lora$"):
        check_targets(opened_policy(tmp_path), (target,), merged)
    check_targets(opened_policy(tmp_path), (target,), support_of(VllmEngine()))


def test_an_adapter_is_checked_by_what_it_holds(llama: str, qwen: str, tmp_path: Path) -> None:
    save_adapter(make_adapter(llama, 0, seed=1), tmp_path)
    for engine in ENGINES:
        # Its own targets count, not those of the settings, which are for new adapters.
        check(llama, "nothing", engine=engine, adapter=tmp_path)
    tensors = load_file(tmp_path / WEIGHTS_FILE)
    prefix = "base_model.model"
    embedded = {f"{prefix}.model.embed_tokens.lora_embedding_{side}": torch.zeros(2, 2) for side in "AB"}
    one_layer = {name: tensor for name, tensor in tensors.items() if "layers.0" in name}
    save_file(one_layer | embedded, tmp_path / WEIGHTS_FILE)
    check(qwen, engine=TransformersEngine(), adapter=tmp_path)
    with pytest.raises(UserError, match=rf"policy\.model={tmp_path}: model\.embed_tokens \(Embedding\) lies outside"):
        check(qwen, engine=VllmEngine(), adapter=tmp_path)
    # Of one layer more than the base has.
    save_file(tensors, tmp_path / WEIGHTS_FILE)
    for engine in ENGINES:
        with pytest.raises(UserError, match=r"model\.layers\.1\.\S+_proj is no module in .*an adapter on .* may hold"):
            check(qwen, engine=engine, adapter=tmp_path)


def test_weights_of_the_base_beside_an_adapter(llama: str, tmp_path: Path) -> None:
    """PEFT saves them beside adapters on embeddings; vLLM's adapters hold nothing else than LoRA."""
    save_adapter(make_adapter(llama, 0, seed=1), tmp_path)
    path = tmp_path / WEIGHTS_FILE
    save_file(load_file(path) | {"base_model.model.lm_head.base_layer.weight": torch.zeros(2, 2)}, path)
    check(llama, engine=TransformersEngine(), adapter=tmp_path)
    with pytest.raises(UserError, match=r"lm_head\.base_layer\.weight is no module"):
        check(llama, engine=VllmEngine(), adapter=tmp_path)


QUERY = "model.layers.0.self_attn.q_proj"
SAVED_A, SAVED_B = (f"base_model.model.{QUERY}.lora_{side}.weight" for side in "AB")


@pytest.mark.parametrize(
    ("name", "shape", "wanted"),
    [
        (SAVED_A, (4, 64), rf"{QUERY}\.lora_A\.weight in .* is \[4, 64\] beside \[128, 4\], .* has 128 inputs and 128"),
        (SAVED_B, (256, 4), rf"{QUERY}\.lora_B\.weight in .* is \[256, 4\] beside \[4, 128\]"),
        (SAVED_B, (128, 8), rf"{QUERY}\.lora_A\.weight in .* is \[4, 128\] beside \[128, 8\]"),
        (SAVED_B, None, rf"{QUERY}\.lora_A\.weight in .* is \[4, 128\] beside nothing"),
        ("base_model.model.model.embed_tokens.weight", (300, 128), r"has model\.embed_tokens\.weight, a weight of the"),
    ],
)
def test_tensors_that_do_not_fit_the_base_are_refused_before_they_are_loaded(
    name: str, shape: tuple[int, int] | None, wanted: str, llama: str, tmp_path: Path
) -> None:
    save_adapter(make_adapter(llama, 0, seed=1), tmp_path)
    check(llama, engine=TransformersEngine(), adapter=tmp_path)
    tensors = load_file(tmp_path / WEIGHTS_FILE)
    tensors.pop(name, None)
    changed = {} if shape is None else {name: torch.zeros(shape)}
    save_file(tensors | changed, tmp_path / WEIGHTS_FILE)
    with pytest.raises(UserError, match=wanted):
        check(llama, engine=TransformersEngine(), adapter=tmp_path)


def test_the_modules_are_those_of_the_loaded_model(llama: str) -> None:
    """The check never reads the weights; what it names is what a learner would put LoRA on."""
    for name, _ in AutoModelForCausalLM.from_pretrained(llama).named_modules():
        if name.endswith("_proj"):
            check(llama, name, engine=VllmEngine())


def test_a_rank_that_the_engine_does_not_serve(llama: str) -> None:
    vllm = support_of(VllmEngine())
    policy = AlignedPolicySettings(model=llama, tuning=LoraTuning(rank=513))
    wanted = r"^policy\.tuning\.rank=513: vLLM serves LoRA up to rank 512; lower it or set rollout\.engine\.kind="
    with pytest.raises(UserError, match=wanted):
        check_tunable(open_policy(policy.ref), policy, ROLES, vllm)
    for any_rank in (support_of(TransformersEngine()), support_of(VllmEngine(), "merged")):
        check_tunable(open_policy(policy.ref), policy, ROLES, any_rank)
    check_tunable(open_policy(policy.ref), policy.model_copy(update={"tuning": LoraTuning(rank=512)}), ROLES, vllm)


def test_an_adapter_of_a_rank_that_the_engine_does_not_serve(llama: str, tmp_path: Path) -> None:
    """Its own ranks count, in any module, and not those of the settings."""
    adapter, vllm = make_adapter(llama, 0, seed=1), support_of(VllmEngine())
    policy = AlignedPolicySettings(model=str(tmp_path))
    save_adapter(replace(adapter, config={**adapter.config, "rank_pattern": {"q_proj": 512}}), tmp_path)
    check_tunable(open_policy(policy.ref), policy, ROLES, vllm)
    save_adapter(replace(adapter, config={**adapter.config, "rank_pattern": {"q_proj": 513}}), tmp_path)
    wanted = (
        rf"^policy\.model={tmp_path}: the largest rank .* is 513, and vLLM serves LoRA up to rank 512; set rollout\."
    )
    for check in (
        lambda: check_tunable(open_policy(policy.ref), policy, ROLES, vllm),
        lambda: check_served(opened_policy(llama, tmp_path), vllm),
    ):
        with pytest.raises(UserError, match=wanted):
            check()
    check_tunable(open_policy(policy.ref), policy, ROLES, support_of(TransformersEngine()))


def test_a_rank_that_is_published_twice_as_large(llama: str) -> None:
    policy, vllm = AlignedPolicySettings(model=llama, tuning=LoraTuning(rank=257, init="pissa")), VllmEngine()
    wanted = r"^policy\.tuning\.rank=257, and .*\.init=pissa make it 514: vLLM serves LoRA up to rank 512; lower it"
    with pytest.raises(UserError, match=wanted):
        check_tunable(open_policy(policy.ref), policy, ROLES, support_of(vllm))


@pytest.mark.parametrize(
    ("tuning", "wanted"),
    [
        (
            LoraTuning(rank_pattern={"up": 3}),
            r"policy\.tuning\.rank_pattern: up is no target in .*; name the end of one of down_proj, gate_proj, ",
        ),
        (
            LoraTuning(targets=("q_proj",), alpha_pattern={"q_proj": 2.0, "layers.0.self_attn.v_proj": 2.0}),
            r"policy\.tuning\.alpha_pattern: layers\.0\.self_attn\.v_proj is no target in .*; .* end of one of q_proj$",
        ),
        (
            LoraTuning(targets=("q_proj", "embed_tokens"), init="olora"),
            r"policy\.tuning\.init=olora begins with parts of linear layers' weights, and model\.embed_tokens of "
            r"policy\.tuning\.targets is none in .*; take it out, or set policy\.tuning\.init=default$",
        ),
    ],
)
def test_what_is_said_of_single_modules_fits_the_targets(llama: str, tuning: LoraTuning, wanted: str) -> None:
    policy = AlignedPolicySettings(model=llama, tuning=tuning)
    with pytest.raises(UserError, match=wanted):
        check_tunable(open_policy(policy.ref), policy, ROLES, WHAT_PEFT_LOADS)
    method_of(LoraTuning(rank_pattern={"layers.1.mlp.up_proj": 3}, init="pissa")).check(
        open_policy(policy.ref), "policy.tuning", ROLES, WHAT_PEFT_LOADS
    )


def test_dora_is_merged_in_vllm_or_sampled_by_transformers(llama: str, qwen: str) -> None:
    policy = AlignedPolicySettings(model=llama, tuning=LoraTuning(use_dora=True))
    for support in (support_of(VllmEngine(), "merged"), support_of(TransformersEngine())):
        check_tunable(open_policy(policy.ref), policy, ROLES, support)
    wanted = (
        r"^policy\.tuning\.use_dora=true: vLLM computes plain LoRA alone beside the base's weights; "
        r"set rollout\.adapter=merged, for one device and uncompiled, or set rollout\.engine\.kind=transformers$"
    )
    vllm = support_of(VllmEngine())
    with pytest.raises(UserError, match=wanted):
        check_tunable(open_policy(policy.ref), policy, ROLES, vllm)
    with pytest.raises(UserError, match=wanted):
        method_of(policy.tuning).check_new(NewLlamaSettings(), "policy.tuning", vllm)
    # Of a model into whose weights nothing was ever merged and read back.
    opened = opened_policy(qwen)
    opened.config.architectures = ["OPTForCausalLM"]
    with pytest.raises(UserError, match=r"beside the base's weights; set rollout\.engine\.kind=transformers$"):
        method_of(policy.tuning).check(opened, "policy.tuning", ROLES, vllm)
