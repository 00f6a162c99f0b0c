"""A reward model that is a decoder, such as Llama with one output, as a scorer."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from plumbob.configs.settings.rewards import ModelReward
from plumbob.data.texts.control_tokens import ControlTokens
from plumbob.data.texts.turns import assistant_turn
from plumbob.data.tokenization import encode_prompt_ids
from plumbob.reward.reward_models.batched_scores import calibrated_scores, scores_in_batches
from plumbob.reward.reward_models.bert_model import RewardModel, check_length, rewards_of
from plumbob.reward.reward_models.calibration import load_calibration
from plumbob.reward.scorer import Score, ScoreRequest


class DecoderScorer:
    """Scores responses with a decoder: its output at the last token of the dialogue, as its own config finds it.

    Chat messages are read as the model's chat template writes them, up to the end of the assistant's turn; a prompt
    that is text is followed by the response and the EOS. What a person or the policy wrote is letters throughout. A
    dialogue above `max_tokens` loses its beginning.

    Raises:
        UserError: the model has no positions for `max_tokens`, or is to be calibrated and has no calibration.
    """

    def __init__(self, reward: ModelReward, loaded: RewardModel, device: str = "cpu") -> None:
        self._calibration = load_calibration(reward.model) if reward.is_calibrated else None
        check_length(loaded, reward.model, reward.max_tokens)
        self._name = reward.model.name
        self._model, self._tokenizer = loaded.model.to(device), loaded.tokenizer
        self._batch_size, self._max_tokens, self._device = reward.batch_size, reward.max_tokens, device
        self._turn, self._control = assistant_turn(loaded.tokenizer), ControlTokens(loaded.tokenizer)
        # Nothing is read behind a dialogue: keys and values that a model kept of it would take as much as its layers.
        loaded.model.config.get_text_config().use_cache = False
        # None: the model scores the last token whatever it is, and the padding may be any other.
        self._pad_id: int | None = loaded.model.config.get_text_config().pad_token_id

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """Scores in the order of the requests; the raw score is the part `raw`.

        Raises:
            ScoreError: a raw score is NaN or infinite.
        """
        return calibrated_scores(self.raw_scores(requests), requests, self._calibration)

    @torch.inference_mode()
    def raw_scores(self, requests: Sequence[ScoreRequest]) -> list[float]:
        """The model's own output for each request, in the order given, before calibration."""
        encoded = [ids[-self._max_tokens :] for ids in encode_prompt_ids(self._tokenizer, self._dialogues(requests))]
        return scores_in_batches(encoded, len, self._batch_size, self._forward)

    def _dialogues(self, requests: Sequence[ScoreRequest]) -> list[str]:
        texts = []
        for request in requests:
            response = self._control.marked(request.response)
            prompt = request.form_prompts.get(self._name)
            if prompt is None or self._turn is None:
                texts.append(self._control.marked(request.prompt) + response + (self._tokenizer.eos_token or ""))
                continue
            texts.append(prompt + self._turn.behind_prompt(response) + self._turn.after)
        return texts

    def _forward(self, rows: Sequence[NDArray[np.int32]]) -> list[float]:
        """The model's output for each row of ids; padded on the right, which the last token never is."""
        pad_id = self._pad_id
        if pad_id is None:
            ends = {int(ids[-1]) for ids in rows}
            pad_id = next(each for each in range(len(ends) + 1) if each not in ends)
            self._model.config.get_text_config().pad_token_id = pad_id
        width = max(map(len, rows))
        input_ids = torch.full((len(rows), width), pad_id, dtype=torch.long)
        attention_mask = torch.zeros_like(input_ids)
        for row, ids in enumerate(rows):
            input_ids[row, : len(ids)] = torch.from_numpy(ids.astype(np.int64))
            attention_mask[row, : len(ids)] = 1
        inputs = {"input_ids": input_ids.to(self._device), "attention_mask": attention_mask.to(self._device)}
        found: list[float] = rewards_of(self._model, inputs).tolist()
        return found
