"""(IA)³ and VeRA: what they are put on, what they are made of, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GPTNeoConfig, OPTConfig

from plumbob.configs.settings.models import AlignedPolicySettings, NewLlamaSettings
from plumbob.configs.settings.tuning.adapters import Ia3Tuning, VeraTuning
from plumbob.configs.settings.tuning.quantization import Nf4Quantization
from plumbob.configs.settings.workers import TransformersEngine, VllmEngine
from plumbob.core.errors import UserError
from plumbob.models.adapter import ModelRole, save_adapter
from plumbob.models.loading import open_policy
from plumbob.models.sizes.adapter_size import AdapterSize
from plumbob.models.tuning.adapter_support import WHAT_PEFT_LOADS
from plumbob.models.tuning.methods import check_tunable, method_of, open_tunable
from plumbob.models.tuning.roles import trainable_groups
from plumbob.rollout.samplers.open_sampler import support_of
from plumbob.trainers.learner.export import PolicyAdapter
from tests.support.opened_models import opened_policy
from tests.support.tiny_policy import write_gpt2, write_policy

ROLES: tuple[ModelRole, ...] = ("policy", "reference", "value")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_policy(tmp_path_factory.mktemp("policy"))


def named(folder: str, tuning: Any) -> dict[str, tuple[int, ...]]:
    """Name -> shape, of what the policy trains in the first layer."""
    model = method_of(tuning).policy(opened_policy(folder), ROLES, 0)
    group = trainable_groups(model)["policy"]
    return {
        name.partition(".layers.0.")[2]: tuple(parameter.shape) for name, parameter in group.items() if ".0." in name
    }


def test_ia3_scales_keys_values_and_what_goes_into_the_last_of_the_feedforward(folder: str) -> None:
    assert named(folder, Ia3Tuning()) == {
        "self_attn.k_proj.ia3_l.policy": (64, 1),
        "self_attn.v_proj.ia3_l.policy": (64, 1),
        "mlp.down_proj.ia3_l.policy": (1, 256),
    }
    assert named(folder, Ia3Tuning(targets=("q_proj",), feedforward=("o_proj",))) == {
        "self_attn.q_proj.ia3_l.policy": (128, 1),
        "self_attn.o_proj.ia3_l.policy": (1, 128),
    }


def test_vera_trains_two_vectors_of_each_target(folder: str) -> None:
    assert named(folder, VeraTuning(rank=5, targets=("v_proj", "down_proj"))) == {
        "self_attn.v_proj.vera_lambda_b.policy": (64,),
        "self_attn.v_proj.vera_lambda_d.policy": (5,),
        "mlp.down_proj.vera_lambda_b.policy": (128,),
        "mlp.down_proj.vera_lambda_d.policy": (5,),
    }


@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
@pytest.mark.parametrize("tuning", [Ia3Tuning(), VeraTuning(rank=4)], ids=lambda tuning: tuning.kind)
def test_gpt2_too(tmp_path: Path, tuning: Any) -> None:
    write_gpt2(tmp_path)
    opened = opened_policy(tmp_path)
    model = method_of(tuning).policy(opened, ROLES, 0)
    num_trained = sum(parameter.numel() for parameter in trainable_groups(model)["policy"].values())
    assert method_of(tuning).size(opened.empty(AutoModelForCausalLM)).num_trained == num_trained
    # (IA)³: 3 x 32 outputs of c_attn, 4 x 32 inputs of the feed-forward's c_proj.
    assert tuning.kind != "ia3" or num_trained == 2 * (96 + 128)


def test_what_they_are_made_of_is_counted(folder: str) -> None:
    model = opened_policy(folder).empty(AutoModelForCausalLM)
    # Two layers of 64 keys, 64 values and 256 inner numbers.
    assert method_of(Ia3Tuning()).size(model) == AdapterSize(2 * (64 + 64 + 256))
    # Vectors of rank 5 and of as many outputs; matrices from at most 256 inputs and to at most 128 outputs.
    tuning = VeraTuning(rank=5, targets=("v_proj", "down_proj"))
    assert method_of(tuning).size(model) == AdapterSize(2 * (5 + 64 + 5 + 128), num_shared=5 * (256 + 128))


def test_what_vera_shares_is_published_once(folder: str, tmp_path: Path) -> None:
    model = method_of(VeraTuning(rank=5, targets=("v_proj",))).policy(opened_policy(folder), ROLES, 3)
    learnt = {name: p.detach() for group in trainable_groups(model).values() for name, p in group.items()}
    adapter = PolicyAdapter(model.causal_lm, "causal_lm.", folder, None).policy_weights(learnt, 1)
    shared = {name: tuple(tensor.shape) for name, tensor in adapter.tensors.items() if ".layers." not in name}
    assert shared == {"base_model.vera_A": (5, 128), "base_model.vera_B": (64, 5)}
    # The run's seed draws them.
    assert adapter.config["projection_prng_key"] == 3 and len(adapter.tensors) == 2 + 2 * 2
    save_adapter(adapter, tmp_path)
    again = method_of(VeraTuning()).policy(open_policy(AlignedPolicySettings(model=str(tmp_path)).ref), ROLES, 0)
    assert torch.equal(again.causal_lm.base_model.vera_A["policy"], adapter.tensors["base_model.vera_A"])


@pytest.mark.parametrize(
    ("tuning", "wanted"),
    [
        (
            Ia3Tuning(targets=("nope",)),
            r"^policy\.tuning\.targets: nope is no module in .*; choose among down_proj, gate_proj, .*v_proj$",
        ),
        (
            Ia3Tuning(feedforward=("embed_tokens",)),
            r"^policy\.tuning\.feedforward: embed_tokens \(Embedding\) is no linear layer in ",
        ),
        (
            Ia3Tuning(targets=("k_proj",), feedforward=("self_attn.k_proj",)),
            r"^policy\.tuning\.targets and policy\.tuning\.feedforward both name model\.layers\.0\.self_attn\.k_proj",
        ),
        (
            VeraTuning(targets=("embed_tokens",)),
            r"^policy\.tuning\.targets: embed_tokens \(Embedding\) is no linear layer in .*=all-linear$",
        ),
    ],
)
def test_targets_that_cannot_be(folder: str, tuning: Any, wanted: str) -> None:
    policy = AlignedPolicySettings(model=folder, tuning=tuning)
    with pytest.raises(UserError, match=wanted):
        open_tunable(policy, ROLES)
    with pytest.raises(UserError, match=wanted.split(" in ")[0]):
        method_of(tuning).check_new(NewLlamaSettings(), "policy.tuning", WHAT_PEFT_LOADS)


def test_modules_whose_names_are_not_known(tmp_path: Path) -> None:
    OPTConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, ffn_dim=32).save_pretrained(
        tmp_path
    )
    opened = opened_policy(tmp_path)
    method_of(Ia3Tuning()).check(opened, "policy.tuning", ROLES, WHAT_PEFT_LOADS)
    sizes = {"hidden_size": 16, "num_layers": 2, "num_heads": 2, "attention_types": [[["global"], 2]]}
    GPTNeoConfig(vocab_size=50, max_position_embeddings=16, **sizes).save_pretrained(tmp_path)
    wanted = r"kind=ia3: what keys, values and feed-forward are called in .* is not known; name the modules in policy\."
    with pytest.raises(UserError, match=wanted):
        method_of(Ia3Tuning()).check(opened_policy(tmp_path), "policy.tuning", ROLES, WHAT_PEFT_LOADS)


@pytest.mark.parametrize("tuning", [Ia3Tuning(), VeraTuning()], ids=lambda tuning: tuning.kind)
def test_vllm_merges_them(folder: str, tuning: Any) -> None:
    policy = AlignedPolicySettings(model=folder, tuning=tuning)
    for support in (support_of(VllmEngine(), "merged"), support_of(TransformersEngine())):
        check_tunable(open_policy(policy.ref), policy, ROLES, support)
    wanted = rf"^policy\.tuning\.kind={tuning.kind}: vLLM computes plain LoRA alone .*; set rollout\.adapter=merged, "
    vllm = support_of(VllmEngine())
    with pytest.raises(UserError, match=wanted):
        check_tunable(open_policy(policy.ref), policy, ROLES, vllm)
    with pytest.raises(UserError, match=wanted):
        method_of(tuning).check_new(NewLlamaSettings(), "policy.tuning", vllm)


def test_an_adapter_that_reads_the_weights_is_not_trained_on_a_base_in_4_bits(folder: str, tmp_path: Path) -> None:
    model = method_of(Ia3Tuning()).policy(opened_policy(folder), ROLES, 0)
    learnt = {name: p.detach() for group in trainable_groups(model).values() for name, p in group.items()}
    save_adapter(PolicyAdapter(model.causal_lm, "causal_lm.", folder, None).policy_weights(learnt, 1), tmp_path)
    policy = AlignedPolicySettings(model=str(tmp_path), quantization=Nf4Quantization())
    wanted = r"is for LoRA, bottleneck adapters and soft prompts, and policy\.model=.* is an adapter of another kind"
    with pytest.raises(UserError, match=wanted):
        open_tunable(policy, ROLES)
