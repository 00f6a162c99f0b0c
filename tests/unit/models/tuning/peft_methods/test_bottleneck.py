"""Bottleneck adapters: behind which layers, what they compute and are made of, and what is refused."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GPTNeoConfig, OPTConfig

from plumbob.configs.settings.models import AlignedPolicySettings, NewLlamaSettings
from plumbob.configs.settings.tuning.adapters import BottleneckActivation, BottleneckTuning
from plumbob.configs.settings.tuning.quantization import Nf4Quantization
from plumbob.configs.settings.workers import LearnerSettings, TransformersEngine, VllmEngine
from plumbob.core.errors import UserError
from plumbob.models.adapter import CONFIG_FILE, ModelRole
from plumbob.models.policy import PolicyModel
from plumbob.models.sizes.adapter_size import AdapterSize
from plumbob.models.tuning.adapter_support import WHAT_PEFT_LOADS
from plumbob.models.tuning.layers.bottleneck_layers import BottleneckConfig, register_bottleneck
from plumbob.models.tuning.methods import PEFT_KINDS, check_served, method_of, open_tunable
from plumbob.models.tuning.peft_methods.bottleneck import block_ends
from plumbob.models.tuning.roles import trainable_groups
from plumbob.rollout.samplers.open_sampler import support_of
from tests.support.carried_adapters import base_of, check_carried, move, trained_with_peft
from tests.support.opened_models import opened_policy
from tests.support.role_logprobs import plain, response
from tests.support.tiny_policy import write_gpt2, write_policy

ROLES: tuple[ModelRole, ...] = ("policy", "reference", "value")
HOULSBY, PFEIFFER = BottleneckTuning(width=5), BottleneckTuning(width=5, placement="pfeiffer")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_policy(tmp_path_factory.mktemp("policy"))


@pytest.fixture
def given(folder: str, tmp_path: Path) -> Path:
    """An adapter that was trained."""
    register_bottleneck()
    trained_with_peft(folder, tmp_path, bottleneck())
    return tmp_path


def bottleneck(**config: Any) -> BottleneckConfig:
    asked = {"target_modules": ["self_attn.o_proj", "mlp.down_proj"], "width": 5, "task_type": "CAUSAL_LM"} | config
    return BottleneckConfig(**asked)


def policy_of(folder: str | Path, tuning: BottleneckTuning) -> PolicyModel:
    return method_of(tuning).policy(opened_policy(folder), ROLES, 0)


def places(model: PolicyModel) -> dict[str, tuple[int, ...]]:
    """Name -> shape, of what the policy trains in the first layer."""
    group = trainable_groups(model)["policy"]
    return {name.partition(".0.")[2]: tuple(parameter.shape) for name, parameter in group.items() if ".0." in name}


def behind(place: str, num_outputs: int) -> dict[str, tuple[int, ...]]:
    return {
        f"{place}.bottleneck_down.policy.weight": (5, num_outputs),
        f"{place}.bottleneck_down.policy.bias": (5,),
        f"{place}.bottleneck_up.policy.weight": (num_outputs, 5),
        f"{place}.bottleneck_up.policy.bias": (num_outputs,),
    }


def test_they_stand_behind_the_last_layer_of_each_block(folder: str, tmp_path: Path) -> None:
    assert places(policy_of(folder, HOULSBY)) == behind("self_attn.o_proj", 128) | behind("mlp.down_proj", 128)
    assert places(policy_of(folder, PFEIFFER)) == behind("mlp.down_proj", 128)
    gpt2 = write_gpt2(tmp_path)
    assert places(policy_of(gpt2, HOULSBY)) == behind("attn.c_proj", 32) | behind("mlp.c_proj", 32)
    assert places(policy_of(gpt2, PFEIFFER)) == behind("mlp.c_proj", 32)


def test_numbers_are_counted(folder: str, tmp_path: Path) -> None:
    # Of outputs d = 128 and width m = 5: two matrices and two biases, 2 d m + m + d, twice or once in each of 2 layers.
    one = 2 * 128 * 5 + 5 + 128
    for tuning, number in ((HOULSBY, 4 * one), (PFEIFFER, 2 * one)):
        assert method_of(tuning).size(opened_policy(folder).empty(AutoModelForCausalLM)) == AdapterSize(number)
        group = trainable_groups(policy_of(folder, tuning))["policy"]
        assert sum(parameter.numel() for parameter in group.values()) == number
    gpt2 = opened_policy(write_gpt2(tmp_path)).empty(AutoModelForCausalLM)
    assert method_of(HOULSBY).size(gpt2) == AdapterSize(4 * (2 * 32 * 5 + 5 + 32))


def silu(x: Tensor) -> Tensor:
    return x / (1 + (-x).exp())


def gelu(x: Tensor) -> Tensor:
    return x * (1 + torch.erf(x / 2**0.5)) / 2


FORMULAS: tuple[tuple[BottleneckActivation, Any], ...] = (
    ("relu", lambda x: x.clamp(min=0)),
    ("gelu", gelu),
    ("silu", silu),
)


@pytest.mark.parametrize(("activation", "formula"), FORMULAS, ids=[name for name, _ in FORMULAS])
def test_they_compute_their_formula(folder: str, activation: BottleneckActivation, formula: Any) -> None:
    """h + W_up f(W_down h + b_down) + b_up on what each last layer of a plain model puts out."""
    model = policy_of(folder, BottleneckTuning(width=5, activation=activation))
    assert torch.equal(response(model, "policy"), response(model, "reference"))
    group = trainable_groups(model)["policy"]
    move(model, group)
    expected = base_of(folder)

    def change(place: str) -> Any:
        def hook(_module: Any, _inputs: Any, h: Tensor) -> Tensor:
            start = f"causal_lm.base_model.model.{place}.bottleneck"
            down, down_bias, up, up_bias = (
                group[f"{start}_{side}.policy.{kind}"] for side in ("down", "up") for kind in ("weight", "bias")
            )
            return h + formula(h @ down.T + down_bias) @ up.T + up_bias

        return hook

    for name, module in expected.named_modules():
        if name.endswith(("o_proj", "down_proj")):
            module.register_forward_hook(change(name))
    found = response(model, "policy")
    torch.testing.assert_close(found, plain(expected), rtol=0, atol=1e-5)
    with pytest.raises(NotImplementedError, match="no weights compute the same as a bottleneck adapter"):
        model.causal_lm.merge_and_unload()
    assert (found - response(model, "reference")).abs().max() > 0.02


def test_gpt2_begins_as_its_reference_and_moves(tmp_path: Path) -> None:
    model = policy_of(write_gpt2(tmp_path), HOULSBY)
    reference = response(model, "reference")
    assert torch.equal(response(model, "policy"), reference)
    move(model, trainable_groups(model)["policy"])
    assert (response(model, "policy") - reference).abs().max() > 0.01
    assert torch.equal(response(model, "reference"), reference)


def test_on_a_base_in_bfloat16(folder: str) -> None:
    opened = opened_policy(folder)
    base = opened.empty(AutoModelForCausalLM)
    assert block_ends(base, PFEIFFER) == ("mlp.down_proj",)
    policy = AlignedPolicySettings(model=folder, dtype="bfloat16", tuning=HOULSBY)
    model = method_of(HOULSBY).policy(open_tunable(policy, ROLES), ROLES, 0)
    assert torch.equal(response(model, "policy"), response(model, "reference"))
    group = trainable_groups(model)["policy"]
    assert {parameter.dtype for parameter in group.values()} == {torch.float32}
    layers = [one for one in model.causal_lm.modules() if isinstance(one, nn.Linear) and one.weight.shape == (128, 128)]
    assert {layer.weight.dtype for layer in layers} == {torch.bfloat16}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("config", [{}, {"target_modules": ["mlp.down_proj"], "width": 3, "activation": "relu"}])
def test_a_given_adapter_is_what_peft_computes(folder: str, tmp_path: Path, config: dict[str, Any]) -> None:
    register_bottleneck()
    check_carried(folder, tmp_path, bottleneck(**config), BottleneckTuning())


def test_every_field_of_the_config_has_its_line() -> None:
    assert {field.name for field in fields(BottleneckConfig)} == PEFT_KINDS["BOTTLENECK"].fields.keys()


@pytest.mark.parametrize(
    ("changed", "wanted"),
    [
        (
            {"activation": "tanh"},
            r"activation=tanh, which training cannot carry; train it with one of relu, gelu, silu",
        ),
        ({"width": 0}, r"width is 0, and must be a whole number from 1"),
        ({"width": "wide"}, r'width is "wide", and must be a whole number from 1 to 65,536'),
        ({"layers_to_transform": [1]}, r"says layers_to_transform=\[1\], which is not known here"),
    ],
)
def test_what_nobody_can_carry(given: Path, changed: dict[str, Any], wanted: str) -> None:
    file = given / CONFIG_FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | changed))
    with pytest.raises(UserError, match=wanted):
        open_tunable(AlignedPolicySettings(model=str(given)), ROLES)


def test_vllm_computes_none_of_them(folder: str, given: Path) -> None:
    opened = opened_policy(folder)
    method_of(HOULSBY).check(opened, "policy.tuning", ROLES, support_of(TransformersEngine()))
    check_served(opened_policy(folder, given), support_of(TransformersEngine()), ROLES)
    for serving in ("lora", "merged"):
        support = support_of(VllmEngine(), serving)
        wanted = r"^policy\.tuning\.kind=bottleneck: vLLM computes .*; set rollout\.engine\.kind=transformers$"
        with pytest.raises(UserError, match=wanted):
            method_of(HOULSBY).check(opened, "policy.tuning", ROLES, support)
        with pytest.raises(UserError, match=wanted):
            method_of(HOULSBY).check_new(NewLlamaSettings(), "policy.tuning", support)
        wanted = r"peft_type=BOTTLENECK, which vLLM cannot carry; set rollout\.engine\.kind=transformers, or train LoRA"
        with pytest.raises(UserError, match=wanted):
            check_served(opened_policy(folder, given), support, ROLES)


def test_models_whose_blocks_are_not_known(tmp_path: Path) -> None:
    OPTConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, ffn_dim=32).save_pretrained(
        tmp_path
    )
    method_of(HOULSBY).check(opened_policy(tmp_path), "policy.tuning", ROLES, WHAT_PEFT_LOADS)
    sizes = {"hidden_size": 16, "num_layers": 2, "num_heads": 2, "attention_types": [[["global"], 2]]}
    GPTNeoConfig(vocab_size=50, max_position_embeddings=16, **sizes).save_pretrained(tmp_path)
    wanted = r"^policy\.tuning\.kind=bottleneck: what the last layers of .* is not known; set policy\.tuning\.kind=lora"
    with pytest.raises(UserError, match=wanted):
        method_of(HOULSBY).check(opened_policy(tmp_path), "policy.tuning", ROLES, WHAT_PEFT_LOADS)


def test_on_a_base_in_4_bits(folder: str, given: Path) -> None:
    settings = AlignedPolicySettings(model=folder, tuning=HOULSBY, quantization=Nf4Quantization())
    model = method_of(HOULSBY).policy(open_tunable(settings, ROLES), ROLES, 0)
    reference = response(model, "reference")
    assert torch.equal(response(model, "policy"), reference)
    move(model, trainable_groups(model)["policy"])
    trained = response(model, "policy")
    assert (trained - reference).abs().max() > 0.02 and torch.equal(response(model, "reference"), reference)
    # The same adapter on the weights as they are stored computes something else.
    plain_model = policy_of(folder, HOULSBY)
    move(plain_model, trainable_groups(plain_model)["policy"])
    assert (trained - response(plain_model, "policy")).abs().max() > 0.01
    settings = AlignedPolicySettings(model=str(given), quantization=Nf4Quantization())
    opened = open_tunable(settings, ROLES, LearnerSettings(zero_stage=3))
    assert method_of(settings.tuning).policy(opened, ROLES, 0).adapters["reference"] == "reference"
