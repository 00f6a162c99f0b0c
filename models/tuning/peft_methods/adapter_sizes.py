"""How many numbers a new adapter is made of, told without making it."""

from dataclasses import dataclass
from typing import Any, assert_never

from plumbob.configs.settings.tuning.adapters import (
    FROM_WEIGHTS,
    AdaLoraTuning,
    BottleneckTuning,
    Ia3Tuning,
    LoraTuning,
    VeraTuning,
)
from plumbob.configs.settings.tuning.any_tuning import AnyAdapterTuning
from plumbob.configs.settings.tuning.soft_prompts import (
    MultitaskPromptTuning,
    PrefixTuning,
    PromptTuning,
    PTuning,
)
from plumbob.models.sizes.config_sizes import ModelSizes, sizes_of
from plumbob.models.tuning.peft_methods.bottleneck import block_ends
from plumbob.models.tuning.peft_methods.vector_methods import scaled_modules
from plumbob.models.tuning.targets import is_named, num_inputs, num_outputs, target_modules


@dataclass(frozen=True)
class AdapterSize:
    """Of one new adapter.

    Attributes:
        num_trained: parameters.
        num_start: of what stays beside it: of the weights that it begins from, or of the scores that its ranks have.
        num_shared: numbers that stay as they are, and that all adapters on a base share.
    """

    num_trained: int
    num_start: int = 0
    num_shared: int = 0


def new_adapter_size(model: Any, tuning: AnyAdapterTuning) -> AdapterSize:
    """`model` may be one without weights."""
    match tuning:
        case LoraTuning():
            return _of_lora(model, tuning)
        case AdaLoraTuning():
            targets = target_modules(model, tuning.targets).values()
            of_rank = sum(num_inputs(one) + num_outputs(one) + 1 for one in targets)
            num_trained = tuning.first_rank * of_rank
            return AdapterSize(num_trained, num_start=2 * num_trained)
        case Ia3Tuning():
            outputs, inputs = scaled_modules(model, tuning) or ((), ())
            num_factors = sum(num_outputs(one) for one in target_modules(model, outputs).values())
            return AdapterSize(num_factors + sum(num_inputs(one) for one in target_modules(model, inputs).values()))
        case VeraTuning():
            layers = list(target_modules(model, tuning.targets).values())
            widest = max(map(num_inputs, layers), default=0) + max(map(num_outputs, layers), default=0)
            num_trained = sum(tuning.rank + num_outputs(one) for one in layers)
            return AdapterSize(num_trained, num_shared=tuning.rank * widest)
        case BottleneckTuning():
            ends = target_modules(model, block_ends(model, tuning) or ())
            return AdapterSize(sum(_of_bottleneck(num_outputs(one), tuning.width) for one in ends.values()))
        case PromptTuning():
            return AdapterSize(tuning.num_virtual_tokens * sizes_of(model).hidden_size)
        case MultitaskPromptTuning():
            tokens, width = tuning.num_virtual_tokens, sizes_of(model).hidden_size
            return AdapterSize(tokens * width + len(tuning.tasks) * tuning.rank * (tokens + width))
        case PTuning():
            return AdapterSize(_of_prompt_encoder(tuning, sizes_of(model).hidden_size))
        case PrefixTuning():
            return AdapterSize(_of_prefix(tuning, sizes_of(model)))
        case _:
            assert_never(tuning)


def _of_bottleneck(num_outputs: int, width: int) -> int:
    """W_down [width, out] and W_up [out, width], each with a bias."""
    return 2 * num_outputs * width + width + num_outputs


def _of_lora(model: Any, tuning: LoraTuning) -> AdapterSize:
    """A [rank, in] and B [out, rank] for each target, and with DoRA a length of each output."""
    halves = lengths = 0
    for name, module in target_modules(model, tuning.targets).items():
        rank = next((rank for end, rank in tuning.rank_pattern.items() if is_named(name, end)), tuning.rank)
        halves += rank * (num_inputs(module) + num_outputs(module))
        lengths += num_outputs(module) if tuning.use_dora else 0
    return AdapterSize(halves + lengths, num_start=halves if tuning.init in FROM_WEIGHTS else 0)


def _of_prompt_encoder(tuning: PTuning, width: int) -> int:
    """The vectors, and a network on them of which only they are kept in the end."""
    hidden = tuning.hidden_size or width
    vectors = tuning.num_virtual_tokens * width
    if tuning.encoder == "mlp":
        return vectors + _layer(width, hidden) + _layer(hidden, hidden) + _layer(hidden, width)
    # Each layer of an LSTM has four gates a direction, with two biases each; the second layer reads both directions.
    lstm = sum(2 * 4 * hidden * (inputs + hidden + 2) for inputs in (width, 2 * hidden))
    return vectors + lstm + _layer(2 * hidden, 2 * hidden) + _layer(2 * hidden, width)


def _of_prefix(tuning: PrefixTuning, sizes: ModelSizes) -> int:
    """Keys and values of each layer, or what they are made by."""
    outputs = 2 * sizes.num_layers * sizes.kv_size
    if not tuning.projection:
        return tuning.num_virtual_tokens * outputs
    hidden = tuning.hidden_size or sizes.kv_size
    return tuning.num_virtual_tokens * sizes.kv_size + _layer(sizes.kv_size, hidden) + _layer(hidden, outputs)


def _layer(inputs: int, outputs: int) -> int:
    """A linear one, with its bias."""
    return (inputs + 1) * outputs
