"""The reward model: an encoder with one output, and its own tokenizer; and the scorer that serves it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoConfig, AutoModelForSequenceClassification

from configs.errors import UserError
from models.source import located, num_reserved_positions, open_tokenizer
from models.weights import check_weights
from reward.calibration import load_calibration
from reward.scorer import Score, ScoreError

KEY = "reward.model"
"""The setting that names the model, for error messages."""

Pair = tuple[str, str]

# --------------------------------------------------------------------------------------------------------- the model


@dataclass(frozen=True)
class RewardModel:
    """A transformers sequence-classification model with one output, in float32, and its tokenizer."""

    model: Any
    tokenizer: Any


def load_reward_model(name: str, key: str = KEY) -> RewardModel:
    """A trained reward model, from a Hugging Face folder or a hub name, in evaluation mode.

    Args:
        key: the setting that named it.

    Raises:
        UserError: it cannot be read, is no sequence classifier, has another number of outputs than one, or lacks its
            head (which would silently be made of random numbers).
    """
    _check_config(name, key)
    model, info = _load(
        AutoModelForSequenceClassification,
        name,
        key,
        dtype=torch.float32,
        use_safetensors=True,
        output_loading_info=True,
    )
    if info["missing_keys"]:
        raise UserError(
            f"{key}={name}: the weights lack {', '.join(sorted(info['missing_keys']))}: "
            f"the folder is not whole, copy it again"
        )
    return _with_tokenizer(model.eval(), name, key)


def check_scorer(name: str, normalize: bool, max_tokens: int, key: str = KEY) -> None:
    """What can be told of a trained reward model before it is loaded.

    Raises:
        UserError: it is no sequence classifier with one output, its weights are not whole, it has no tokenizer, it has
            no positions for `max_tokens`, or `normalize` asks for a calibration that is absent.
    """
    config = _check_config(name, key)
    folder = Path(located(name, key))
    if folder.is_dir():
        check_weights(folder, key)
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(config)
    check_length(RewardModel(model, _load_tokenizer(name, key)), name, max_tokens, key)
    if normalize:
        load_calibration(name, key)


def _check_config(name: str, key: str) -> Any:
    config = _load(AutoConfig, name, key)
    architectures = config.architectures or [config.model_type]
    if not any(architecture.endswith("ForSequenceClassification") for architecture in architectures):
        raise UserError(
            f"{key}={name}: {', '.join(architectures)} is no reward model; expected a ...ForSequenceClassification "
            f"with one output: train one with a reward run"
        )
    if config.num_labels != 1:
        raise UserError(
            f"{key}={name}: the classifier has {config.num_labels} outputs, a reward model has one: "
            f"train one with a reward run"
        )
    return config


def new_reward_model(encoder: str) -> RewardModel:
    """An encoder with a new head of one output, to be trained; a reward model keeps the head that it has.

    The new head is drawn from torch's global random numbers: seed them first.

    Args:
        encoder: Hugging Face folder or hub name.

    Raises:
        UserError: it cannot be read, or cannot carry a classification head.
    """
    model = _load(
        AutoModelForSequenceClassification,
        encoder,
        KEY,
        num_labels=1,
        dtype=torch.float32,
        use_safetensors=True,
        ignore_mismatched_sizes=True,
    )
    return _with_tokenizer(model, encoder, KEY)


def rewards_of(model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    """The raw rewards of padded inputs, float32 [B]."""
    rewards: Tensor = model(**inputs).logits
    return rewards.squeeze(-1).float()


def check_length(reward_model: RewardModel, name: str, max_tokens: int, key: str = KEY) -> None:
    """Raises UserError when the model has no positions for `max_tokens`, or those leave no room for text."""
    setting = f"{key.partition('.')[0]}.max_tokens"
    limit = getattr(reward_model.model.config, "max_position_embeddings", None)
    if limit is not None:
        limit -= num_reserved_positions(reward_model.model)
        if max_tokens > limit:
            raise UserError(f"{setting}={max_tokens}: {key}={name} takes at most {limit} tokens; set {setting}={limit}")
    num_special = reward_model.tokenizer.num_special_tokens_to_add(pair=True)
    if max_tokens <= num_special:
        raise UserError(f"{setting}={max_tokens}: {num_special} of them are special tokens; give more")


def _load(auto_class: Any, name: str, key: str, **options: Any) -> Any:
    try:
        return auto_class.from_pretrained(located(name, key), **options)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().split("\n")[0]
        instead = "" if Path(name).is_dir() else "; give a folder, or a name on the hub where this machine reaches it"
        raise UserError(f"{key}={name}: cannot be loaded as a reward model: {reason}{instead}") from error


def _with_tokenizer(model: Any, name: str, key: str) -> RewardModel:
    tokenizer = _load_tokenizer(name, key)
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    return RewardModel(model, tokenizer)


def _load_tokenizer(name: str, key: str) -> Any:
    tokenizer = open_tokenizer(located(name, key), key)
    if not tokenizer.is_fast:
        raise UserError(
            f"{key}={name}: the tokenizer has no tokenizer.json, which a reward model needs; save one there"
        )
    if tokenizer.pad_token_id is None:
        raise UserError(
            f'{key}={name}: the tokenizer has no pad token; set one with tokenizer.pad_token = "..." and '
            f"tokenizer.save_pretrained(FOLDER)"
        )
    return tokenizer


# ---------------------------------------------------------------------------------------------------------- the text


@dataclass(frozen=True)
class EncodedPair:
    """A prompt and a response as the model's tokens, special ones included: both lists have one length."""

    input_ids: list[int]
    token_type_ids: list[int]


def encode_pairs(tokenizer: Any, pairs: Sequence[Pair], max_tokens: int) -> list[EncodedPair]:
    """(prompt, response) as text pairs of at most `max_tokens` tokens, special ones included.

    What is too long loses the beginning of the prompt first, since the end of a dialogue says what is being answered;
    a response that does not fit even alone loses its end.
    """
    if not pairs:
        return []
    room = max_tokens - tokenizer.num_special_tokens_to_add(pair=True)
    prompts, responses = (
        tokenizer(list(texts), add_special_tokens=False, verbose=False).encodings for texts in zip(*pairs, strict=True)
    )
    encoded = []
    for prompt, response in zip(prompts, responses, strict=True):
        response.truncate(room, direction="right")
        prompt.truncate(room - len(response), direction="left")
        whole = tokenizer.backend_tokenizer.post_process(prompt, response)
        encoded.append(EncodedPair(whole.ids, whole.type_ids))
    return encoded


def pad_pairs(tokenizer: Any, encoded: Sequence[EncodedPair]) -> dict[str, Tensor]:
    """What the model is called with: int64 [B, T] each, padded on the right to the longest of them."""
    width = max(len(pair.input_ids) for pair in encoded)
    input_ids = torch.full((len(encoded), width), tokenizer.pad_token_id, dtype=torch.long)
    token_type_ids = torch.zeros_like(input_ids)
    attention_mask = torch.zeros_like(input_ids)
    for row, pair in enumerate(encoded):
        length = len(pair.input_ids)
        input_ids[row, :length] = torch.tensor(pair.input_ids)
        token_type_ids[row, :length] = torch.tensor(pair.token_type_ids)
        attention_mask[row, :length] = 1
    inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
    if "token_type_ids" in tokenizer.model_input_names:
        inputs["token_type_ids"] = token_type_ids
    return inputs


# -------------------------------------------------------------------------------------------------------- the scorer


class BertScorer:
    """Scores answers with a trained reward model.

    Args:
        name: folder or hub name of the model.
        batch_size: answers in one forward. Changes memory and speed, never a score.
        max_tokens: of prompt and response together, the reward model's own tokens.
        normalize: apply the stored calibration.
        key: the setting that names the model, for error messages.

    Raises:
        UserError: the model cannot be used, or `normalize` asks for a calibration that is not there.
    """

    def __init__(
        self, name: str, batch_size: int, max_tokens: int, normalize: bool, device: str = "cpu", key: str = KEY
    ) -> None:
        self.calibration = load_calibration(name, key) if normalize else None
        reward_model = load_reward_model(name, key)
        check_length(reward_model, name, max_tokens, key)
        self._model = reward_model.model.to(device)
        self._tokenizer = reward_model.tokenizer
        self._batch_size = batch_size
        self._max_tokens = max_tokens
        self._device = device

    def score(self, pairs: Sequence[Pair]) -> list[Score]:
        """Scores of (prompt, response) texts in the order given; the raw score is the part `raw`.

        Raises:
            ScoreError: a raw score is NaN or infinite.
        """
        return [Score(self._normalized(raw), {"raw": raw}) for raw in self.raw_scores(pairs)]

    @torch.inference_mode()
    def raw_scores(self, pairs: Sequence[Pair]) -> list[float]:
        """The model's own output for each pair, in the order given, before calibration."""
        encoded = encode_pairs(self._tokenizer, pairs, self._max_tokens)
        # Alike lengths together, so that little of a batch is padding; the longest first, so that memory peaks at once.
        order = sorted(range(len(encoded)), key=lambda row: len(encoded[row].input_ids), reverse=True)
        raw = [0.0] * len(encoded)
        for start in range(0, len(order), self._batch_size):
            rows = order[start : start + self._batch_size]
            inputs = pad_pairs(self._tokenizer, [encoded[row] for row in rows])
            rewards = rewards_of(self._model, {key: value.to(self._device) for key, value in inputs.items()})
            for row, reward in zip(rows, rewards.tolist(), strict=True):
                raw[row] = reward
        broken = tuple(row for row, reward in enumerate(raw) if not math.isfinite(reward))
        if broken:
            prompt, response = pairs[broken[0]]
            raise ScoreError(
                f"the reward model's score is not finite for {len(broken)} answers; the first is {response[:80]!r} to "
                f"...{prompt[-80:]!r}",
                broken,
            )
        return raw

    def _normalized(self, raw: float) -> float:
        return raw if self.calibration is None else (raw - self.calibration.mean) / self.calibration.std
