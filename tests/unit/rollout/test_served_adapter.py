"""What an engine should hold of an adapter: scaled and rounded beside the base's weights, or merged into them."""

import pytest
import torch
from torch import Tensor

from plumbob.models.adapter import Adapter
from plumbob.rollout.publish_proof import PublishError
from plumbob.rollout.served_adapter import lora_pairs, lora_scaling, merged_weight, served_tensors

A = "base_model.model.m.q_proj.lora_A.weight"
B = "base_model.model.m.q_proj.lora_B.weight"


def adapter(config: dict[str, object], **tensors: Tensor) -> Adapter:
    return Adapter(7, {"lora_alpha": 6, "r": 2, **config}, {A: tensors["a"], B: tensors["b"]})


def test_scaling() -> None:
    assert lora_scaling({"lora_alpha": 6}, "m.q_proj", 2) == 3.0
    # rsLoRA: 6 / sqrt(4).
    assert lora_scaling({"lora_alpha": 6, "use_rslora": True}, "m.q_proj", 4) == 3.0
    # The pattern names the end of a module's name from a dot on: "q_proj" it is, "proj" it is not.
    assert lora_scaling({"lora_alpha": 6, "alpha_pattern": {"proj": 1, "q_proj": 8}}, "m.q_proj", 2) == 4.0


def test_b_is_rounded_and_then_scaled() -> None:
    a = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    b = torch.tensor([[1.003], [2.0]]).expand(2, 2).contiguous()
    served = served_tensors(adapter({}, a=a, b=b), torch.bfloat16)
    assert served[A].dtype == torch.bfloat16
    assert served[A].tolist() == [[1.0, 2.0], [3.0, 4.0]]
    # bfloat16 has steps of 2**-7 above 1: 1.003 is rounded to 1, and 1 * 6/2 = 3. Scaled first, it would be
    # 3.009, which is rounded to 3.015625 (steps of 2**-6 above 2).
    assert served[B].tolist() == [[3.0, 3.0], [6.0, 6.0]]
    # The learner's own tensor is left alone.
    assert b[0, 0] == pytest.approx(1.003)


def test_what_cannot_be_served_is_named() -> None:
    tensors = {A: torch.zeros(2, 2)}
    with pytest.raises(PublishError, match=r"lora_A\.weight was sent without its other half"):
        served_tensors(Adapter(1, {"lora_alpha": 1}, tensors), torch.float32)
    with pytest.raises(PublishError, match="lora_magnitude_vector is not a LoRA tensor"):
        served_tensors(Adapter(1, {"lora_alpha": 1}, {"m.q_proj.lora_magnitude_vector": torch.zeros(2)}), torch.float32)


def test_b_a_is_added_in_float32() -> None:
    # Rank 2 and alpha 6 scale by 3. B A = [[1*1 + 2*0, 1*0 + 2*1]] = [[1, 2]], so that 3 and 6 are added.
    sent = adapter({}, a=torch.eye(2), b=torch.tensor([[1.0, 2.0]]))
    pair = lora_pairs(sent)["m.q_proj"]
    assert (pair.a_name, pair.b_name, pair.scaling, pair.is_embedding) == (A, B, 3.0, False)
    weight = torch.tensor([[10.0, 0.5]])
    assert merged_weight(weight, pair, torch.float32).tolist() == [[13.0, 6.5]]
    assert weight.tolist() == [[10.0, 0.5]]
    # bfloat16 has steps of 2**-4 at 13: 10 + 3 * 1.0105 = 13.0315 lies nearest to 13.0625. With B rounded first
    # (to 1.0078), or the update (to 3.03125: half way, so to the even 13), it would be 13.
    pair = lora_pairs(adapter({}, a=torch.eye(2), b=torch.tensor([[1.0105, 0.0]])))["m.q_proj"]
    found = merged_weight(torch.tensor([[10.0, 0.0]], dtype=torch.bfloat16), pair, torch.bfloat16)
    assert found.dtype == torch.bfloat16 and found.tolist() == [[13.0625, 0.0]]


def test_an_embedding_is_merged_the_other_way_round() -> None:
    # 3 tokens, width 2, rank 1: B A is [width, tokens], and the weight [tokens, width]; alpha / rank = 6.
    a, b = torch.tensor([[1.0, 0.0, 2.0]]), torch.tensor([[1.0], [-1.0]])
    names = ("base_model.model.m.embed_tokens.lora_embedding_A", "base_model.model.m.embed_tokens.lora_embedding_B")
    pair = lora_pairs(Adapter(1, {"lora_alpha": 6}, dict(zip(names, (a, b), strict=True))))["m.embed_tokens"]
    assert pair.is_embedding
    assert merged_weight(torch.zeros(3, 2), pair, torch.float32).tolist() == [[6.0, -6.0], [0.0, 0.0], [12.0, -12.0]]


def test_an_adapter_of_another_size_is_refused() -> None:
    pair = lora_pairs(adapter({}, a=torch.eye(2), b=torch.ones(1, 2)))["m.q_proj"]
    with pytest.raises(PublishError, match=r"lora_B\.weight: B A is \[1, 2\] on a weight that is \[1, 3\]"):
        merged_weight(torch.zeros(1, 3), pair, torch.float32)
