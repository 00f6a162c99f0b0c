import math
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertForSequenceClassification,
    BertModel,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from plumbob.configs.settings.models import REWARD_MODEL, ModelRef
from plumbob.core.errors import UserError
from plumbob.reward.reward_models.bert_model import (
    RewardModel,
    check_length,
    check_reward_model,
    load_reward_model,
    new_reward_model,
    rewards_of,
)
from plumbob.reward.reward_models.bert_scorer import BertScorer
from plumbob.reward.reward_models.calibration import Calibration, save_calibration
from plumbob.reward.scorer import ScoreError
from tests.support.score_requests import score_requests
from tests.support.tiny_scorer import CLS, SEP, A, bert_config, bert_tokenizer, model_reward, write_scorer

PAIRS = [("a b c", "d e"), ("a", "b c d e f g h"), ("", "x"), ("p q r s t u v w", ""), ("a b", "c")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_scorer(tmp_path_factory.mktemp("reward_model"))


@pytest.fixture
def broken(folder, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(folder, tmp_path / "reward_model")


def named(name) -> ModelRef:
    return ModelRef(str(name), REWARD_MODEL)


def ids(text: str) -> list[int]:
    names = {"C": CLS, "S": SEP}
    return [names.get(letter, A + ord(letter) - ord("a")) for letter in text]


# ---------------------------------------------------------------------------------------------------------- the scorer


def test_scores_are_those_of_plain_transformers_whatever_the_batch(folder):
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        expected = [model(**tokenizer([p], [r], return_tensors="pt")).logits.item() for p, r in PAIRS]
    assert max(expected) - min(expected) > 0.1
    for batch_size in (1, 2, 8):
        found = BertScorer(model_reward(folder, batch_size)).score(score_requests(PAIRS))
        assert [score.total for score in found] == pytest.approx(expected, abs=1e-5)
        assert [score.parts["raw"] for score in found] == [score.total for score in found]


def test_the_order_of_the_responses_does_not_matter(folder):
    scorer = BertScorer(model_reward(folder, batch_size=2))
    assert scorer.raw_scores(PAIRS[::-1]) == pytest.approx(scorer.raw_scores(PAIRS)[::-1], abs=1e-5)
    assert scorer.score([]) == []


def test_the_stored_calibration_is_applied(broken):
    save_calibration(Calibration(mean=3.0, std=0.5, num_samples=9, under="x"), broken)
    raw = BertScorer(model_reward(broken)).raw_scores(PAIRS)
    found = BertScorer(model_reward(broken, is_calibrated=True)).score(score_requests(PAIRS))
    assert [score.total for score in found] == pytest.approx([(value - 3.0) * 2 for value in raw])
    assert [score.parts["raw"] for score in found] == raw


def test_normalising_without_a_calibration_is_refused(folder):
    with pytest.raises(UserError, match=r"calibration\.json .*reward\.normalize=false"):
        BertScorer(model_reward(folder, is_calibrated=True))


def test_a_score_that_is_not_finite_is_raised_with_its_rows(broken):
    weights = load_file(broken / "model.safetensors")
    # Finite, as weights must be; the norm of their sum is not.
    weights["bert.embeddings.word_embeddings.weight"][ids("x")[0]] = 3e38
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    scorer = BertScorer(model_reward(broken))
    with pytest.raises(ScoreError, match=r"for 1 responses; the first is 'x' to") as caught:
        scorer.score(score_requests(PAIRS))
    assert caught.value.rows == (2,)


def test_a_model_without_token_types_is_scored_too(tmp_path):
    torch.manual_seed(0)
    config = DistilBertConfig(
        vocab_size=31, dim=16, n_layers=1, n_heads=2, hidden_dim=32, max_position_embeddings=32, num_labels=1
    )
    DistilBertForSequenceClassification(config).save_pretrained(tmp_path)
    bert_tokenizer(model_input_names=["input_ids", "attention_mask"]).save_pretrained(tmp_path)
    scores = BertScorer(model_reward(tmp_path)).score(score_requests(PAIRS))
    assert all(math.isfinite(score.total) for score in scores)


# --------------------------------------------------------------------------------------------------- what it refuses


def test_an_encoder_without_a_head_is_no_reward_model(tmp_path):
    BertModel(bert_config()).save_pretrained(tmp_path)
    bert_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"BertModel is no reward model"):
        load_reward_model(named(tmp_path))


def test_a_classifier_of_several_classes_is_no_reward_model(tmp_path):
    BertForSequenceClassification(bert_config(num_labels=3)).save_pretrained(tmp_path)
    bert_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"has 3 outputs"):
        load_reward_model(named(tmp_path))


def test_a_head_missing_from_the_weights_is_not_made_of_random_numbers(broken):
    weights = load_file(broken / "model.safetensors")
    del weights["classifier.weight"]
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"lack classifier\.weight"):
        load_reward_model(named(broken))


@pytest.mark.parametrize("spoil", ["cut", "absent", "no config"])
def test_files_that_cannot_be_read_are_one_clear_error(broken, spoil):
    weights = broken / "model.safetensors"
    match spoil:
        case "cut":
            weights.write_bytes(weights.read_bytes()[:1000])
        case "absent":
            weights.unlink()
        case "no config":
            (broken / "config.json").unlink()
    message = {
        "cut": "model.safetensors is damaged",
        "absent": "has no weights",
        "no config": "the folder has neither config.json",
    }[spoil]
    with pytest.raises(UserError, match=f"reward.model={broken}: {message}"):
        load_reward_model(named(broken))


def test_a_missing_folder_is_one_clear_error(tmp_path):
    with pytest.raises(UserError, match=r"reward\.model=.*nowhere: no such folder"):
        load_reward_model(named(tmp_path / "nowhere"))


@pytest.mark.parametrize("name", ["score.py", "score.py:main", "a_function_of_mine", "an/empty/folder"])
def test_a_reward_of_ones_own_is_told_what_a_reward_can_be(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # Else it is looked for as a hub's for long.
    (tmp_path / "score.py").write_text("")
    (tmp_path / "an/empty/folder").mkdir(parents=True)
    with pytest.raises(UserError, match=f"reward.model={name}: .*; a reward is a trained reward"):
        check_reward_model(model_reward(name))


def test_a_folder_without_a_tokenizer_is_refused(broken):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (broken / name).unlink()
    given = (named(broken), named(broken), model_reward(broken))
    for use, what in zip((load_reward_model, new_reward_model, check_reward_model), given, strict=True):
        with pytest.raises(UserError, match=r"reward\.model=.*there is none of tokenizer\.json, vocab\.txt"):
            use(what)


def test_a_tokenizer_without_a_pad_token_is_refused(broken):
    tokenizer = AutoTokenizer.from_pretrained(broken)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(broken)
    with pytest.raises(UserError, match="has no pad token"):
        load_reward_model(named(broken))


def test_more_tokens_than_positions_are_refused(folder):
    with pytest.raises(UserError, match=r"reward\.max_tokens=33: .* takes at most 32 tokens"):
        BertScorer(model_reward(folder, max_tokens=33))
    with pytest.raises(UserError, match=r"3 of them are special tokens"):
        BertScorer(model_reward(folder, max_tokens=3))


def test_roberta_has_fewer_positions_than_its_table():
    # Positions are counted from padding_idx + 1 = 2, so a table of 10 serves 8 tokens; 9 would be an index error.
    config = RobertaConfig(
        vocab_size=31,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=10,
        pad_token_id=1,
        num_labels=1,
    )
    reward_model = RewardModel(RobertaForSequenceClassification(config).eval(), bert_tokenizer())
    check_length(reward_model, named("roberta"), 8)
    assert rewards_of(reward_model.model, {"input_ids": torch.full((1, 8), A)}).shape == (1,)
    with pytest.raises((IndexError, RuntimeError), match="out of"):
        rewards_of(reward_model.model, {"input_ids": torch.full((1, 9), A)})
    with pytest.raises(UserError, match="at most 8 tokens"):
        check_length(reward_model, named("roberta"), 9)


# ------------------------------------------------------------------------------------------------------- a new head


@pytest.mark.parametrize("num_labels", [None, 3])
def test_a_new_head_goes_on_the_encoder_as_it_is(tmp_path, num_labels):
    # From a bare encoder, and from a classifier of three classes, whose head does not fit.
    torch.manual_seed(0)
    old = BertModel(bert_config()) if num_labels is None else BertForSequenceClassification(bert_config(num_labels=3))
    old.save_pretrained(tmp_path / "encoder")
    bert_tokenizer().save_pretrained(tmp_path / "encoder")
    made = new_reward_model(named(tmp_path / "encoder"))
    assert made.model.classifier.weight.shape == (1, 16)
    assert made.model.config.num_labels == 1
    torch.testing.assert_close(made.model.bert.state_dict(), old.base_model.state_dict(), rtol=0, atol=0)

    made.model.save_pretrained(tmp_path / "reward_model")
    made.tokenizer.save_pretrained(tmp_path / "reward_model")
    loaded = load_reward_model(named(tmp_path / "reward_model")).model
    torch.testing.assert_close(loaded.state_dict(), made.model.state_dict(), rtol=0, atol=0)
    assert not loaded.training


def test_a_reward_model_keeps_its_head(folder):
    head = new_reward_model(named(folder)).model.classifier.weight
    assert torch.equal(head, load_reward_model(named(folder)).model.classifier.weight)


def test_rewards_are_float32_and_one_a_row(folder):
    model = load_reward_model(named(folder)).model.bfloat16()
    rewards = rewards_of(model, {"input_ids": torch.full((3, 4), A)})
    assert (rewards.dtype, tuple(rewards.shape)) == (torch.float32, (3,))
