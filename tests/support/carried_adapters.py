"""Adapters that plain PEFT has trained, put through roles, export and sampler, each held against plain PEFT."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from plumbob.configs.settings.tuning.any_tuning import AnyAdapterTuning
from plumbob.models.adapter import WEIGHTS_FILE, ModelRole, load_adapter, save_adapter
from plumbob.models.adapter_switch import activate
from plumbob.models.tuning.hosting import put_adapter, read_adapter
from plumbob.models.tuning.methods import method_of
from plumbob.models.tuning.roles import trainable_groups
from plumbob.trainers.learner.export import PolicyAdapter
from tests.support.opened_models import opened_policy
from tests.support.role_logprobs import plain, response

ROLES: tuple[ModelRole, ...] = ("policy", "reference", "value")
NOT_TRAINED = (".base_layer.weight", ".vera_A", ".vera_B")
"""Ends of the names of what a file may hold that is not the adapter's to train."""


def base_of(folder: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder)


def lora(**config: Any) -> LoraConfig:
    """On q and v."""
    asked = {"r": 4, "lora_alpha": 10, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"} | config
    return LoraConfig(**asked)


def trained_with_peft(folder: str, path: Path, config: PeftConfig) -> PeftModel:
    """An adapter, all that it trains moved, saved in `path`."""
    torch.manual_seed(0)
    model = get_peft_model(base_of(folder), config)
    move(model)
    model.save_pretrained(str(path))
    return model


def move(model: Any, parameters: Mapping[str, Tensor] | None = None) -> None:
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters() if parameters is None else parameters.values():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)


def same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def check_carried(base: str, path: Path, config: PeftConfig, tuning: AnyAdapterTuning) -> None:
    """Start, reference, what is trained, export and sampler, each against plain PEFT."""
    expected = plain(trained_with_peft(base, path / "given", config))
    raw = plain(base_of(base))
    assert (expected - raw).abs().max() > 0.02
    model = method_of(tuning).policy(opened_policy(base, path / "given"), ROLES, 0)
    reference = response(model, "reference")
    same(reference, expected)
    assert torch.equal(response(model, "policy"), reference)
    # Everything that the file holds for the adapter alone is trained; weights of the base beside it are not.
    held = set(load_file(path / "given" / WEIGHTS_FILE))
    saved = {name for name in held if not name.endswith(".base_layer.weight")}
    groups = trainable_groups(model)
    assert len(groups["policy"]) == len([name for name in held if not name.endswith(NOT_TRAINED)])
    value = response(model, "value")
    move(model, groups["policy"])
    # What the policy learns moves neither the reference nor the critic.
    assert torch.equal(response(model, "reference"), reference)
    assert torch.equal(response(model, "value"), value)
    trained = response(model, "policy")
    assert (trained - reference).abs().max() > 0.02
    # A step of the critic moves the critic alone.
    move(model, groups["value"])
    assert not torch.equal(response(model, "value"), value)
    assert torch.equal(response(model, "policy"), trained)
    # What is published and exported is what was learnt.
    learnt = {name: tensor.detach() for group in groups.values() for name, tensor in group.items()}
    adapter = PolicyAdapter(model.causal_lm, "causal_lm.", base, None).adapter(learnt, 1)
    save_adapter(adapter, path / "exported")
    assert set(adapter.tensors) == saved
    same(plain(PeftModel.from_pretrained(base_of(base), str(path / "exported"))), trained)
    # The sampler serves both versions side by side, and the base.
    sampler = base_of(base)
    for name, loaded in (("given", load_adapter(path / "given")), ("exported", adapter)):
        sampler = put_adapter(sampler, loaded, name)
        found = read_adapter(sampler, name, loaded.tensors)
        assert found.keys() == loaded.tensors.keys()
        assert all(torch.equal(found[key], tensor) for key, tensor in loaded.tensors.items())
    for served, wanted in (("given", reference), ("exported", trained), (None, raw)):
        activate(sampler, served)
        same(plain(sampler), wanted)
