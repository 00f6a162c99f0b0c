"""Likelihoods of sentences, token by token against plain transformers, whatever they are batched with."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BertForMaskedLM

from plumbob.configs.settings.models import ModelRef
from plumbob.core.errors import UserError
from plumbob.models.loading import open_policy
from plumbob.models.masked_lm import open_encoder
from plumbob.models.sentence_likelihoods import CausalLikelihoods, masked_pair_likelihoods, shared_columns
from tests.support.tiny_policy import EOS, write_policy
from tests.support.tiny_scorer import MASK, A, bert_config, bert_tokenizer, write_scorer


def test_a_causal_model_is_asked_for_every_token(tmp_path: Path) -> None:
    folder = write_policy(tmp_path)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    texts = ["the car", "a red engine has four doors", "x"]

    def by_hand(prompt: list[int], response: list[int]) -> list[float]:
        with torch.no_grad():
            logprobs = model(torch.tensor([prompt + response])).logits[0].double().log_softmax(dim=-1)
        return [float(logprobs[len(prompt) + place - 1, token]) for place, token in enumerate(response)]

    likelihoods = CausalLikelihoods(open_policy(ModelRef(folder, "policy.model")), batch_size=2)
    # Its tokenizer has no BOS: the first token follows an EOS.
    expected = [sum(by_hand([EOS], tokenizer(text)["input_ids"])) for text in texts]
    assert likelihoods.of_sentences(texts) == pytest.approx(expected, abs=1e-4)

    answers = [("the car", " has four doors"), ("a", " red")]
    means = [np.mean(by_hand(tokenizer(p)["input_ids"], [*tokenizer(r)["input_ids"], EOS])) for p, r in answers]
    assert likelihoods.of_responses(answers) == pytest.approx(means, abs=1e-4)


def test_which_tokens_two_sentences_share() -> None:
    # "the poor man sat" and "the rich old man sat": the, man and sat.
    assert shared_columns([1, 5, 3, 4], [1, 6, 7, 3, 4]) == ([0, 2, 3], [0, 3, 4])


def test_a_masked_model_is_asked_for_the_shared_tokens_one_by_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = BertForMaskedLM(bert_config(initializer_range=0.4)).eval()
    model.save_pretrained(tmp_path)
    bert_tokenizer().save_pretrained(tmp_path)

    def by_hand(text: str, shared: str) -> float:
        ids = bert_tokenizer()(text)["input_ids"]
        total = 0.0
        for place, letter in enumerate(text.split(), 1):
            if letter in shared:
                masked = torch.tensor([ids])
                masked[0, place] = MASK
                with torch.no_grad():
                    total += float(model(masked).logits[0, place].double().log_softmax(-1)[A + ord(letter) - ord("a")])
        return total

    pairs = [("a b c d", "a x c d"), ("p q", "p r s q"), ("e", "f")]
    found = masked_pair_likelihoods(open_encoder(ModelRef(str(tmp_path), "policy.model")), pairs, batch_size=3)
    expected = [[by_hand(text, shared) for text in pair] for pair, shared in zip(pairs, ("acd", "pq", ""), strict=True)]
    assert found == pytest.approx(np.array(expected), abs=1e-5)


def test_an_encoder_without_a_head_for_masked_words_is_refused(tmp_path: Path) -> None:
    folder = str(write_scorer(tmp_path))
    with pytest.raises(UserError, match="the weights lack cls"):
        masked_pair_likelihoods(open_encoder(ModelRef(folder, "policy.model")), [("a", "b")], 2)
