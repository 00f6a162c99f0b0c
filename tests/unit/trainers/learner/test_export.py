"""What a learner writes is what plain transformers and PEFT load."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from plumbob.configs.base import Dtype
from plumbob.configs.settings.tuning.adapters import LoraTuning
from plumbob.configs.settings.tuning.weights import FullTuning, SelectiveTuning
from plumbob.configs.settings.workers import TransformersEngine
from plumbob.models.loading import DTYPES
from plumbob.models.policy import PolicyModel
from plumbob.models.tuning.methods import method_of
from plumbob.models.tuning.roles import trainable_groups
from plumbob.rollout.samplers.sampler import SamplerSpec, stop_token_ids
from plumbob.trainers.learner.export import FullModel, NoArtifact, PolicyAdapter
from plumbob.trainers.learner.learner_parts import policy_artifact
from tests.support.opened_models import opened_policy, policy_ref
from tests.support.published_weights import tie_embeddings
from tests.support.tiny_policy import write_policy

SAMPLED = SamplerSpec(policy_ref("base"), "worker", TransformersEngine(), temperature=1.0, max_tokens=8, lora_rank=0)
IDS = torch.randint(2, 280, (2, 8), generator=torch.Generator().manual_seed(2))
MASK = torch.ones_like(IDS, dtype=torch.bool)
ACTIONS = torch.arange(8).expand(2, 8) >= 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_policy(tmp_path_factory.mktemp("policy"))


def moved(model: PolicyModel) -> dict[str, torch.Tensor]:
    """Every trainable parameter, changed in the model and as the engine gives it."""
    generator = torch.Generator().manual_seed(4)
    named = {name: p for group in trainable_groups(model).values() for name, p in group.items()}
    with torch.no_grad():
        for parameter in named.values():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return {name: parameter.detach().clone() for name, parameter in named.items()}


def check_loaded(loaded: Any, model: PolicyModel) -> None:
    with torch.no_grad(), model.eval().role("policy"):
        ours = model(IDS, MASK, ACTIONS, 1.0)
        logprobs = torch.log_softmax(loaded.eval()(input_ids=IDS).logits[:, :-1], dim=-1)
    theirs = logprobs.gather(-1, IDS[:, 1:, None])[..., 0]
    torch.testing.assert_close(ours[:, 1:], theirs, rtol=0, atol=2e-5)


def test_an_adapter_loads_with_plain_peft(folder: str, tmp_path: Path) -> None:
    model = method_of(LoraTuning(rank=4)).policy(opened_policy(folder), ("policy", "reference", "value"), seed=0)
    parameters = moved(model)
    artifact = PolicyAdapter(model.causal_lm, "causal_lm.", folder, AutoTokenizer.from_pretrained(folder))
    artifact.export(parameters, tmp_path)
    check_loaded(PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), str(tmp_path)), model)
    assert AutoTokenizer.from_pretrained(tmp_path).eos_token_id == 1
    adapter = artifact.policy_weights(parameters, 7)
    # 2 layers x 7 matrices x (A, B), the critic's not among them; the config names the base.
    assert (adapter.version, len(adapter.tensors), adapter.config["base_model_name_or_path"]) == (7, 28, folder)
    assert not any("value" in name.split(".") for name in adapter.tensors)


def test_a_full_model_loads_with_plain_transformers(folder: str, tmp_path: Path) -> None:
    model = method_of(FullTuning()).policy(opened_policy(folder), ("policy",), seed=0)
    parameters = moved(model)
    artifact = FullModel(model.causal_lm, "causal_lm.", AutoTokenizer.from_pretrained(folder))
    artifact.export(parameters, tmp_path)
    check_loaded(AutoModelForCausalLM.from_pretrained(tmp_path), model)
    sent = artifact.policy_weights(parameters, 3)
    assert sent.version == 3 and sent.tensors.keys() == dict(model.causal_lm.named_parameters()).keys()
    assert all(torch.equal(sent.tensors[name], p) for name, p in model.causal_lm.named_parameters())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_chosen_weights_are_written_as_a_full_model(folder: str, tmp_path: Path, dtype: Dtype) -> None:
    tuning = SelectiveTuning(targets=("layers.0.mlp", "lm_head"), norms=True)
    opened = replace(opened_policy(folder), ref=policy_ref(folder, dtype))
    model = method_of(tuning).policy(opened, ("policy", "reference", "value"), seed=0)
    parameters = moved(model)
    artifact = policy_artifact(opened, model)
    artifact.export(parameters, tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert loaded.dtype == DTYPES[dtype]
    check_loaded(loaded.float(), model.float())
    loaded.to(DTYPES[dtype])
    sent = artifact.policy_weights(parameters, 3).tensors
    # Three matrices, five norms and the head: no others have changed.
    assert len(sent) == 9 and all(tensor.dtype == DTYPES[dtype] for tensor in sent.values())
    before, after = AutoModelForCausalLM.from_pretrained(folder, dtype=DTYPES[dtype]), dict(loaded.named_parameters())
    for name, tensor in before.named_parameters():
        assert torch.equal(after[name], sent.get(name, tensor))
        assert (name in sent) != torch.equal(after[name], tensor)


def test_shared_embeddings_are_written_as_they_were_trained(folder: str, tmp_path: Path) -> None:
    """transformers drops one of two names that share a tensor: what is left must not be the one from before."""
    opened = opened_policy(tie_embeddings(shutil.copytree(folder, tmp_path / "tied")))
    for name, tuning in (("full", FullTuning()), ("some", SelectiveTuning(targets=("embed_tokens",)))):
        model = method_of(tuning).policy(opened, ("policy",), seed=0)
        policy_artifact(opened, model).export(moved(model), tmp_path / name)
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path / name)
        assert loaded.lm_head.weight is loaded.model.embed_tokens.weight
        check_loaded(loaded, model)


def test_the_result_stops_at_the_end_of_a_turn_too(folder: str, tmp_path: Path) -> None:
    """A template that ends turns with another token than the EOS: what is learnt, whoever samples stops at."""
    for name, template in (("plain", None), ("chat", "{% for m in messages %}{{ m['content'] }}<pad>{% endfor %}")):
        base = tmp_path / name
        shutil.copytree(folder, base)
        tokenizer = AutoTokenizer.from_pretrained(base)
        tokenizer.chat_template = template
        tokenizer.save_pretrained(base)
        opened = opened_policy(str(base))
        for kind, model in (
            ("full", method_of(FullTuning()).policy(opened, ("policy",), seed=0)),
            ("adapter", method_of(LoraTuning(rank=4)).policy(opened, ("policy",), seed=0)),
        ):
            result = tmp_path / name / kind
            policy_artifact(opened, model).export(moved(model), result)
            is_written = (result / "generation_config.json").exists()
            ends = GenerationConfig.from_pretrained(result).eos_token_id if is_written else None
            assert (kind, ends) in ([("full", 1), ("adapter", None)] if name == "plain" else [(kind, [1, 0])])
            # Sampled from again, where the result is a full model: one file names all.
            spec = replace(SAMPLED, model=policy_ref(result if kind == "full" else base))
            assert stop_token_ids(spec, tokenizer) == ((1,) if name == "plain" else (0, 1))


def test_what_was_not_trained_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="was not trained"):
        NoArtifact().export({}, tmp_path)
