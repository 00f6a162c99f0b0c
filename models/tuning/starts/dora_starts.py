"""DoRA that begins as its base to the bit, whatever the base's dtype."""

import torch
from peft import PeftModel
from peft.tuners.lora.layer import LoraLayer
from peft.utils.integrations import dequantize_module_weight


def begin_dora(model: PeftModel, names: tuple[str, ...]) -> None:
    """Give new DoRA adapters the lengths of the base's weights in float32, in which the forward takes them.

    PEFT takes them in the base's dtype: in bfloat16 each output would begin up to 0.4% too long or too short.
    """
    for layer in model.modules():
        for name in names if isinstance(layer, LoraLayer) else ():
            if name in layer.lora_magnitude_vector:
                dora = layer.lora_magnitude_vector[name]
                weight = dequantize_module_weight(layer.get_base_layer()).detach()
                with torch.no_grad():
                    weight = weight.to(dora.weight.dtype)
                    dora.weight.copy_(dora.get_weight_norm(weight, torch.zeros((), dtype=weight.dtype), 1.0))
