"""A policy, its reference and its critic on one base of 4 bits, against plain transformers and PEFT on the same."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from plumbob.configs.settings.tuning.adapters import AdaLoraTuning, LoraTuning
from plumbob.configs.settings.tuning.quantization import Nf4Quantization
from plumbob.models.adapter import ModelRole, save_adapter
from plumbob.models.policy import PolicyModel
from plumbob.models.quantization.forms import round_weights
from plumbob.models.tuning.methods import method_of
from plumbob.models.tuning.peft_adapters import published_adapter
from plumbob.models.tuning.roles import add_teachers, trainable_groups
from tests.support.opened_models import opened_policy
from tests.support.role_logprobs import ACTIONS, IDS, MASK, TEMPERATURE, response
from tests.support.tiny_policy import make_adapter, write_policy

ROLES: tuple[ModelRole, ...] = ("policy", "reference", "value")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_policy(tmp_path_factory.mktemp("policy"))


@pytest.fixture(scope="module")
def adapter_folder(folder: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("adapter")
    save_adapter(make_adapter(folder, 0, seed=5), path)
    return path


def build(folder: str, settings: Nf4Quantization, adapter: Path | None = None) -> PolicyModel:
    return method_of(LoraTuning(rank=3, alpha=6.0)).policy(opened_policy(folder, adapter, settings), ROLES, 0)


def plain_base(folder: str, settings: Nf4Quantization) -> Any:
    """As anybody loads it. In training mode, without dropout: see what an evaluation would do to it in `nf4.py`."""
    config = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=settings.double_quantization
    )
    return AutoModelForCausalLM.from_pretrained(folder, quantization_config=config, dtype=torch.float32).train()


def plain_logprobs(model: Any) -> Tensor:
    logprobs = torch.log_softmax(model.train()(input_ids=IDS).logits[:, :-1] / TEMPERATURE, dim=-1)
    chosen = logprobs.gather(-1, IDS[:, 1:, None])[..., 0]
    return torch.where(ACTIONS, nn.functional.pad(chosen, (1, 0)), 0.0)


@pytest.mark.parametrize("double_quantization", [True, False])
def test_roles_on_a_base_in_4_bits(folder: str, adapter_folder: Path, double_quantization: bool) -> None:
    settings = Nf4Quantization(double_quantization=double_quantization)
    plain = plain_base(folder, settings)
    model = build(folder, settings)
    reference = response(model, "reference")
    with torch.no_grad():
        torch.testing.assert_close(reference, plain_logprobs(plain), rtol=0, atol=1e-5)
        adapted = plain_logprobs(PeftModel.from_pretrained(plain, str(adapter_folder)))
    # Invariant 1, to the bit.
    assert torch.equal(response(model, "policy"), reference)
    assert response(model, "value")[ACTIONS].abs().min() > 0
    begun = build(folder, settings, adapter_folder)
    torch.testing.assert_close(response(begun, "reference"), adapted, rtol=0, atol=1e-5)
    assert torch.equal(response(begun, "policy"), response(begun, "reference"))
    # It is another model than the one that is stored.
    stored = method_of(LoraTuning(rank=3)).policy(opened_policy(folder), ROLES, 0)
    assert (response(stored, "reference") - reference).abs().max() > 0.05


def test_a_teacher_in_4_bits_grades_as_the_floats_that_they_are(folder: str) -> None:
    settings = Nf4Quantization()
    model = method_of(LoraTuning(rank=3)).policy(opened_policy(folder), ROLES, 0)
    add_teachers(model, [opened_policy(folder, None, settings)])
    floats = AutoModelForCausalLM.from_pretrained(folder)
    round_weights(floats, settings)
    with torch.no_grad(), model.role("teacher"):
        graded = model(IDS, MASK, ACTIONS, TEMPERATURE, torch.zeros(len(IDS), dtype=torch.int64))
        torch.testing.assert_close(graded, plain_logprobs(floats), rtol=0, atol=1e-5)


def test_adalora_stands_beside_4_bits(folder: str) -> None:
    settings = Nf4Quantization()
    model = method_of(AdaLoraTuning(rank=2)).policy(opened_policy(folder, None, settings), ("policy", "reference"), 0)
    reference = response(model, "reference")
    assert torch.equal(response(model, "policy"), reference)
    model.train()
    with model.role("policy"):
        model(IDS, MASK, ACTIONS, TEMPERATURE).sum().backward()
    factors = [one.grad for name, one in model.named_parameters() if ".lora_E." in name]
    assert len(factors) == 14 and all(grad is not None and grad.abs().min() > 0 for grad in factors)


def test_gradients_are_those_of_plain_peft(folder: str, adapter_folder: Path) -> None:
    settings = Nf4Quantization()
    model = build(folder, settings, adapter_folder)
    groups = trainable_groups(model)
    assert {name: len(group) for name, group in groups.items()} == {"policy": 28, "value": 29}
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {n for g in groups.values() for n in g}
    response(model, "reference")  # An evaluation between.
    model.train()
    with model.role("policy"):
        model(IDS, MASK, ACTIONS, TEMPERATURE).sum().backward()
    plain = PeftModel.from_pretrained(plain_base(folder, settings), str(adapter_folder), is_trainable=True)
    plain_logprobs(plain).sum().backward()
    expected = {name: p.grad for name, p in plain.named_parameters() if p.requires_grad}
    assert len(expected) == 28
    for name, gradient in expected.items():
        found = groups["policy"][f"causal_lm.{name.replace('.default.', '.policy.')}"].grad
        assert found is not None and gradient is not None
        torch.testing.assert_close(found, gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max()))


def test_prompts_are_shared_and_the_head_is_one_product(folder: str) -> None:
    model = build(folder, Nf4Quantization())
    assert model.vocabulary is not None and model.vocabulary._is_frozen_matrix()
    assert model.shares_prompts
    generator = torch.Generator().manual_seed(4)
    ids = torch.randint(2, 280, (1, 12), generator=generator).expand(4, 12).clone()
    ids[:, 9:] = torch.randint(2, 280, (4, 3), generator=generator)
    mask, asked = torch.ones_like(ids, dtype=torch.bool), torch.arange(12).expand(4, 12) >= 9
    with model.eval().role("policy"), torch.no_grad():
        together = model(ids, mask, asked, TEMPERATURE)
        alone = torch.cat([model(ids[i : i + 1], mask[:1], asked[:1], TEMPERATURE) for i in range(4)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


def test_the_adapter_loads_on_the_base_that_it_names(folder: str, adapter_folder: Path, tmp_path: Path) -> None:
    model = build(folder, Nf4Quantization(), adapter_folder)
    own = {name.removeprefix("causal_lm."): p.detach() for name, p in trainable_groups(model)["policy"].items()}
    published = published_adapter(model.causal_lm, "policy", folder, own, 0)
    assert published.config["base_model_name_or_path"] == folder
    assert not any("quant" in name and value for name, value in published.config.items())
    save_adapter(published, tmp_path)
    # On the weights as they are stored: the very adapter that training began from.
    base = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        found = plain_logprobs(PeftModel.from_pretrained(base, str(tmp_path)))
        base = AutoModelForCausalLM.from_pretrained(folder)
        expected = plain_logprobs(PeftModel.from_pretrained(base, str(adapter_folder)))
    assert torch.equal(found, expected)


def test_products_in_bfloat16(folder: str) -> None:
    """float32 everywhere but in the products with 4-bit weights."""
    exact, coarse = (build(folder, Nf4Quantization(compute_dtype=kind)) for kind in (None, "bfloat16"))
    gap = (response(exact, "policy") - response(coarse, "policy")).abs().max()
    assert 1e-4 < gap < 0.3
    assert torch.equal(response(coarse, "policy"), response(coarse, "reference"))
    assert coarse.shares_prompts
