"""Where a model comes from: a Hugging Face folder, a PEFT adapter folder on its base, or a hub name."""

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_MASKED_LM_MAPPING_NAMES
from transformers.utils.hub import cached_file

from plumbob.configs.base import Dtype
from plumbob.configs.settings.models import EvaluatedPolicySettings, LoraTuning
from plumbob.configs.settings.workers import SamplerEngine, VllmEngine
from plumbob.core.errors import UserError, first_line
from plumbob.models.adapter import CONFIG_FILE, WEIGHTS_FILE
from plumbob.models.weight_files import check_file, check_weights

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

CONTEXT_NAMES = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "seq_length", "n_ctx")
"""What model configs call the number of positions."""

UNSERVED_BY_VLLM = (
    *("use_dora", "lora_bias", "alora_invocation_tokens", "layer_replication", "use_bdlora", "use_qalora"),
    "target_parameters",
)
"""Settings of PEFT's adapters that change what an adapter computes, and that vLLM 0.32 does not follow
(the last: only for stacked experts, whose layout cannot be read back)."""

PACKAGE_PREFIX = "package:"
CONVERTED_VOCABULARIES = ("tokenizer.model", "tiktoken.model", "tekken.json")
"""Where a tokenizer of another library keeps its vocabulary: transformers converts these for every kind of model."""
TOKENIZER_FILES = ("tokenizer_config.json", "tokenizer.json", "chat_template.jinja")


@dataclass(frozen=True)
class ModelSource:
    """A base model, and the adapter on it when `model` named an adapter folder.

    Attributes:
        base: folder or hub name of the full model.
        adapter: the adapter's folder, or None.
    """

    base: str
    adapter: Path | None

    @property
    def tokenizer_folder(self) -> str:
        """The adapter's folder where it carries a tokenizer that differs from its base's; otherwise the base."""
        if self.adapter is None or not (self.adapter / TOKENIZER_FILES[0]).exists():
            return self.base
        own, base = (
            [_content(Path(folder) / name) for name in TOKENIZER_FILES] for folder in (self.adapter, self.base)
        )
        return self.base if own == base else str(self.adapter)


def located(name: str, key: str) -> str:
    """`package:NAME/FOLDER` becomes that folder inside the installed Python package; any other name stays as it is.

    Raises:
        UserError: the package is not installed, or has no such folder.
    """
    if not name.startswith(PACKAGE_PREFIX):
        return name
    package, _, inner = name.removeprefix(PACKAGE_PREFIX).partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"{key}={name}: the Python package {package} is not installed; install it, or give a folder")
    folder = Path(spec.submodule_search_locations[0]) / inner
    if not folder.is_dir():
        raise UserError(f"{key}={name}: {folder} is no folder")
    return str(folder)


def resolve_model(model: str, key: str) -> ModelSource:
    """Find out what `model` is; `key` is the setting to name in an error.

    Raises:
        UserError: the folder is missing, holds neither a model nor an adapter, an adapter that is no LoRA, or weights
            that are not whole.
    """
    model = located(model, key)
    folder = Path(model).expanduser()
    if not folder.is_dir():
        looks_like_a_path = folder.is_absolute() or model.startswith((".", "~")) or model.count("/") > 1
        if looks_like_a_path:
            raise UserError(f"{key}={model}: no such folder")
        return ModelSource(model, None)
    if (folder / CONFIG_FILE).exists():
        config = read_adapter_config(folder)
        if config.get("peft_type") != "LORA" or not isinstance(config.get("r"), int):
            raise UserError(
                f"{key}={model}: is an adapter of peft_type {config.get('peft_type')}, and only LORA can be gone on "
                f"with; merge it into its base first (peft's merge_and_unload) and give the result"
            )
        base = config.get("base_model_name_or_path")
        if not base:
            raise UserError(
                f"{folder / CONFIG_FILE}: base_model_name_or_path is missing; write the base model's folder there"
            )
        check_file(folder / WEIGHTS_FILE, key)
        return ModelSource(resolve_model(base, f"base_model_name_or_path of {folder}").base, folder)
    if (folder / "config.json").exists():
        check_weights(folder, key)
        return ModelSource(str(folder), None)
    raise UserError(f"{key}={model}: the folder has neither config.json (a model) nor {CONFIG_FILE} (a PEFT adapter)")


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """What PEFT wrote beside an adapter's weights. Raises UserError when either cannot be read."""
    if not (folder / WEIGHTS_FILE).exists():
        raise UserError(f"{folder / WEIGHTS_FILE}: is missing; save the adapter as safetensors, PEFT's own default")
    try:
        return dict(json.loads((folder / CONFIG_FILE).read_text()))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder / CONFIG_FILE}: cannot be read: {first_line(error)}; save the adapter again"
        ) from error


def load_config(source: ModelSource, key: str, trust_remote_code: bool) -> Any:
    try:
        return AutoConfig.from_pretrained(source.base, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        reason = f"{key}={source.base}: cannot be read as a model: {first_line(error)}"
        if not Path(source.base).is_dir():
            reason += "; give a folder, or a name on the hub where this machine reaches it"
        raise UserError(reason) from error


def context_tokens(source: ModelSource, key: str, trust_remote_code: bool) -> int:
    """Positions that the model has for a prompt and its response together.

    Raises:
        UserError: its config does not say.
    """
    config = load_config(source, key, trust_remote_code).get_text_config()
    found = next((value for name in CONTEXT_NAMES if isinstance(value := getattr(config, name, None), int)), None)
    if found is not None and config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        with torch.device("meta"):
            return found - num_reserved_positions(AutoModelForMaskedLM.from_config(config))
    if found is None:
        raise UserError(
            f"{key}={source.base}: its config.json does not say how many positions the model has; write "
            f'"max_position_embeddings": N into it'
        )
    return found


def num_reserved_positions(model: Any) -> int:
    """Rows of a position table that no token of a text has: RoBERTa and its kin count from after the padding's."""
    table = getattr(getattr(model.base_model, "embeddings", None), "position_embeddings", None)
    padding_index = getattr(table, "padding_idx", None)
    return 0 if padding_index is None else padding_index + 1


def check_causal_lm(config: Any, key: str, source: ModelSource) -> None:
    """Raises UserError when the model does not predict next tokens."""
    architectures = config.architectures or []
    causal_by_type = not architectures and config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    if not causal_by_type and not any("CausalLM" in name or "LMHead" in name for name in architectures):
        raise UserError(
            f"{key}={source.base}: {', '.join(architectures) or config.model_type} is not a causal language model; "
            f"give one whose architecture is ...ForCausalLM"
        )


def check_full(source: ModelSource, key: str, setting: str = "policy.tuning") -> None:
    """Raises UserError when the source is an adapter, whose base would have to be merged with it first."""
    if source.adapter is not None:
        raise UserError(
            f"{key}={source.adapter}: is an adapter, and training all weights needs a full model; merge it into its "
            f"base first (peft's merge_and_unload), or set {setting}.kind=lora to go on training the adapter"
        )


def load_tokenizer(source: ModelSource, key: str, trust_remote_code: bool) -> Any:
    """The tokenizer of a policy.

    Raises:
        UserError: there is none, it has no EOS or no pad token, or the model beside it is no causal language model.
    """
    check_causal_lm(load_config(source, key, trust_remote_code), key, source)
    tokenizer = open_tokenizer(source.tokenizer_folder, key, trust_remote_code)
    for role in ("eos", "pad"):
        if getattr(tokenizer, f"{role}_token_id") is None:
            raise UserError(
                f"{key}={source.tokenizer_folder}: the tokenizer has no {role} token; set one with "
                f'tokenizer.{role}_token = "..." and tokenizer.save_pretrained(FOLDER), then point {key} there'
            )
    return tokenizer


def open_tokenizer(name: str, key: str, trust_remote_code: bool = False) -> Any:
    """The tokenizer of a folder or hub name.

    Raises:
        UserError: there is none. transformers then makes up one of the model's kind, with a vocabulary of its own.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise UserError(f"{key}={name}: no tokenizer can be loaded: {first_line(error)}") from error
    files = sorted(set(tokenizer.vocab_files_names.values()))
    if files and not any(_has_file(name, file) for file in (*files, *CONVERTED_VOCABULARIES)):
        raise UserError(
            f"{key}={name}: no tokenizer can be loaded: there is none of {', '.join(files)}; save the model's own "
            f"there, with tokenizer.save_pretrained(FOLDER)"
        )
    return tokenizer


def _has_file(name: str, file: str) -> bool:
    try:
        cached_file(name, file)
    except OSError:
        return False
    return True


def load_causal_lm(
    source: ModelSource, key: str, dtype: Dtype, trust_remote_code: bool, with_dropout: bool = True
) -> Any:
    """The base model, without its adapter. Only safetensors are read.

    Args:
        with_dropout: False switches off, in training too, what dropout its config asks for.

    Raises:
        UserError: it cannot be loaded, or is no causal language model.
    """
    config = load_config(source, key, trust_remote_code)
    check_causal_lm(config, key, source)
    if not with_dropout:
        for part in (config, config.get_text_config()):
            rates = [name for name, value in vars(part).items() if "drop" in name and isinstance(value, float)]
            for name in rates:
                setattr(part, name, 0.0)
    try:
        return AutoModelForCausalLM.from_pretrained(
            source.base,
            config=config,
            dtype=DTYPES[dtype],
            trust_remote_code=trust_remote_code,
            use_safetensors=True,
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"{key}={source.base}: the weights cannot be loaded: {first_line(error)}") from error


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def baseline_source(policy: EvaluatedPolicySettings) -> ModelSource:
    """What an evaluated policy is compared with: what was asked for, or else the policy's own base."""
    if policy.baseline is not None:
        return resolve_model(policy.baseline, "policy.baseline")
    return ModelSource(resolve_model(policy.model, "policy.model").base, None)


def check_servable(source: ModelSource, key: str, engine: SamplerEngine) -> None:
    """Raises UserError when the adapter has more parts than can be switched by role and loaded by the sampler."""
    if source.adapter is None:
        return
    config = read_adapter_config(source.adapter)
    refused = ("modules_to_save", *(UNSERVED_BY_VLLM if isinstance(engine, VllmEngine) else ()))
    extras = [name for name in refused if config.get(name)]
    if config.get("bias", "none") != "none":
        extras.append("bias")
    if extras:
        raise UserError(
            f"{key}={source.adapter}: the adapter was trained with {', '.join(extras)}, which cannot be served; merge "
            f"it into its base first (peft's merge_and_unload) and give the result"
        )


def served_rank(source: ModelSource, tuning: LoraTuning) -> int:
    """The LoRA rank that a sampler must hold for a policy trained from `source`."""
    return tuning.rank if source.adapter is None else int(read_adapter_config(source.adapter)["r"])
