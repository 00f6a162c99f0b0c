"""A full model out of an adapter: plain transformers computes with it what PEFT does with the adapter on the base."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import IA3Config, LoraConfig, PeftConfig, PromptTuningConfig, VeraConfig
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from plumbob.configs.settings.models import ModelRef
from plumbob.configs.settings.tuning.quantization import Nf4Quantization
from plumbob.core.errors import UserError
from plumbob.models.adapter import load_adapter, save_adapter
from plumbob.models.loading import load_causal_lm, open_policy
from plumbob.models.merging.merged_model import MergeProof, write_merged
from plumbob.models.quantization.forms import WEIGHTS_DTYPE, KeptBits, round_weights
from plumbob.models.tuning.hosting import put_adapter
from tests.support.libraries import write_adapter
from tests.support.plain_transformers import load_plain
from tests.support.published_adapters import of_config, on_embeddings
from tests.support.tiny_policy import write_policy

IDS = torch.arange(2, 14)[None]
LINEAR = {"target_modules": ["q_proj", "v_proj", "down_proj"], "task_type": "CAUSAL_LM"}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_policy(tmp_path_factory.mktemp("base"))


def merge(adapter: Path, folder: Path, dtype: str | None = None, bits: KeptBits | None = None) -> MergeProof:
    opened = open_policy(ModelRef(str(adapter), "NAME"))
    return write_merged(load_adapter(adapter), opened, folder, dtype, bits)


@torch.no_grad()
def logits(folder: Path) -> Tensor:
    found: Tensor = load_plain(str(folder))(IDS).logits.float()
    return found


@pytest.mark.parametrize(
    "config",
    [
        LoraConfig(r=4, lora_alpha=10, use_rslora=True, **LINEAR),
        LoraConfig(r=4, lora_alpha=10, use_dora=True, **LINEAR),
        LoraConfig(r=4, lora_alpha=10, rank_pattern={"q_proj": 7}, **LINEAR),
        IA3Config(feedforward_modules=["down_proj"], **LINEAR),
        VeraConfig(r=8, **LINEAR),
    ],
    ids=["rslora", "dora", "ranks", "ia3", "vera"],
)
def test_plain_transformers_computes_the_same(base: str, config: PeftConfig, tmp_path: Path) -> None:
    save_adapter(of_config(base, config, 1), tmp_path / "adapter")
    proof = merge(tmp_path / "adapter", tmp_path / "full")
    files = {path.name for path in (tmp_path / "full").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= files
    assert all(path.suffix in (".json", ".safetensors", ".jinja") for path in (tmp_path / "full").iterdir())
    beside, merged = logits(tmp_path / "adapter"), logits(tmp_path / "full")
    torch.testing.assert_close(merged, beside, atol=1e-4, rtol=1e-4)
    # The adapter is seen at all, and the gap that is told is of this size.
    assert (beside - logits(Path(base))).abs().max() > 0.05
    assert proof.dtype == "float32" and proof.gap < 1e-4 and proof.saved_gap < 1e-4
    assert len(AutoTokenizer.from_pretrained(tmp_path / "full")) == len(AutoTokenizer.from_pretrained(base))


def test_weights_are_rounded_once_to_the_dtype_that_is_asked_for_or_the_base_s(base: str, tmp_path: Path) -> None:
    """W + s B A in float32, then bfloat16: not a sum of rounded ones."""
    adapter = write_adapter(tmp_path / "adapter", base)
    proof = merge(adapter, tmp_path / "half", "bfloat16")
    assert proof.dtype == "bfloat16" and proof.gap < 1e-4 < proof.saved_gap
    made = AutoModelForCausalLM.from_pretrained(tmp_path / "half")
    assert AutoConfig.from_pretrained(tmp_path / "half").dtype == made.dtype == torch.bfloat16
    name = "model.layers.0.self_attn.q_proj"
    tensors = load_adapter(adapter).tensors
    a, b = (tensors[f"base_model.model.{name}.lora_{side}.weight"] for side in "AB")
    weight = AutoModelForCausalLM.from_pretrained(base).get_submodule(name).weight
    torch.testing.assert_close(
        made.get_submodule(name).weight.float(), (weight + 2.5 * (b @ a)).bfloat16().float(), atol=1e-6, rtol=2**-8
    )
    half = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    half.save_pretrained(tmp_path / "base")
    AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path / "base")
    assert merge(write_adapter(tmp_path / "on-half", str(tmp_path / "base")), tmp_path / "own").dtype == "bfloat16"


def test_a_base_of_4_bits_is_dequantised_first(base: str, tmp_path: Path) -> None:
    """What QLoRA trained: the adapter beside the base that bitsandbytes keeps in NF4."""
    adapter = write_adapter(tmp_path / "adapter", base)
    bits = Nf4Quantization(block_size=64)
    merge(adapter, tmp_path / "full", bits=KeptBits(bits))
    opened = open_policy(replace(ModelRef(str(adapter), "NAME"), quantization=bits))
    with torch.no_grad():
        quantised = put_adapter(load_causal_lm(opened), load_adapter(adapter), "policy")(IDS).logits.float()
    merged = logits(tmp_path / "full")
    torch.testing.assert_close(merged, quantised, atol=1e-3, rtol=1e-3)
    assert (merged - logits(adapter)).abs().max() > 0.05


def test_a_base_of_4_bits_had_the_numbers_of_its_run_s_dtype(base: str, tmp_path: Path) -> None:
    """A run in bfloat16 quantises weights that were rounded to it, and keeps the others so."""
    adapter = write_adapter(tmp_path / "adapter", base)
    told = {"kind": "nf4", "block_size": 64, WEIGHTS_DTYPE: "bfloat16"}
    merge(adapter, tmp_path / "full", "float32", KeptBits.of(told))
    learner = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    round_weights(learner, Nf4Quantization(block_size=64))
    made = AutoModelForCausalLM.from_pretrained(tmp_path / "full")
    name = "model.layers.0.self_attn.q_proj"
    tensors = load_adapter(adapter).tensors
    a, b = (tensors[f"base_model.model.{name}.lora_{side}.weight"] for side in "AB")
    weight = learner.get_submodule(name).weight.float() + 2.5 * (b @ a)
    torch.testing.assert_close(made.get_submodule(name).weight, weight, atol=1e-6, rtol=1e-5)
    assert torch.equal(made.get_input_embeddings().weight, learner.get_input_embeddings().weight.float())
    plain = AutoModelForCausalLM.from_pretrained(base)
    round_weights(plain, Nf4Quantization(block_size=64))
    assert not torch.equal(plain.get_submodule(name).weight, learner.get_submodule(name).weight.float())


def test_what_would_compute_otherwise_is_refused(base: str, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", base)
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match=r"there: is there already"):
        merge(adapter, tmp_path / "there")
    prompts = PromptTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM")
    save_adapter(of_config(base, prompts, 1), tmp_path / "prompts")
    with pytest.raises(UserError, match="peft_type PROMPT_TUNING does not change weights alone, and cannot be merged"):
        merge(tmp_path / "prompts", tmp_path / "full")
    # With tied embeddings what is added to them would change the head too.
    tied = AutoModelForCausalLM.from_pretrained(base)
    tied.config.tie_word_embeddings = True
    tied.tie_weights()
    tied.save_pretrained(tmp_path / "tied")
    AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path / "tied")
    whole = on_embeddings(str(tmp_path / "tied"), 1)
    tensors = {name: tensor for name, tensor in whole.tensors.items() if "embed_tokens" in name}
    config = {**whole.config, "target_modules": ["embed_tokens"]}
    save_adapter(replace(whole, config=config, tensors=tensors), tmp_path / "embeddings")
    with pytest.raises(UserError, match=r"merged, the model computes otherwise .* such as tied embeddings"):
        merge(tmp_path / "embeddings", tmp_path / "full")
    assert not (tmp_path / "full").exists()
