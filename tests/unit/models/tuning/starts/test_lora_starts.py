"""LoRA that begins from the base's weights: by hand, and step by step as PEFT's own, which takes them out of it."""

from math import sqrt
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from plumbob.configs.settings.tuning.adapters import LoraTuning
from plumbob.models.adapter import ModelRole, save_adapter
from plumbob.models.policy import PolicyModel
from plumbob.models.tuning.methods import method_of
from plumbob.models.tuning.roles import trainable_groups
from plumbob.models.tuning.starts.lora_starts import as_plain_lora, begin_from_weights, start_of
from plumbob.trainers.learner.export import PolicyAdapter
from tests.support.opened_models import opened_policy
from tests.support.role_logprobs import ACTIONS, IDS, MASK, TEMPERATURE, plain, response
from tests.support.tiny_policy import write_gpt2, write_policy

ROLES: tuple[ModelRole, ...] = ("policy", "reference", "value")


def close(found: Tensor, expected: list[list[float]]) -> None:
    torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=1e-5)


@pytest.mark.parametrize("init", ["pissa", "pissa_niter_16"])
def test_pissa_takes_the_largest_singular_value_in_equal_parts(init: Any) -> None:
    # W = -3 e2 e1^T + 2 e1 e2^T: its largest singular value is 3, and s B0 A0 that part. With s = 2 each of A0 and B0
    # is sqrt(3 / 2) long; A0's number is made positive, so B0's has the sign.
    a, b = start_of(torch.tensor([[0.0, 2.0], [-3.0, 0.0]]), 1, 2.0, init)
    close(a, [[sqrt(1.5), 0.0]])
    close(b, [[0.0], [-sqrt(1.5)]])


def test_olora_takes_the_first_columns_of_q() -> None:
    # The first column (3, 4) is 5 long: Q begins with (0.6, 0.8), and R with (5, 0.6 x 1 + 0.8 x 2).
    a, b = start_of(torch.tensor([[3.0, 1.0], [4.0, 2.0]]), 1, 7.0, "olora")
    close(a, [[5.0, 2.2]])
    close(b, [[0.6], [0.8]])


def test_a_rank_that_the_weight_cannot_have_is_filled_with_zeros() -> None:
    for init in ("pissa", "olora"):
        a, b = start_of(torch.tensor([[3.0, 4.0]]), 3, 1.0, init)  # type: ignore[arg-type]
        assert (a.shape, b.shape) == ((3, 2), (1, 3))
        close(b @ a, [[3.0, 4.0]])
        assert not a[1:].any() and not b[:, 1:].any()


def test_what_is_published_is_plain_lora_of_twice_the_rank() -> None:
    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2, bias=False)

    base = One()
    base.layer.weight.data = torch.tensor([[0.0, 2.0], [-3.0, 0.0]])
    config = LoraConfig(r=1, lora_alpha=2, target_modules=["layer"])
    model = get_peft_model(base, config, adapter_name="policy")
    begin_from_weights(model, ("policy",), "pissa")
    moved = {"A": torch.tensor([[0.5, 1.0]]), "B": torch.tensor([[1.0], [0.0]])}
    tensors = {f"base_model.model.layer.lora_{side}.weight": tensor for side, tensor in moved.items()}
    given = {"r": 1, "lora_alpha": 3, "rank_pattern": {"x": 4}, "alpha_pattern": {"x": 5}}
    content, plain_ones = as_plain_lora(model, "policy", given, tensors)
    assert content == {"r": 2, "lora_alpha": 6, "rank_pattern": {"x": 8}, "alpha_pattern": {"x": 10}}
    # [A0 + dA; dA] and [dB | B0], with A0 = (sqrt(1.5), 0) and B0 = (0, -sqrt(1.5)).
    close(plain_ones["base_model.model.layer.lora_A.weight"], [[sqrt(1.5) + 0.5, 1.0], [0.5, 1.0]])
    close(plain_ones["base_model.model.layer.lora_B.weight"], [[1.0, 0.0], [0.0, -sqrt(1.5)]])
    # rsLoRA's scaling is alpha / sqrt(rank).
    content, _ = as_plain_lora(model, "policy", given | {"use_rslora": True}, tensors)
    assert content["lora_alpha"] == pytest.approx(3 * sqrt(2)) and content["alpha_pattern"] == {"x": 5 * sqrt(2)}
    # An adapter that began at random stays what it is.
    assert as_plain_lora(model, "other", given, tensors) == (given, tensors)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_policy(tmp_path_factory.mktemp("policy"))


def with_gradients(model: Any) -> Tensor:
    """As `plain`, to be trained by."""
    logprobs = torch.log_softmax(model(input_ids=IDS).logits[:, :-1] / TEMPERATURE, dim=-1)
    return logprobs.gather(-1, IDS[:, 1:, None])[..., 0][ACTIONS[:, 1:]]


def ours_trained(model: PolicyModel, num_steps: int) -> list[Tensor]:
    adam = torch.optim.AdamW(trainable_groups(model)["policy"].values(), lr=1e-3, weight_decay=0.0)
    found = []
    for _ in range(num_steps):
        adam.zero_grad()
        model.train()
        with model.role("policy"):
            (-model(IDS, MASK, ACTIONS, TEMPERATURE)[ACTIONS].mean()).backward()
        adam.step()
        found.append(response(model, "policy"))
    return found


def peft_trained(model: PeftModel, num_steps: int) -> list[Tensor]:
    adam = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3, weight_decay=0.0)
    found = []
    for _ in range(num_steps):
        adam.zero_grad()
        (-with_gradients(model.train()).mean()).backward()
        adam.step()
        found.append(plain(model))
    return found


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_each_step_is_that_of_pefts_own_on_the_changed_base(folder: str, tmp_path: Path, init: Any) -> None:
    tuning = LoraTuning(rank=4, alpha=8.0, init=init, targets=("q_proj", "down_proj"))
    opened = opened_policy(folder)
    model = method_of(tuning).policy(opened, ROLES, 0)
    base = plain(AutoModelForCausalLM.from_pretrained(folder))
    config = LoraConfig(
        r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"], init_lora_weights=init, task_type="CAUSAL_LM"
    )
    theirs = get_peft_model(AutoModelForCausalLM.from_pretrained(folder), config)
    # The base alone is another model in PEFT's way, and the same in ours.
    with theirs.disable_adapter():
        assert (plain(theirs) - base).abs().max() > 0.1
    assert torch.equal(response(model, "policy"), response(model, "reference"))
    torch.testing.assert_close(response(model, "reference"), base, rtol=0, atol=1e-5)
    for found, expected in zip(ours_trained(model, 5), peft_trained(theirs, 5), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-4)
    assert (response(model, "policy") - base).abs().max() > 0.1
    torch.testing.assert_close(response(model, "reference"), base, rtol=0, atol=1e-5)
    # What is exported computes the same on the original base.
    learnt = {name: p.detach() for group in trainable_groups(model).values() for name, p in group.items()}
    save_adapter(PolicyAdapter(model.causal_lm, "causal_lm.", folder, None).adapter(learnt, 1), tmp_path)
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), str(tmp_path))
    torch.testing.assert_close(plain(loaded), response(model, "policy"), rtol=0, atol=2e-5)


@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_on_a_base_that_keeps_its_weights_the_other_way_round(tmp_path: Path, init: Any) -> None:
    write_gpt2(tmp_path)
    model = method_of(LoraTuning(rank=4, init=init)).policy(opened_policy(tmp_path), ROLES, 0)
    assert torch.equal(response(model, "policy"), response(model, "reference"))
    trained = ours_trained(model, 2)[-1]
    learnt = {name: p.detach() for group in trainable_groups(model).values() for name, p in group.items()}
    save_adapter(PolicyAdapter(model.causal_lm, "causal_lm.", str(tmp_path), None).adapter(learnt, 1), tmp_path / "a")
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tmp_path), str(tmp_path / "a"))
    torch.testing.assert_close(plain(loaded), trained, rtol=0, atol=2e-5)


@pytest.mark.parametrize("init", ["default", "gaussian"])
def test_other_adapters_are_left_alone(folder: str, init: Any) -> None:
    model = method_of(LoraTuning(rank=4, init=init)).policy(opened_policy(folder), ROLES, 0)
    assert not any(name.endswith(".start") for name, _ in model.named_buffers())
    rows = [p.detach() for name, p in trainable_groups(model)["policy"].items() if "lora_A" in name]
    # A normal of 1 / rank, or PEFT's default, uniform in +-1 / sqrt(in).
    assert (max(float(row.abs().max()) for row in rows) > 0.5) == (init == "gaussian")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_dora_begins_as_its_base_in_every_dtype(folder: str, dtype: Any) -> None:
    opened = opened_policy(folder)
    opened = type(opened)(type(opened.ref)(folder, "policy.model", dtype=dtype), opened.source, opened.config)
    model = method_of(LoraTuning(rank=4, use_dora=True)).policy(opened, ROLES, 0)
    assert torch.equal(response(model, "policy"), response(model, "reference"))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(response(model, "policy"), response(model, "reference"))
    # A, B and a length of each output of 7 matrices in 2 layers.
    assert len(trainable_groups(model)["policy"]) == 42
