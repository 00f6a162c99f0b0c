"""What a stage begins with: the reference, the policy as its equal, and what is trained."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from plumbob.configs.settings.tuning.adapters import LoraTuning
from plumbob.models.adapter import ModelRole, load_adapter, save_adapter
from plumbob.models.loading import OpenedPolicy
from plumbob.models.policy import PolicyModel
from plumbob.models.resolution import served_rank
from plumbob.models.tuning.methods import method_of
from plumbob.models.tuning.peft_adapters import add_adapters, is_adapter_parameter
from plumbob.models.tuning.roles import frozen_reference, trainable_groups
from tests.support.opened_models import opened_policy
from tests.support.role_logprobs import ACTIONS, IDS, MASK, plain, response
from tests.support.tiny_policy import make_adapter, write_policy

ROLES: tuple[ModelRole, ...] = ("policy", "reference", "value")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_policy(tmp_path_factory.mktemp("policy"))


@pytest.fixture(scope="module")
def adapter_folder(folder: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What supervised fine-tuning with LoRA leaves: rank 4, alpha 10, not zero."""
    path = tmp_path_factory.mktemp("adapter")
    save_adapter(make_adapter(folder, 0, seed=5), path)
    return path


def build(opened: OpenedPolicy, roles: tuple[ModelRole, ...] = ROLES, seed: int = 0, rank: int = 3) -> PolicyModel:
    return method_of(LoraTuning(rank=rank, alpha=6.0)).policy(opened, roles, seed)


def test_from_a_full_model_the_reference_is_the_base_and_the_policy_its_equal(folder: str) -> None:
    model = build(opened_policy(folder))
    reference = response(model, "reference")
    torch.testing.assert_close(reference, plain(AutoModelForCausalLM.from_pretrained(folder)), rtol=0, atol=1e-5)
    # Invariant 1: before the first update every log-ratio is exactly 0.
    assert torch.equal(response(model, "policy"), reference)
    assert model.adapters == {"policy": "policy", "reference": None, "value": "value"}


def test_from_an_adapter_the_reference_is_the_adapted_model_and_not_the_raw_base(
    folder: str, adapter_folder: Path
) -> None:
    model = build(opened_policy(folder, adapter_folder))
    base = AutoModelForCausalLM.from_pretrained(folder)
    raw = plain(base)
    adapted = plain(PeftModel.from_pretrained(base, str(adapter_folder)))
    reference = response(model, "reference")
    torch.testing.assert_close(reference, adapted, rtol=0, atol=1e-5)
    assert (reference - raw).abs().max() > 0.05
    assert torch.equal(response(model, "policy"), reference)
    # Rank, scale and targets are the adapter's own (4 and 10 / 4), whatever the settings say.
    shapes = {tuple(p.shape) for name, p in trainable_groups(model)["policy"].items() if "lora_A" in name}
    assert {shape[0] for shape in shapes} == {4}
    # Training the policy leaves the reference where it was.
    with torch.no_grad():
        for parameter in trainable_groups(model)["policy"].values():
            parameter.add_(0.1)
    assert torch.equal(response(model, "reference"), reference)
    assert not torch.equal(response(model, "policy"), reference)


@pytest.mark.parametrize("is_adapter", [False, True])
def test_only_the_learning_roles_are_trainable(folder: str, adapter_folder: Path, is_adapter: bool) -> None:
    model = build(opened_policy(folder, adapter_folder if is_adapter else None))
    groups = trainable_groups(model)
    # 2 layers x (q, k, v, o, gate, up, down) x (A, B) = 28; the critic has its head beside them.
    assert {name: len(group) for name, group in groups.items()} == {"policy": 28, "value": 29}
    assert all(".policy." in name for name in groups["policy"])
    assert sorted(name for name in groups["value"] if ".value." not in name) == ["value_head.weight"]
    learnt = {name for group in groups.values() for name in group}
    assert {name for name, p in model.named_parameters() if p.requires_grad} == learnt


def test_the_seed_decides_new_adapters(folder: str) -> None:
    first, again, other = (
        trainable_groups(build(opened_policy(folder), ("policy",), seed))["policy"] for seed in (1, 1, 2)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_a_stage_without_a_critic_has_no_head(folder: str) -> None:
    model = build(opened_policy(folder), ("policy", "reference"))
    assert model.value_head is None and set(trainable_groups(model)) == {"policy"}


def test_a_frozen_reference_answers_as_what_it_was_given(folder: str, adapter_folder: Path) -> None:
    whole = frozen_reference(opened_policy(folder))
    adapted = frozen_reference(opened_policy(folder, adapter_folder))
    base = AutoModelForCausalLM.from_pretrained(folder)
    torch.testing.assert_close(response(whole, "reference"), plain(base), rtol=0, atol=1e-5)
    expected = plain(PeftModel.from_pretrained(base, str(adapter_folder)))
    torch.testing.assert_close(response(adapted, "reference"), expected, rtol=0, atol=1e-5)
    assert not any(p.requires_grad for model in (whole, adapted) for p in model.parameters())


def test_the_rank_that_a_sampler_must_hold(folder: str, adapter_folder: Path) -> None:
    assert served_rank(opened_policy(folder).source, new_rank=7) == 7
    assert served_rank(opened_policy(folder, adapter_folder).source, new_rank=7) == 4
    assert served_rank(opened_policy(folder).source, new_rank=0) == 0  # A model that is sampled as it is.


def test_the_largest_rank_of_an_adapter_counts(folder: str, tmp_path: Path) -> None:
    adapter = make_adapter(folder, 0, seed=5)
    for ranks, largest in (({"layers.1.self_attn.q_proj": 24, "v_proj": 2}, 24), ({"v_proj": 2}, 4), (None, 4)):
        save_adapter(replace(adapter, config={**adapter.config, "rank_pattern": ranks}), tmp_path)
        assert served_rank(opened_policy(folder, tmp_path).source, new_rank=7) == largest


def test_an_adapter_folder_reads_back_as_written(folder: str, tmp_path: Path) -> None:
    adapter = make_adapter(folder, 3, seed=9)
    save_adapter(adapter, tmp_path / "new" / "folder")
    found = load_adapter(tmp_path / "new" / "folder", version=3)
    assert found.version == 3 and dict(found.config) == dict(adapter.config)
    assert found.tensors.keys() == adapter.tensors.keys()
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in adapter.tensors.items())


@pytest.fixture(scope="module")
def dropping(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A GPT-2 that drops half of everything while it learns."""
    path = tmp_path_factory.mktemp("gpt2")
    rates = {"resid_pdrop": 0.5, "embd_pdrop": 0.5, "attn_pdrop": 0.5}
    torch.manual_seed(0)
    GPT2LMHeadModel(
        GPT2Config(vocab_size=300, n_positions=16, n_embd=32, n_layer=2, n_head=2, **rates)
    ).save_pretrained(path)
    return str(path)


@pytest.mark.parametrize("roles", [("policy", "reference"), ROLES])
@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
def test_the_first_ratio_is_one_on_a_base_with_dropout(dropping: str, roles: tuple[ModelRole, ...]) -> None:
    model = build(opened_policy(dropping), roles)
    old = response(model, "policy")
    model.train()
    with model.role("policy"):
        learning = model(IDS, MASK, ACTIONS, 0.8)
        learning.sum().backward()
    # PPO's ratio is exp(learning - old); DPO's margin is a difference of such differences.
    assert torch.equal((learning - old).exp(), torch.ones_like(old))
    assert torch.equal(learning, response(model, "reference"))


@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
def test_without_a_reference_the_bases_dropout_stays(dropping: str) -> None:
    model = build(opened_policy(dropping), ("policy",))
    old = response(model, "policy")
    model.train()
    with model.role("policy"), torch.no_grad():
        assert not torch.equal(model(IDS, MASK, ACTIONS, 0.8), old)


def test_an_adapters_dropout_is_off_beside_a_reference(folder: str, tmp_path: Path) -> None:
    adapter = make_adapter(folder, 0, seed=5)
    save_adapter(replace(adapter, config={**adapter.config, "lora_dropout": 0.5}), tmp_path)
    model = build(opened_policy(folder, tmp_path))
    old = response(model, "policy")
    model.train()
    with model.role("policy"), torch.no_grad():
        assert torch.equal(model(IDS, MASK, ACTIONS, 0.8), old)


class Named(torch.nn.Module):
    """A base whose layer has the name of a role."""

    def __init__(self) -> None:
        super().__init__()
        self.value = torch.nn.Linear(3, 3)


def test_a_module_of_the_base_may_have_a_roles_name() -> None:
    adapters = add_adapters(Named(), LoraConfig(r=2, target_modules=["value"]), ("policy", "value"))
    groups = trainable_groups(PolicyModel(adapters, {"policy": "policy", "value": "value"}))
    ends = {name: sorted(".".join(p.split(".")[-3:]) for p in group) for name, group in groups.items()}
    assert ends == {role: [f"lora_A.{role}.weight", f"lora_B.{role}.weight"] for role in ("policy", "value")}
    assert not is_adapter_parameter("model.value.base_layer.weight", "value", "lora_")
    assert is_adapter_parameter("embed.lora_embedding_A.value", "value", "lora_")
