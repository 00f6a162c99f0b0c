"""What an engine should hold of an adapter beside the base's weights: scaled and rounded."""

import pytest
import torch
from torch import Tensor

from plumbob.models.adapter import Adapter
from plumbob.rollout.publish_proof import PublishError
from plumbob.rollout.served_adapter import lora_scaling, served_tensors

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
