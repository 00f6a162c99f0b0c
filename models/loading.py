"""Opening a model once, its config and tokenizer, for whoever needs them; and loading its weights."""

from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_MASKED_LM_MAPPING_NAMES

from plumbob.configs.settings.models import EvaluatedPolicySettings, ModelRef
from plumbob.configs.settings.tuning.any_tuning import PROMPT_TYPES
from plumbob.core.errors import NUM_NAMED, UserError
from plumbob.core.outside import from_outside
from plumbob.models.adapter import CONFIG_FILE
from plumbob.models.files.tokenizer_files import open_tokenizer
from plumbob.models.files.weight_files import COPY_AGAIN, NOT_FINITE, give_folder
from plumbob.models.library.base_digest import resolve_checked
from plumbob.models.quantization.forms import loading_options
from plumbob.models.resolution import BASE_KEY, ModelSource, read_adapter_config, resolve_model
from plumbob.models.sizes.config_sizes import check_config_sizes

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

CONTEXT_NAMES = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "seq_length", "n_ctx")
"""What model configs call the number of positions."""


# ------------------------------------------------------------------------------------------------------- opened models


@dataclass(frozen=True)
class OpenedModel:
    """A model found and its config read; opened once and carried. Its weights are not loaded.

    Attributes:
        ref: what named it, for errors.
        source: its base and the adapter on it.
        config: transformers' config of the base.
    """

    ref: ModelRef
    source: ModelSource
    config: Any

    @cached_property
    def tokenizer(self) -> Any:
        """Loaded when it is first asked for: a reference needs none. Raises UserError when it cannot be used."""
        return self._open_tokenizer()

    def empty(self, auto_class: Any, refusal: str = "no model can be made by its config.json", fix: str = "") -> Any:
        """The model's modules, without weights. Raises UserError, with `refusal`, when its config makes none."""
        what = f"{self.ref.setting}={self.source.base}: {refusal}"
        with from_outside(what, fix or COPY_AGAIN), torch.device("meta"):
            return auto_class.from_config(self.config, trust_remote_code=self.ref.trust_remote_code)

    def _open_tokenizer(self) -> Any:
        return open_tokenizer(self.source.tokenizer_folder, self.ref.setting, self.ref.trust_remote_code)

    @property
    def num_positions(self) -> int:
        """Positions that the model has for a text, such as a prompt and its response together, after its soft prompt.

        Raises:
            UserError: its config does not say.
        """
        config = self.config.get_text_config()
        found = next((value for name in CONTEXT_NAMES if isinstance(value := getattr(config, name, None), int)), None)
        if found is None:
            raise UserError(
                f"{self.ref.setting}={self.source.base}: its config.json does not say how many positions the model "
                f'has; write "max_position_embeddings": N into it'
            )
        if config.model_type not in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
            return found - self.num_virtual_tokens
        return found - num_reserved_positions(self.empty(AutoModelForMaskedLM))

    @property
    def num_virtual_tokens(self) -> int:
        """Of the soft prompt that is on the model, or is to be put on it; 0 where there is none."""
        adapter = self.source.adapter
        if adapter is None or not (adapter / CONFIG_FILE).is_file():  # A sampler has a folder there with a tokenizer.
            return self.ref.num_virtual_tokens
        config = read_adapter_config(adapter)
        return int(config["num_virtual_tokens"]) if config["peft_type"] in PROMPT_TYPES else 0


class OpenedPolicy(OpenedModel):
    """A causal language model, whose tokenizer has an EOS and a pad token."""

    def _open_tokenizer(self) -> Any:
        tokenizer, setting = super()._open_tokenizer(), self.ref.setting
        for role in ("eos", "pad"):
            if getattr(tokenizer, f"{role}_token_id") is None:
                raise UserError(
                    f"{setting}={self.source.tokenizer_folder}: the tokenizer has no {role} token; set one with "
                    f'tokenizer.{role}_token = "..." and tokenizer.save_pretrained(FOLDER), then point {setting} there'
                )
        _fit_to_embeddings(tokenizer, self)
        return tokenizer


def _fit_to_embeddings(tokenizer: Any, opened: OpenedModel) -> None:
    """Tokens that were added to a tokenizer, and to which its model was not resized.

    Padding is masked, so that another id can stand for it. A text with such a token is refused when it is encoded.

    Raises:
        UserError: what begins or ends a text has no embedding.
    """
    number = getattr(opened.config.get_text_config(), "vocab_size", None)
    if number is None:
        return
    for role in ("eos", "bos"):
        token_id = getattr(tokenizer, f"{role}_token_id")
        if token_id is not None and token_id >= number:
            raise UserError(
                f"{opened.ref.setting}={opened.source.tokenizer_folder}: the {role} token has the id {token_id}, and "
                f"the model has embeddings for {number} tokens; resize it with "
                f"model.resize_token_embeddings(len(tokenizer)) and save both again"
            )
    if tokenizer.pad_token_id >= number:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.num_embeddings = number


def open_model(ref: ModelRef) -> OpenedModel:
    """Raises UserError when there is no such model, its config cannot be read, or an adapter's base is another one."""
    source = resolve_checked(ref)
    return OpenedModel(ref, source, _read_config(ref, source))


def open_policy(ref: ModelRef) -> OpenedPolicy:
    """As `open_model`; raises UserError also for a model that does not predict next tokens."""
    return open_base(ref, resolve_checked(ref))


def open_base(ref: ModelRef, source: ModelSource) -> OpenedPolicy:
    """As `open_policy`, where it is known what the name stands for."""
    opened = OpenedPolicy(ref, source, _read_config(ref, source))
    _check_causal_lm(opened)
    return opened


def _read_config(ref: ModelRef, source: ModelSource) -> Any:
    """transformers' config of the base. Raises UserError when there is none, or no weights by it can be used."""
    base = source.base
    with from_outside(f"{ref.setting}={base}: cannot be read as a model", give_folder(base)):
        config = AutoConfig.from_pretrained(base, trust_remote_code=ref.trust_remote_code)
        named = config.architectures or []
        if not isinstance(named, list) or not all(isinstance(name, str) for name in (config.model_type, *named)):
            raise ValueError("architectures and model_type in its config.json must be names")
        check_config_sizes(config, ref, base)
    _check_unquantised(config, ref, source)
    return config


def _check_unquantised(config: Any, ref: ModelRef, source: ModelSource) -> None:
    """Raises UserError when the weights are of fewer bits than can be trained, sampled and compared alike."""
    stored = getattr(config, "quantization_config", None)
    if not stored:
        return
    method = stored.get("quant_method") if isinstance(stored, dict) else getattr(stored, "quant_method", None)
    fix = (
        "give the model that it was made from, or transformers' model.dequantize() of it, saved in a folder of its own"
    )
    if source.adapter is not None:
        fix += f", and write that into {BASE_KEY} of {source.adapter / CONFIG_FILE}"
    raise UserError(
        f"{ref.setting}={source.base}: its config.json says that its weights are quantised "
        f"({getattr(method, 'value', method) or 'quantization_config'}), and only float weights can be loaded; {fix}"
    )


def _check_causal_lm(opened: OpenedModel) -> None:
    architectures, kind = opened.config.architectures or [], opened.config.model_type
    causal_by_type = not architectures and kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    if not causal_by_type and not any("CausalLM" in name or "LMHead" in name for name in architectures):
        raise UserError(
            f"{opened.ref.setting}={opened.source.base}: {', '.join(architectures) or kind} is not a causal language "
            f"model; give one whose architecture is ...ForCausalLM"
        )


def num_reserved_positions(model: Any) -> int:
    """Rows of a position table that no token of a text has: RoBERTa and its variants count from after the padding's."""
    table = getattr(getattr(model.base_model, "embeddings", None), "position_embeddings", None)
    padding_index = getattr(table, "padding_idx", None)
    return 0 if padding_index is None else padding_index + 1


def check_full(opened: OpenedModel, setting: str = "policy.tuning") -> None:
    """Raises UserError when the model is an adapter, whose base would have to be merged with it first."""
    if opened.source.adapter is not None:
        raise UserError(
            f"{opened.ref.setting}={opened.source.adapter}: is an adapter, and training weights of the model itself "
            f"needs a full model; give its base, or merge the two where its kind can be merged (peft's "
            f"merge_and_unload), or set {setting}.kind=lora to train the adapter further"
        )


def load_causal_lm(opened: OpenedPolicy, with_dropout: bool = True) -> Any:
    """The base model, without its adapter, in few bits where its reference says so. Only safetensors are read.

    Args:
        with_dropout: False switches off, in training too, what dropout its config asks for.

    Raises:
        UserError: it cannot be loaded.
    """
    config, ref = opened.config, opened.ref
    if not with_dropout:
        config = deepcopy(config)
        for part in (config, config.get_text_config()):
            rates = [name for name, value in vars(part).items() if "drop" in name and isinstance(value, float)]
            for name in rates:
                setattr(part, name, 0.0)
    return load_weights(
        AutoModelForCausalLM,
        ref,
        opened.source.base,
        config=config,
        dtype=DTYPES[ref.dtype],
        trust_remote_code=ref.trust_remote_code,
        **loading_options(ref.quantization, DTYPES[ref.dtype]),
    )


def load_weights(auto_class: Any, ref: ModelRef, base: str, makes_head: bool = False, **options: Any) -> Any:
    """A model with all its weights. Only safetensors are read.

    Args:
        makes_head: whether weights that are not there are drawn at random, as those of a new head are.
        options: of transformers' `from_pretrained`.

    Raises:
        UserError: they cannot be loaded, are not finite, or some are not there, which would silently be made of random
            numbers.
    """
    with from_outside(f"{ref.setting}={base}: the weights cannot be loaded", give_folder(base)):
        model, found = auto_class.from_pretrained(base, use_safetensors=True, output_loading_info=True, **options)
    absent = sorted(found["missing_keys"])
    if absent and not makes_head:
        named = ", ".join(absent[:NUM_NAMED]) + (f" and {len(absent) - NUM_NAMED} more" * (len(absent) > NUM_NAMED))
        raise UserError(f"{ref.setting}={base}: the weights lack {named}: the folder is not whole, copy it again")
    broken = next((name for name, weight in model.named_parameters() if not _is_finite(weight)), None)
    if broken is not None:
        raise UserError(f"{ref.setting}={base}: {broken} {NOT_FINITE}")
    return model


def _is_finite(weight: torch.Tensor) -> bool:
    """Of one in few bits, whose numbers are codes, its form says so."""
    if not weight.is_floating_point() or weight.dtype.itemsize < 2 or not weight.numel():
        return True
    return all(bool(bound.isfinite()) for bound in weight.detach().aminmax())


def open_baseline(policy: EvaluatedPolicySettings) -> OpenedPolicy | None:
    """What an evaluated policy is compared with: what was asked for, or its own base; a full model has none."""
    if policy.baseline_ref is not None:
        return open_policy(policy.baseline_ref)
    source = resolve_model(policy.ref)
    return None if source.adapter is None else open_base(policy.ref, ModelSource(source.base, None))
