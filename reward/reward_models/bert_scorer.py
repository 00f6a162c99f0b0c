"""A BERT reward model as a scorer."""

from collections.abc import Sequence

import torch

from plumbob.configs.settings.rewards import ModelReward
from plumbob.reward.reward_models.bert_encoding import Pair, encode_pairs, pad_pairs
from plumbob.reward.reward_models.bert_model import RewardModel, check_length, load_reward_model, rewards_of
from plumbob.reward.reward_models.calibration import load_calibration
from plumbob.reward.scorer import Score, ScoreRequest, finite_scores


class BertScorer:
    """Scores responses with a trained reward model.

    Raises:
        UserError: the model cannot be used, or is to be calibrated and has no calibration.
    """

    def __init__(self, reward: ModelReward, loaded: RewardModel | None = None, device: str = "cpu") -> None:
        self.calibration = load_calibration(reward.model) if reward.is_calibrated else None
        reward_model = load_reward_model(reward.model) if loaded is None else loaded
        check_length(reward_model, reward.model, reward.max_tokens)
        self._model = reward_model.model.to(device)
        self._tokenizer = reward_model.tokenizer
        self._batch_size = reward.batch_size
        self._max_tokens = reward.max_tokens
        self._device = device

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """Scores in the order of the requests; the raw score is the part `raw`.

        Raises:
            ScoreError: a raw score is NaN or infinite.
        """
        raw = finite_scores(self.raw_scores([request.model_pair for request in requests]), requests)
        normalized = raw if self.calibration is None else [self.calibration.normalized(value) for value in raw]
        return [Score(total, {"raw": value}) for total, value in zip(normalized, raw, strict=True)]

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
        return raw
