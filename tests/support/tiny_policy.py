"""A tiny Llama with a byte-level tokenizer, and LoRA adapters for it, made on the spot from a seed."""

from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from peft.utils import get_peft_model_state_dict
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from plumbob.models.adapter import Adapter
from plumbob.rollout.rollout_records import SampleRequest

EOS = 1
VOCABULARY = 280
"""Ids below it, but for those of padding and EOS, are tokens that prompts are made of."""

TEMPERATURE = 0.7
"""What tests sample at: a log-prob that is taken at 1 shows."""


def write_policy(
    folder: Path, num_heads: int = 4, tokenizer: PreTrainedTokenizerFast | None = None, max_positions: int = 256
) -> str:
    """Hidden 128 (so 4 heads of 32), 2 layers, 2 key-value heads; 300 tokens or fewer where no tokenizer is given."""
    fast = _byte_tokenizer() if tokenizer is None else tokenizer
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=num_heads,
        num_key_value_heads=2,
        max_position_embeddings=max_positions,
        initializer_range=0.15,
        pad_token_id=fast.pad_token_id,
        eos_token_id=fast.eos_token_id,
        bos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return str(folder)


def _byte_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<pad>", "<eos>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(["the car has four doors and a red engine"] * 10, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>")


def make_adapter(folder: str, version: int, seed: int, rank: int = 4) -> Adapter:
    """An adapter on all linear layers whose A and B are both random, with alpha / rank = 2.5."""
    base = AutoModelForCausalLM.from_pretrained(folder)
    config = LoraConfig(r=rank, lora_alpha=10, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(base, config)
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        name: torch.randn(tensor.shape, generator=generator) * 0.05
        for name, tensor in get_peft_model_state_dict(model).items()
    }
    content = model.peft_config["default"].to_dict()
    content |= {"target_modules": sorted(content["target_modules"]), "task_type": "CAUSAL_LM", "peft_type": "LORA"}
    content |= {"base_model_name_or_path": folder, "inference_mode": True}
    return Adapter(version, {key: value for key, value in content.items() if _is_plain(value)}, tensors)


def make_requests(num: int, first_seed: int = 0) -> list[SampleRequest]:
    """Prompts of 3 to 9 random tokens, one response each."""
    random = np.random.default_rng(first_seed)
    prompts = [random.integers(EOS + 1, VOCABULARY, size=3 + index % 7).astype(np.int32) for index in range(num)]
    return [
        SampleRequest(f"p{index}", f"g{index}", 0, first_seed + index, "", ids) for index, ids in enumerate(prompts)
    ]


def _is_plain(value: object) -> bool:
    return isinstance(value, str | int | float | bool | list | dict) or value is None


def write_gpt2(folder: Path) -> str:
    """Hidden 32, 2 layers; its layers keep their weights as [in, out]. Without a tokenizer."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=300, n_positions=16, n_embd=32, n_layer=2, n_head=2)
    GPT2LMHeadModel(config).save_pretrained(folder)
    return str(folder)
