"""Every field of PEFT's LoraConfig, by real adapters: carried by every role and sampler to the digit, or refused."""

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from peft.tuners.lora.config import BdLoraConfig, EvaConfig
from transformers import LlamaConfig, LlamaForCausalLM

from plumbob.configs.settings.models import AlignedPolicySettings
from plumbob.configs.settings.tuning.adapters import LoraTuning
from plumbob.configs.settings.workers import TransformersEngine, VllmEngine
from plumbob.core.errors import UserError
from plumbob.models.adapter import ModelRole
from plumbob.models.loading import open_policy
from plumbob.models.tuning.adapter_fields import CARRIED, NOBODY
from plumbob.models.tuning.lora import LORA
from plumbob.models.tuning.methods import check_served, check_tunable, open_tunable
from plumbob.rollout.samplers.open_sampler import support_of
from tests.support.carried_adapters import check_carried, lora, trained_with_peft
from tests.support.opened_models import opened_policy
from tests.support.tiny_policy import write_policy

ROLES: tuple[ModelRole, ...] = ("policy", "reference", "value")

CARRIED_ONES: tuple[dict[str, Any], ...] = (
    {"r": 3},
    {"lora_alpha": 7},
    {"lora_dropout": 0.5},
    {"target_modules": "all-linear", "exclude_modules": ["o_proj"]},
    {"target_modules": r".*layers\.1\..*q_proj"},
    {"target_modules": ["embed_tokens", "q_proj"]},
    {"layers_to_transform": [1], "layers_pattern": "layers"},
    {"use_rslora": True},
    {"rank_pattern": {"layers.1.self_attn.q_proj": 24}},
    {"alpha_pattern": {"layers.1.self_attn.q_proj": 128}},
    {"fan_in_fan_out": True},
    *({"init_lora_weights": kind} for kind in (True, False, "gaussian", "orthogonal")),
    {"init_lora_weights": "eva", "eva_config": EvaConfig()},
)
"""What a sampler of any kind follows, for each field that says something of its own."""

BY_PEFT_ONES: tuple[dict[str, Any], ...] = (
    {"use_dora": True},
    {"lora_bias": True},
    {"use_bdlora": BdLoraConfig(target_modules_bd_b=["q_proj", "v_proj"], nblocks=2)},
    {"target_modules": ["v_proj"], "target_parameters": ["q_proj.weight"]},
    {"modules_to_save": ["lm_head", "embed_tokens"]},
    {"modules_to_save": ["norm"]},
    {"modules_to_save": ["layers.0.mlp"]},
    {"trainable_token_indices": [3, 4, 5]},
    {"trainable_token_indices": {"embed_tokens": [4], "lm_head": [3]}},
)

BASE_CHANGED = r"save it as plain LoRA where it was trained \(peft's save_pretrained, path_initial_model_for_weight_con"
MERGED = r"merge it into its base first \(peft's merge_and_unload\) and give the result$"
REFUSED_ONES: tuple[tuple[dict[str, Any], str], ...] = (
    *(({"init_lora_weights": kind}, BASE_CHANGED) for kind in ("pissa", "pissa_niter_4", "olora", "corda")),
    ({"init_lora_weights": "loftq"}, r"save the base that LoftQ changed .*; or merge it into its base first"),
    ({"init_lora_weights": "lora_ga"}, BASE_CHANGED),
    ({"init_lora_weights": "a_later_one"}, BASE_CHANGED),
    ({"init_lora_weights": "mica"}, r'write "init_lora_weights": true into its config'),
    *(({"bias": kind}, MERGED) for kind in ("all", "lora_only")),
    ({"ensure_weight_tying": True}, MERGED),
    ({"kasa_config": {"beta": 1e-4}}, MERGED),
    ({"monteclora_config": {"use_entropy": True}}, MERGED),
    ({"velora_config": {"num_groups": 2}}, MERGED),
    ({"use_qalora": True}, MERGED),
    ({"arrow_config": {"top_k": 3}}, "train a LoRA without it$"),
    ({"alora_invocation_tokens": [5, 6]}, "train a LoRA without it$"),
    ({"megatron_config": {"a": 1}}, "train a LoRA without it$"),
    ({"layer_replication": [[0, 2], [1, 2]]}, "repeat the layers in the base itself"),
    ({"task_type": "SEQ_CLS"}, "give an adapter that was trained as a language model"),
)

SAY_NOTHING: Mapping[str, object] = {
    "peft_type": "LORA",
    "auto_mapping": {"base_model_class": "LlamaForCausalLM", "parent_library": "transformers"},
    "peft_version": "0.1.0",
    "base_model_name_or_path": "elsewhere",
    "inference_mode": True,
    "loftq_config": {"loftq_bits": 4},
    "corda_config": {"corda_method": "ipm"},
    "lora_ga_config": {"direction": "ArB2r"},
    "qalora_group_size": 32,
    "megatron_core": "megatron.core",
    "runtime_config": {"ephemeral_gpu_offload": False},
}
"""Carried fields that change nothing about a saved adapter: what it is on, how it began, what counts beside others."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_policy(tmp_path_factory.mktemp("policy"))


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Its embeddings are its head."""
    path = tmp_path_factory.mktemp("tied")
    config = LlamaConfig.from_pretrained(write_policy(path))
    config.tie_word_embeddings = True
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(path)
    return str(path)


def named(change: object) -> str:
    return ",".join(f"{key}={value}" for key, value in change.items())[:50] if isinstance(change, dict) else "-"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("config", [*CARRIED_ONES, *BY_PEFT_ONES], ids=named)
def test_a_carried_field_is_what_plain_peft_computes(folder: str, tmp_path: Path, config: dict[str, Any]) -> None:
    check_carried(folder, tmp_path, lora(**config), LoraTuning())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "config",
    [{"modules_to_save": ["lm_head", "embed_tokens"]}, {"modules_to_save": ["embed_tokens"]}, BY_PEFT_ONES[-2]],
    ids=named,
)
def test_on_a_base_whose_head_is_its_embeddings(tied: str, tmp_path: Path, config: dict[str, Any]) -> None:
    check_carried(tied, tmp_path, lora(**config), LoraTuning())


def test_every_field_of_the_installed_peft_has_its_line_and_its_case() -> None:
    """A field that PEFT gets later is looked at here: carried, with a case above, or refused, with its way out."""
    of_peft = {field.name for field in fields(LoraConfig)}
    assert of_peft - LORA.fields.keys() == set(), "new in PEFT: say in lora.py what becomes of it"
    assert LORA.fields.keys() - of_peft == set(), "no longer in PEFT"
    tried = {name for config in (*CARRIED_ONES, *BY_PEFT_ONES, *(each for each, _ in REFUSED_ONES)) for name in config}
    assert of_peft - tried - SAY_NOTHING.keys() == {"revision"}, "tried by a test of its own"
    for name in SAY_NOTHING:
        assert LORA.fields[name] is CARRIED
    for config, _ in REFUSED_ONES:
        assert {LORA.fields[name].users for name in config} == {NOBODY}


def test_peft_has_no_other_ways_to_begin_or_to_compute() -> None:
    """The values of `init_lora_weights`, and the sub-configs of variants, as PEFT declares them."""
    by_name = {field.name: field for field in fields(LoraConfig)}
    inits = {config["init_lora_weights"] for config, _ in REFUSED_ONES if "init_lora_weights" in config}
    inits |= {config["init_lora_weights"] for config in CARRIED_ONES if "init_lora_weights" in config}
    declared = {word.strip(" ',\n") for word in str(by_name["init_lora_weights"].type).split("'")} - {""}
    words = {word for word in declared if word.isidentifier()} - {"bool", "Literal"}
    assert words - inits == set()
    variants = {name for name, field in by_name.items() if field.metadata.get("is_lora_variant")}
    assert all(LORA.fields[name] is not CARRIED for name in variants)


def edited(folder: str, path: Path, **changes: Any) -> Path:
    """A plain adapter whose config says what it is asked to."""
    trained_with_peft(folder, path, lora())
    config = path / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | changes))
    return path


@pytest.mark.parametrize(("config", "way_out"), REFUSED_ONES, ids=named)
def test_what_nobody_can_carry_is_refused_by_every_stage(
    folder: str, tmp_path: Path, config: dict[str, Any], way_out: str
) -> None:
    path = edited(folder, tmp_path, **config)
    ((name, value),) = config.items()
    shown = value if isinstance(value, str) else json.dumps(value)
    said = f"policy.model={path}: the adapter was trained with {name}={shown}, which "
    policy = AlignedPolicySettings(model=str(path))
    for roles in (("policy",), ("policy", "reference"), ROLES):
        with pytest.raises(UserError, match=way_out) as refused:
            open_tunable(policy, roles)
        assert str(refused.value).startswith(f"{said}training cannot carry; ")
    for engine in (VllmEngine(), TransformersEngine()):
        with pytest.raises(UserError, match=way_out):
            check_served(opened_policy(folder, path), support_of(engine))


@pytest.mark.parametrize("config", BY_PEFT_ONES, ids=named)
def test_what_vllm_does_not_serve_is_refused_for_it_alone(folder: str, tmp_path: Path, config: dict[str, Any]) -> None:
    asked = dict(config)
    targets = asked.pop("target_modules", None)
    ((name, value),) = asked.items()
    path = edited(folder, tmp_path, **{name: vars(value) if isinstance(value, BdLoraConfig) else value})
    policy = AlignedPolicySettings(model=str(path))
    open_tunable(policy, ROLES)
    check_tunable(open_policy(policy.ref), policy, ROLES, support_of(TransformersEngine()))
    assert targets is None or name == "target_parameters"
    merge = r"set rollout\.adapter=merged, or " if name == "use_dora" else ""
    ways = rf"{merge}set rollout\.engine\.kind=transformers, or {MERGED}"
    wanted = rf"trained with {name}=.*, which vLLM cannot carry; {ways}"
    with pytest.raises(UserError, match=wanted):
        check_tunable(open_policy(policy.ref), policy, ROLES, support_of(VllmEngine()))
    with pytest.raises(UserError, match=wanted):
        check_served(opened_policy(folder, path), support_of(VllmEngine()))
    merged = support_of(VllmEngine(), "merged")
    if name == "use_dora":
        check_served(opened_policy(folder, path), merged)
    else:
        with pytest.raises(UserError, match=wanted):
            check_served(opened_policy(folder, path), merged)


@pytest.mark.parametrize(("name", "value"), SAY_NOTHING.items())
def test_what_says_nothing_of_the_weights_passes(folder: str, tmp_path: Path, name: str, value: object) -> None:
    path = edited(folder, tmp_path, **{name: value})
    check_served(opened_policy(folder, path), support_of(VllmEngine()), ROLES)


def test_a_revision_counts_for_a_name_on_the_hub_alone(folder: str, tmp_path: Path) -> None:
    path, vllm = edited(folder, tmp_path, revision="abc123"), support_of(VllmEngine())
    check_served(opened_policy(folder, path), vllm)
    opened = opened_policy(folder, path)
    on_hub = type(opened)(opened.ref, type(opened.source)("some-team/some-model", path), opened.config)
    with pytest.raises(UserError, match=r"trained with revision=abc123, which .* download that revision of the base"):
        check_served(on_hub, vllm)


def test_a_field_of_a_later_peft(folder: str, tmp_path: Path) -> None:
    vllm = support_of(VllmEngine())
    for silent in (None, False, [], {}, 16, "a name"):
        check_served(opened_policy(folder, edited(folder, tmp_path, use_later=silent)), vllm)
    for on in (True, [1], {"a": 1}):
        with pytest.raises(UserError, match=r"adapter_config\.json says use_later=.*, which is not known here; take"):
            check_served(opened_policy(folder, edited(folder, tmp_path, use_later=on)), vllm)
