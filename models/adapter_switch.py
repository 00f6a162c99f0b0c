"""Which adapter a tuned model computes with: switched where it stands, with `requires_grad` left alone."""

from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import nn

from plumbob.models.forward.soft_prompts import soft_prompts_of


def activate(model: nn.Module, adapter: str | None) -> None:
    """Route every tuned layer, and every module that adapters keep copies of, through one adapter, or through none; or
    let the model read the soft prompt of that name, or none.

    Sets the layers' own switches and nothing else: PEFT's `set_adapter` would also turn off `requires_grad` on the
    adapter that it leaves, which an optimizer that holds several adapters must not see.
    """
    for layer in tuned_layers(model):
        layer._disable_adapters = adapter is None
        if adapter is not None:
            layer._active_adapter = [adapter]
    if (prompts := soft_prompts_of(model)) is not None:
        prompts.active = adapter


def tuned_layers(model: nn.Module) -> list[BaseTunerLayer | AuxiliaryTrainingWrapper]:
    return [module for module in model.modules() if isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper)]
