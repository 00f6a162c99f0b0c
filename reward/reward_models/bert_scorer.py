"""A BERT reward model as a scorer."""

from collections.abc import Sequence

import torch

from plumbob.configs.settings.rewards import ModelReward
from plumbob.reward.reward_models.batched_scores import calibrated_scores, scores_in_batches
from plumbob.reward.reward_models.bert_encoding import EncodedPair, Pair, encode_pairs, pad_pairs
from plumbob.reward.reward_models.bert_model import RewardModel, check_length, load_reward_model, rewards_of
from plumbob.reward.reward_models.calibration import load_calibration
from plumbob.reward.scorer import Score, ScoreRequest


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
        self._name, self._tokenizer = reward.model.name, reward_model.tokenizer
        self._batch_size = reward.batch_size
        self._max_tokens = reward.max_tokens
        self._device = device

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """Scores in the order of the requests; the raw score is the part `raw`.

        Raises:
            ScoreError: a raw score is NaN or infinite.
        """
        raw = self.raw_scores([request.pair_for(self._name) for request in requests])
        return calibrated_scores(raw, requests, self.calibration)

    @torch.inference_mode()
    def raw_scores(self, pairs: Sequence[Pair]) -> list[float]:
        """The model's own output for each pair, in the order given, before calibration."""
        encoded = encode_pairs(self._tokenizer, pairs, self._max_tokens)
        return scores_in_batches(encoded, lambda pair: len(pair.input_ids), self._batch_size, self._forward)

    def _forward(self, rows: Sequence[EncodedPair]) -> list[float]:
        inputs = pad_pairs(self._tokenizer, rows)
        found: list[float] = rewards_of(
            self._model, {key: value.to(self._device) for key, value in inputs.items()}
        ).tolist()
        return found
