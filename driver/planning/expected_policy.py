"""A causal model and what is put on it, as far as it takes memory, told without its weights."""

from dataclasses import dataclass
from pathlib import Path

from transformers import AutoModelForCausalLM

from plumbob.configs.base import Dtype
from plumbob.configs.settings.models import ModelRef, NewLlamaSettings
from plumbob.configs.settings.tuning.adapters import LoraTuning
from plumbob.configs.settings.tuning.any_tuning import Tuning, virtual_tokens
from plumbob.configs.settings.tuning.soft_prompts import (
    SoftPromptTuning,
)
from plumbob.models.adapter import WEIGHTS_FILE
from plumbob.models.files.weight_files import num_stored
from plumbob.models.from_scratch import empty_llama
from plumbob.models.loading import open_policy
from plumbob.models.quantization.quantised_layers import base_bytes
from plumbob.models.resolution import read_adapter_config
from plumbob.models.sizes.adapter_size import AdapterSize
from plumbob.models.sizes.config_sizes import ModelSizes, sizes_of
from plumbob.models.sizes.kept_activations import Beside
from plumbob.models.tuning.adapter_support import is_plain_lora
from plumbob.models.tuning.methods import PEFT_KINDS, TuningMethod, method_of
from plumbob.models.tuning.weights import WeightMethod

BYTES = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True)
class ExpectedPolicy:
    """A causal model and what is put on it.

    Attributes:
        base_bytes: of the model's own weights in a learner, which may keep them in few bits.
        num_trained: parameters that the policy trains.
        num_of_critic: those that a critic trains, its head aside.
        num_begun: of the adapter that it begins from, or of a new soft prompt; a reference has as much beside it. 0 of
            others on a full model.
        num_virtual_tokens: of a soft prompt, before each text.
        num_start: of the weights that a new adapter begins from, or of its ranks' scores, which stay beside it.
        num_shared: of what stays as it is, and all adapters share.
        trains_weights: whether what is trained are weights of the model itself.
        has_critic_model: whether a critic is then a model of its own.
        beside: what is trained, of that which makes a difference to what a block keeps for its backward.
        is_plain_lora: what is put on it adds B A to weights and does nothing else.
        has_dropout: whether LoRA drops some of its input while it is trained alone.
    """

    architecture: str
    dtype: Dtype
    sizes: ModelSizes
    num_positions: int
    base_bytes: int
    num_trained: int
    num_of_critic: int
    num_begun: int
    num_virtual_tokens: int
    num_start: int
    num_shared: int
    trains_weights: bool
    has_critic_model: bool
    is_plain_lora: bool
    has_dropout: bool
    beside: Beside

    @property
    def weight_bytes(self) -> int:
        return BYTES[self.dtype]


def expected_policy(
    ref: ModelRef | NewLlamaSettings, tuning: Tuning | None, new_dtype: Dtype = "float32"
) -> ExpectedPolicy:
    """`new_dtype`: of the weights of a model that is made from scratch, as later stages load it."""
    adapter, dtype, quantization = None, new_dtype, None
    if isinstance(ref, ModelRef):
        opened = open_policy(ref)
        virtual = opened.num_virtual_tokens
        model, positions = opened.empty(AutoModelForCausalLM), opened.num_positions
        adapter, dtype, quantization = opened.source.adapter, ref.dtype, ref.quantization
    else:
        virtual = 0 if tuning is None else virtual_tokens(tuning)
        model, positions = empty_llama(ref), ref.max_positions - virtual
    sizes = sizes_of(model)
    begun = 0 if adapter is None else num_stored(adapter / WEIGHTS_FILE)
    method = None if tuning is None else method_of(tuning)
    of_weights = method if isinstance(method, WeightMethod) else None
    if method is None:
        new = AdapterSize(0)
    else:
        new = AdapterSize(begun) if begun and of_weights is None else method.size(model)
    of_critic = new.num_trained if of_weights is None else of_weights.num_trained(model, "value")
    if isinstance(tuning, SoftPromptTuning) and not begun:
        begun = new.num_trained
    held = base_bytes(model, BYTES[dtype], quantization)
    numbers = (positions, held, new.num_trained, of_critic, begun, virtual, new.num_start, new.num_shared)
    kinds = (of_weights is not None, of_weights is not None and of_weights.tuning.critic == "model")
    of_adapter = (is_plain_lora(adapter, tuning), _has_dropout(adapter, tuning))
    beside = _beside(adapter, method)
    return ExpectedPolicy(type(model).__name__, dtype, sizes, *numbers, *kinds, *of_adapter, beside)


def _beside(adapter: Path | None, method: TuningMethod | None) -> Beside:
    """Of a given adapter by that adapter's own kind."""
    if adapter is not None:
        config = read_adapter_config(adapter)
        return PEFT_KINDS[config["peft_type"]].beside(config)
    return "nothing" if method is None else method.beside


def _has_dropout(adapter: Path | None, tuning: Tuning | None) -> bool:
    """Of a given adapter it is that adapter's own."""
    if adapter is not None:
        return bool(read_adapter_config(adapter).get("lora_dropout"))
    return isinstance(tuning, LoraTuning) and tuning.dropout > 0
