"""Soft prompts as tuning methods: where they begin, what they are made of, given ones, and what is refused."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftConfig, PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, BloomConfig

from plumbob.configs.settings.models import AlignedPolicySettings, NewLlamaSettings
from plumbob.configs.settings.tuning.adapters import LoraTuning
from plumbob.configs.settings.tuning.any_tuning import AnyPromptTuning
from plumbob.configs.settings.tuning.quantization import Nf4Quantization
from plumbob.configs.settings.tuning.soft_prompts import PrefixTuning, PromptTuning, PTuning
from plumbob.configs.settings.workers import LearnerSettings, TransformersEngine, VllmEngine
from plumbob.core.errors import UserError
from plumbob.models.adapter import CONFIG_FILE, WEIGHTS_FILE
from plumbob.models.forward.soft_prompts import soft_prompts_of
from plumbob.models.loading import open_policy
from plumbob.models.tuning.methods import PEFT_KINDS, check_served, check_tunable, method_of, open_tunable
from plumbob.models.tuning.roles import trainable_groups
from plumbob.rollout.samplers.open_sampler import support_of
from tests.support.carried_adapters import ROLES, check_carried, trained_with_peft
from tests.support.opened_models import opened_policy
from tests.support.role_logprobs import response
from tests.support.tiny_policy import write_gpt2, write_policy

COMMON = {"num_virtual_tokens": 3, "task_type": "CAUSAL_LM"}
CONFIGS: tuple[PeftConfig, ...] = (
    PromptTuningConfig(**COMMON),
    PromptEncoderConfig(encoder_hidden_size=8, **COMMON),
    PrefixTuningConfig(**COMMON),
    PrefixTuningConfig(prefix_projection=True, encoder_hidden_size=8, **COMMON),
)
KINDS: tuple[AnyPromptTuning, ...] = (
    PromptTuning(num_virtual_tokens=3),
    PTuning(num_virtual_tokens=3),
    PTuning(num_virtual_tokens=3, encoder="lstm", hidden_size=8),
    PrefixTuning(num_virtual_tokens=3),
    PrefixTuning(num_virtual_tokens=3, projection=True),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_policy(tmp_path_factory.mktemp("policy"))


def vectors_of(folder: str, tuning: AnyPromptTuning, role: str = "policy") -> torch.Tensor:
    prompts = soft_prompts_of(method_of(tuning).policy(opened_policy(folder), ROLES, 0).causal_lm)
    assert prompts is not None
    return prompts.vectors(role).detach()


def test_vectors_begin_at_the_embeddings_of_tokens(folder: str) -> None:
    embeddings = AutoModelForCausalLM.from_pretrained(folder).get_input_embeddings().weight
    drawn = vectors_of(folder, PromptTuning(num_virtual_tokens=3))
    assert all((embeddings == vector).all(dim=1).any() for vector in drawn)
    ids = open_policy(opened_policy(folder).ref).tokenizer("the car has")["input_ids"]
    assert len(ids) == 3
    begun = vectors_of(folder, PromptTuning(num_virtual_tokens=5, init="text", init_text="the car has"))
    assert torch.equal(begun, embeddings[[*ids, *ids[:2]]])
    cut = vectors_of(folder, PromptTuning(num_virtual_tokens=2, init="text", init_text="the car has"))
    assert torch.equal(cut, embeddings[ids[:2]])
    assert vectors_of(folder, PrefixTuning(num_virtual_tokens=2)).abs().max() == 0.0


@pytest.mark.parametrize("tuning", KINDS, ids=lambda tuning: tuning.kind)
def test_reference_and_critic_begin_as_the_policy(folder: str, tuning: AnyPromptTuning) -> None:
    model = method_of(tuning).policy(opened_policy(folder), ROLES, 0)
    assert torch.equal(response(model, "policy"), response(model, "reference"))
    assert torch.equal(vectors_of(folder, tuning), vectors_of(folder, tuning, "value"))
    assert not any(p.requires_grad for name, p in model.named_parameters() if ".reference." in name)


@pytest.mark.parametrize("tuning", KINDS, ids=lambda tuning: tuning.kind)
def test_what_is_trained_is_counted(folder: str, tmp_path: Path, tuning: AnyPromptTuning) -> None:
    write_gpt2(tmp_path)
    for base in (folder, str(tmp_path)):
        model = method_of(tuning).policy(opened_policy(base), ROLES, 0)
        num_trained = sum(parameter.numel() for parameter in trainable_groups(model)["policy"].values())
        assert method_of(tuning).size(opened_policy(base).empty(AutoModelForCausalLM)).num_trained == num_trained


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("number", range(len(CONFIGS)))
def test_a_given_one_is_what_plain_peft_computes(folder: str, tmp_path: Path, number: int) -> None:
    for tuning in (KINDS[0], LoraTuning()):  # The settings are of new adapters; what was given stays what it is.
        check_carried(folder, tmp_path / tuning.kind, CONFIGS[number], tuning)


@pytest.mark.parametrize("config", CONFIGS[:3], ids=lambda config: str(config.peft_type))
def test_every_field_of_the_installed_peft_has_its_line(config: PeftConfig) -> None:
    of_peft = {field.name for field in fields(config)}
    absent = of_peft - PEFT_KINDS[config.peft_type].fields.keys()
    assert absent == set(), "new in PEFT: say in prompt_methods.py what becomes of it"


@pytest.mark.filterwarnings("ignore")
def test_virtual_tokens_take_positions(folder: str, tmp_path: Path) -> None:
    assert opened_policy(folder).num_positions == 256
    policy = AlignedPolicySettings(model=folder, tuning=PTuning(num_virtual_tokens=30))
    assert open_tunable(policy, ROLES).num_positions == 226
    trained_with_peft(folder, tmp_path, CONFIGS[0])
    assert opened_policy(folder, tmp_path).num_positions == 253
    policy = AlignedPolicySettings(model=folder, tuning=PTuning(num_virtual_tokens=256))
    with pytest.raises(UserError, match=r"^policy\.tuning\.num_virtual_tokens=256 leaves no position of .* lower it$"):
        open_tunable(policy, ROLES)


@pytest.mark.parametrize("tuning", KINDS, ids=lambda tuning: tuning.kind)
def test_vllm_reads_none(folder: str, tuning: AnyPromptTuning) -> None:
    policy = AlignedPolicySettings(model=folder, tuning=tuning)
    check_tunable(open_policy(policy.ref), policy, ROLES, support_of(TransformersEngine()))
    wanted = rf"^policy\.tuning\.kind={tuning.kind}: vLLM reads no soft prompts; set rollout\.engine\.kind=transformers"
    for serving in ("merged", "lora"):
        support = support_of(VllmEngine(), serving)  # type: ignore[arg-type]
        with pytest.raises(UserError, match=wanted):
            check_tunable(open_policy(policy.ref), policy, ROLES, support)
        with pytest.raises(UserError, match=wanted):
            method_of(tuning).check_new(NewLlamaSettings(), "policy.tuning", support)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("config", CONFIGS[:3], ids=lambda config: str(config.peft_type))
def test_a_given_one_and_those_who_read_none(folder: str, tmp_path: Path, config: PeftConfig) -> None:
    trained_with_peft(folder, tmp_path, config)
    opened = opened_policy(folder, tmp_path)
    check_served(opened, support_of(TransformersEngine()), ROLES)
    kind = config.peft_type.value
    wanted = rf"peft_type={kind}, which vLLM cannot carry; set rollout\.engine\.kind=transformers, or train LoRA"
    for serving in ("merged", "lora"):
        with pytest.raises(UserError, match=wanted):
            check_served(opened, support_of(VllmEngine(), serving))  # type: ignore[arg-type]
    policy = AlignedPolicySettings(model=str(tmp_path))
    open_tunable(policy, ROLES, LearnerSettings(zero_stage=2))
    with pytest.raises(UserError, match=r"learner\.zero_stage=3: .* set learner\.zero_stage=2, or train plain LoRA"):
        open_tunable(policy, ROLES, LearnerSettings(zero_stage=3))
    if kind == "PREFIX_TUNING":
        with pytest.raises(UserError, match=r"gradient_checkpointing=true: .* keep no cache, .*kind=prompt-tuning"):
            open_tunable(policy, ROLES, LearnerSettings(gradient_checkpointing=True))
    else:
        open_tunable(policy, ROLES, LearnerSettings(gradient_checkpointing=True))


def test_a_prefix_and_activations_that_are_computed_anew(folder: str) -> None:
    policy = AlignedPolicySettings(model=folder, tuning=PrefixTuning())
    with pytest.raises(UserError, match=r"the prefix on policy\.model=.* set learner\.gradient_checkpointing=false"):
        open_tunable(policy, ROLES, LearnerSettings(gradient_checkpointing=True))


def test_layers_that_take_none(tmp_path: Path) -> None:
    """Bloom's have no positions of tokens."""
    sizes = {"vocab_size": 50, "hidden_size": 16, "n_layer": 1, "n_head": 2, "seq_length": 32}
    BloomConfig(**sizes, architectures=["BloomForCausalLM"]).save_pretrained(tmp_path)
    opened = opened_policy(tmp_path)
    with pytest.raises(UserError, match=r"layers of BloomForCausalLM .* take no position_ids, .*\.kind=lora"):
        method_of(PromptTuning()).check(opened, "policy.tuning", ROLES, support_of(TransformersEngine()))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("changed", "wanted"),
    [
        ({"modules_to_save": ["lm_head"]}, r"modules_to_save=.*, which training cannot carry; train the soft pro"),
        ({"task_type": "SEQ_CLS"}, r"task_type=SEQ_CLS, which training cannot carry; give an adapter"),
        ({"num_virtual_tokens": 4}, r"its config on .* is \{'prompt_embeddings': \[4, 128\]\}, .*\[3, 128\]"),
        ({"num_virtual_tokens": 0}, r"num_virtual_tokens is 0, and must be a whole number from 1"),
        ({"num_virtual_tokens": None}, r"num_virtual_tokens is null, and must be a whole number"),
    ],
)
def test_what_cannot_be_carried(folder: str, tmp_path: Path, changed: dict[str, Any], wanted: str) -> None:
    trained_with_peft(folder, tmp_path, CONFIGS[0])
    file = tmp_path / CONFIG_FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | changed))
    with pytest.raises(UserError, match=wanted):
        open_tunable(AlignedPolicySettings(model=str(tmp_path)), ROLES)


@pytest.mark.filterwarnings("ignore")
def test_vectors_of_another_base(folder: str, tmp_path: Path) -> None:
    trained_with_peft(folder, tmp_path, CONFIGS[2])
    save_file({"prompt_embeddings": torch.zeros(3, 99)}, tmp_path / WEIGHTS_FILE)
    # Two layers, keys and values, two heads of 32.
    with pytest.raises(UserError, match=r"\[3, 256\]\}, and .*\[3, 99\].* write the base that it was trained on into"):
        open_tunable(AlignedPolicySettings(model=str(tmp_path)), ROLES)


@pytest.mark.parametrize("tuning", KINDS, ids=lambda tuning: tuning.kind)
def test_a_base_in_4_bits_reads_them(folder: str, tuning: AnyPromptTuning) -> None:
    model = method_of(tuning).policy(opened_policy(folder, quantization=Nf4Quantization()), ROLES, 0)
    started = response(model, "reference")
    stored = method_of(tuning).policy(opened_policy(folder), ROLES, 0)
    assert torch.equal(started, response(model, "policy"))
    assert (started - response(stored, "reference")).abs().max() > 0.05
