"""What an adapter makes of the weights that it is merged into: by hand, and as PEFT's merge_and_unload."""

import json
from dataclasses import replace
from math import nan
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import IA3Config, LoraConfig, PeftConfig, VeraConfig, get_peft_model
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from plumbob.models.adapter import Adapter, load_adapter
from plumbob.rollout.merged_adapter import by_tensor, weight_changes
from plumbob.rollout.publish_proof import PublishError
from tests.support.tiny_policy import write_gpt2, write_policy

A = "base_model.model.m.q_proj.lora_A.weight"
B = "base_model.model.m.q_proj.lora_B.weight"
LENGTHS = "base_model.model.m.q_proj.lora_magnitude_vector"


def adapter(a: torch.Tensor, b: torch.Tensor, **others: torch.Tensor) -> Adapter:
    return Adapter(7, {"lora_alpha": 6, "r": 2}, {A: a, B: b, **others})


def test_b_a_is_added_in_float32() -> None:
    # Rank 2 and alpha 6 scale by 3. B A = [[1*1 + 2*0, 1*0 + 2*1]] = [[1, 2]], so that 3 and 6 are added.
    change = weight_changes(adapter(torch.eye(2), torch.tensor([[1.0, 2.0]])))["m.q_proj"]
    assert change.names == (A, B)
    weight = torch.tensor([[10.0, 0.5]])
    assert change.merged(weight, torch.float32).tolist() == [[13.0, 6.5]]
    assert weight.tolist() == [[10.0, 0.5]]
    # bfloat16 has steps of 2**-4 at 13: 10 + 3 * 1.0105 = 13.0315 lies nearest to 13.0625. With B rounded first
    # (to 1.0078), or the update (to 3.03125: half way, so to the even 13), it would be 13.
    change = weight_changes(adapter(torch.eye(2), torch.tensor([[1.0105, 0.0]])))["m.q_proj"]
    found = change.merged(torch.tensor([[10.0, 0.0]], dtype=torch.bfloat16), torch.bfloat16)
    assert found.dtype == torch.bfloat16 and found.tolist() == [[13.0625, 0.0]]


def test_an_embedding_is_merged_the_other_way_round() -> None:
    # 3 tokens, width 2, rank 1: B A is [width, tokens], and the weight [tokens, width]; alpha / rank = 6.
    a, b = torch.tensor([[1.0, 0.0, 2.0]]), torch.tensor([[1.0], [-1.0]])
    names = ("base_model.model.m.embed_tokens.lora_embedding_A", "base_model.model.m.embed_tokens.lora_embedding_B")
    change = weight_changes(Adapter(1, {"lora_alpha": 6}, dict(zip(names, (a, b), strict=True))))["m.embed_tokens"]
    assert change.merged(torch.zeros(3, 2), torch.float32).tolist() == [[6.0, -6.0], [0.0, 0.0], [12.0, -12.0]]


def test_dora_gives_each_output_its_length() -> None:
    # With B A = [[1, 0]], W + 3 B A is [[3, 4]] and 5 long; it is made 10 long.
    sent = adapter(torch.eye(2), torch.tensor([[1.0, 0.0]]), **{LENGTHS: torch.tensor([10.0])})
    change = weight_changes(sent)["m.q_proj"]
    assert change.names == (A, B, LENGTHS)
    assert change.merged(torch.tensor([[0.0, 4.0]]), torch.float32).tolist() == [[6.0, 8.0]]


def test_dora_of_an_embedding_gives_each_number_of_its_width_its_length() -> None:
    # One rank, alpha 6: B A = 0. Columns (3, 4) and (0, 2) of 2 tokens are 5 and 2 long; made 10 and 1 long.
    start = "base_model.model.m.embed_tokens.lora_"
    tensors = {
        f"{start}embedding_A": torch.zeros(1, 2),
        f"{start}embedding_B": torch.ones(2, 1),
        f"{start}magnitude_vector": torch.tensor([10.0, 1.0]),
    }
    change = weight_changes(Adapter(1, {"lora_alpha": 6}, tensors))["m.embed_tokens"]
    found = change.merged(torch.tensor([[3.0, 0.0], [4.0, 2.0]]), torch.float32)
    assert found.tolist() == [[6.0, 0.0], [8.0, 1.0]]


def test_what_does_not_fit_is_refused() -> None:
    change = weight_changes(adapter(torch.eye(2), torch.ones(1, 2)))["m.q_proj"]
    with pytest.raises(PublishError, match=r"lora_B\.weight: B A is \[1, 2\] on a weight that is \[1, 3\]"):
        change.merged(torch.zeros(1, 3), torch.float32)
    change = weight_changes(adapter(torch.eye(2), torch.ones(1, 2), **{LENGTHS: torch.ones(3)}))["m.q_proj"]
    with pytest.raises(PublishError, match=r"lora_magnitude_vector is \[3\] on a weight with 1 outputs"):
        change.merged(torch.zeros(1, 2), torch.float32)
    with pytest.raises(PublishError, match=r"version 1: .*lora_magnitude_vector was sent without its A and B"):
        weight_changes(Adapter(1, {"lora_alpha": 6}, {LENGTHS: torch.ones(3)}))
    with pytest.raises(PublishError, match=r"lora_B\.bias is not a LoRA tensor"):
        weight_changes(adapter(torch.eye(2), torch.ones(1, 2), **{"m.lora_B.bias": torch.ones(1)}))


def test_a_difference_is_that_of_every_module_that_a_tensor_is_part_of() -> None:
    changes = weight_changes(adapter(torch.eye(2), torch.ones(1, 2)))
    assert by_tensor(changes, {"m.q_proj": 0.25}) == {A: 0.25, B: 0.25}
    shared = {"one": changes["m.q_proj"], "two": changes["m.q_proj"]}
    for found in ({"one": 0.5, "two": 0.25}, {"one": 0.25, "two": 0.5}):
        assert by_tensor(shared, found) == {A: 0.5, B: 0.5}
    for found in ({"one": nan, "two": 0.25}, {"one": 0.25, "two": nan}):
        assert all(value != value for value in by_tensor(shared, found).values())


# --------------------------------------------------------------------------------------------------- as PEFT merges it

CONFIGS: dict[str, dict[str, Any]] = {
    "rslora": {"use_rslora": True, "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"layers.1.mlp.up_proj": 3}},
    "dora": {"use_dora": True},
    "dora of embeddings": {
        "use_dora": True,
        "use_rslora": True,
        "target_modules": ["embed_tokens", "lm_head", "q_proj"],
    },
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("config", [*map(str, CONFIGS), "gpt2"])
def test_merged_as_peft_merges(tmp_path: Path, config: str) -> None:
    folder = write_gpt2(tmp_path / "base") if config == "gpt2" else write_policy(tmp_path / "base")
    asked = {"target_modules": "all-linear", **CONFIGS.get(config, {"use_dora": True})}
    check_merged(folder, tmp_path / "adapter", LoraConfig(r=4, lora_alpha=10, task_type="CAUSAL_LM", **asked))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("base", ["llama", "gpt2"])
@pytest.mark.parametrize("kind", ["ia3", "vera"])
def test_vectors_are_merged_as_peft_merges(tmp_path: Path, base: str, kind: str) -> None:
    folder = write_gpt2(tmp_path / "base") if base == "gpt2" else write_policy(tmp_path / "base")
    outputs, inputs = (["c_attn"], ["mlp.c_proj"]) if base == "gpt2" else (["k_proj", "v_proj"], ["down_proj"])
    config: PeftConfig = VeraConfig(r=6, target_modules="all-linear", task_type="CAUSAL_LM")
    if kind == "ia3":
        config = IA3Config(target_modules=outputs + inputs, feedforward_modules=inputs, task_type="CAUSAL_LM")
    check_merged(folder, tmp_path / "adapter", config)


def test_ia3_scales_outputs_with_their_bias_or_inputs() -> None:
    name = "base_model.model.m.k_proj.ia3_l"
    weight, bias = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([5.0, 6.0])
    outputs = weight_changes(Adapter(1, {"peft_type": "IA3"}, {name: torch.tensor([[10.0], [100.0]])}))["m.k_proj"]
    assert outputs.merged(weight, torch.float32).tolist() == [[10.0, 20.0], [300.0, 400.0]]
    assert outputs.merged_bias(bias, torch.float32).tolist() == [50.0, 600.0]
    inputs = weight_changes(Adapter(1, {"peft_type": "IA3"}, {name: torch.tensor([[10.0, 100.0]])}))["m.k_proj"]
    assert inputs.merged(weight, torch.float32).tolist() == [[10.0, 200.0], [30.0, 400.0]]
    assert inputs.merged_bias(bias, torch.float32) is bias
    with pytest.raises(PublishError, match=r"ia3_l is \[1, 2\] on a weight that is \[1, 1\]"):
        inputs.merged(torch.zeros(1, 1), torch.float32)


def vera(**changed: torch.Tensor | None) -> Adapter:
    """Matrices for 3 inputs and 2 outputs of rank 2, on one module with 2 inputs and 1 output."""
    tensors = {
        "base_model.vera_A": torch.tensor([[1.0, 0.0, 9.0], [0.0, 1.0, 9.0]]),
        "base_model.vera_B": torch.tensor([[1.0, 1.0], [9.0, 9.0]]),
        "base_model.model.m.v_proj.vera_lambda_b": torch.tensor([10.0]),
        "base_model.model.m.v_proj.vera_lambda_d": torch.tensor([1.0, 2.0]),
    }
    kept = {name: tensor for name, tensor in (tensors | changed).items() if tensor is not None}
    return Adapter(1, {"peft_type": "VERA", "r": 2}, kept)


def test_vera_takes_its_part_of_what_all_share() -> None:
    # b B diag(d) A of the first 2 inputs and 1 output: 10 x [1, 1] diag(1, 2) I = [10, 20].
    (change,) = weight_changes(vera()).values()
    assert change.merged(torch.tensor([[1.0, 1.0]]), torch.float32).tolist() == [[11.0, 21.0]]
    assert set(change.names) == set(vera().tensors)
    for name in ("base_model.vera_A", "base_model.model.m.v_proj.vera_lambda_d"):
        with pytest.raises(PublishError, match="was sent without"):
            weight_changes(vera(**{name: None}))
    with pytest.raises(PublishError, match="vera_lambda_d is not a tensor of VeRA, or lacks its other"):
        weight_changes(vera(**{"base_model.model.m.v_proj.vera_lambda_b": None}))
    with pytest.raises(PublishError, match=r"vera_lambda_b is \[1\] on a weight that is \[2, 2\]"):
        change.merged(torch.zeros(2, 2), torch.float32)
    with pytest.raises(PublishError, match="peft_type LOHA cannot be merged"):
        weight_changes(Adapter(1, {"peft_type": "LOHA"}, {}))


def check_merged(folder: str, path: Path, config: PeftConfig) -> None:
    """Every weight of the model, after a merge of ours and of PEFT's; what the adapter holds is moved at random."""
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(folder), config)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    model.save_pretrained(str(path))
    assert json.loads((path / "adapter_config.json").read_text())["peft_type"] == config.peft_type
    adapter = load_adapter(path)
    own = {name: tensor for name, tensor in adapter.tensors.items() if not name.endswith(".base_layer.weight")}
    changes = weight_changes(replace(adapter, tensors=own))
    base = AutoModelForCausalLM.from_pretrained(folder)
    modules = dict(base.named_modules())
    with torch.no_grad():
        for name, change in changes.items():
            weight = modules[name].weight
            is_transposed = isinstance(modules[name], Conv1D)
            bias = getattr(modules[name], "bias", None)
            if bias is not None:
                bias.copy_(change.merged_bias(bias, torch.float32))
            merged = change.merged(weight.T if is_transposed else weight, torch.float32)
            weight.copy_(merged.T if is_transposed else merged)
    expected = model.merge_and_unload().state_dict()
    found = base.state_dict()
    assert expected.keys() == found.keys()
    num_changed = 0
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-6, msg=name)
    for name, tensor in AutoModelForCausalLM.from_pretrained(folder).state_dict().items():
        num_changed += not torch.equal(tensor, found[name])
    assert num_changed >= len(changes) > 2
