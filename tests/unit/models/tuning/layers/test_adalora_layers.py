"""AdaLoRA as plain LoRA, number by number, and its distance from orthogonal beside PEFT's own loss."""

from pathlib import Path

import pytest
import torch
from peft import AdaLoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from plumbob.models.tuning.layers.adalora_layers import left_as_lora, orthogonality
from tests.support.tiny_policy import write_policy


def test_what_is_left_is_lora_of_its_own_rank_in_each_module() -> None:
    config = AdaLoraConfig(init_r=3, target_r=2, lora_alpha=6.0, total_step=1, target_modules=["q", "v"])
    place = "base_model.model.layers.0"
    tensors = {
        f"{place}.q.lora_E": torch.tensor([[2.0], [0.0], [-1.0]]),
        f"{place}.q.lora_A": torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]),
        f"{place}.q.lora_B": torch.tensor([[1.0, 2.0, 3.0]]),
        f"{place}.v.lora_E": torch.zeros(3, 1),
        f"{place}.v.lora_A": torch.ones(3, 2),
        f"{place}.v.lora_B": torch.ones(4, 3),
    }
    lora, plain = left_as_lora(config, tensors)
    assert {name: tensor.tolist() for name, tensor in plain.items()} == {
        f"{place}.q.lora_A.weight": [[2.0, 4.0], [-5.0, -6.0]],
        f"{place}.q.lora_B.weight": [[1.0, 3.0]],
        f"{place}.v.lora_A.weight": [[0.0, 0.0]],
        f"{place}.v.lora_B.weight": [[1.0]] * 4,
    }
    # 6 / 3, but for what PEFT adds to the 3, is the scale of all.
    assert lora.r == 2 and lora.lora_alpha == pytest.approx(4, rel=1e-5)
    assert lora.rank_pattern == {"layers.0.v": 1} and lora.alpha_pattern == {"layers.0.v": pytest.approx(2, rel=1e-5)}


def test_the_distance_is_what_peft_adds_to_a_loss(tmp_path: Path) -> None:
    base = AutoModelForCausalLM.from_pretrained(write_policy(tmp_path))
    ids = torch.arange(6)[None]
    plain = base(ids, labels=ids).loss
    config = AdaLoraConfig(
        init_r=3, orth_reg_weight=0.25, total_step=1, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    model = get_peft_model(base, config, adapter_name="policy")
    found = orthogonality(model, "policy")
    # Rows of length 0.02 sqrt(width) are far from 1: near || I ||, which is sqrt(3).
    assert 1.0 < found.item() < 3**0.5
    assert (model(ids, labels=ids).loss - plain).item() == pytest.approx(0.25 * found.item(), rel=1e-4)
