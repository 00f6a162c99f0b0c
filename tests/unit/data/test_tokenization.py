import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from plumbob.configs.settings.data import LengthSettings
from plumbob.core.errors import UserError
from plumbob.data.records import Demonstration, PreferencePair
from plumbob.data.tokenization import (
    PairBatch,
    TokenBatch,
    TokenSequence,
    TooLong,
    collate,
    encode_demonstrations,
    encode_pairs,
    encode_prompt_ids,
    mask_tokens,
    pack_texts,
)

EOS = 1


def word_tokenizer(template: str, special: dict[str, int], **names: str) -> PreTrainedTokenizerFast:
    """Words a, b, c -> 10, 11, 12; `template` is what the tokenizer itself puts around a text."""
    inner = Tokenizer(models.WordLevel({"a": 10, "b": 11, "c": 12, **special}))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(single=template, special_tokens=list(special.items()))
    return PreTrainedTokenizerFast(tokenizer_object=inner, **names)


@pytest.fixture(scope="module")
def bos_tokenizer() -> PreTrainedTokenizerFast:
    names = {"bos_token": "[B]", "eos_token": "[E]"}
    return word_tokenizer("[B] $A [E]", {"[B]": 2, "[E]": 3}, **names)


def sequence(*ids: int, learnt: int) -> TokenSequence:
    mask = np.arange(len(ids)) >= len(ids) - learnt
    return TokenSequence(np.array(ids, dtype=np.int32), mask)


def encode_response(tokenizer: PreTrainedTokenizerFast, prompt: str, response: str) -> TokenSequence:
    (encoded,) = encode_demonstrations(tokenizer, [Demonstration(prompt, response)], LengthSettings()).records
    return encoded


def test_a_response_is_learnt_with_its_eos_and_the_prompt_is_not(tokenizer: PreTrainedTokenizerFast) -> None:
    encoded = encode_response(tokenizer, "x:", "yz")
    x, colon, y, z = tokenizer.convert_tokens_to_ids(["x", ":", "y", "z"])  # No merges in the trained text join them.
    assert encoded.ids.tolist() == [x, colon, y, z, EOS]
    assert encoded.ids.dtype == np.int32
    assert encoded.loss_mask.tolist() == [False, False, True, True, True]


def test_no_token_reaches_over_the_border_of_prompt_and_response(tokenizer: PreTrainedTokenizerFast) -> None:
    # "the" in one go is a single token, since it was merged in training; cut in two it must stay two parts.
    assert len(tokenizer("the")["input_ids"]) == 1
    encoded = encode_response(tokenizer, "t", "he")
    (prompt_ids,) = encode_prompt_ids(tokenizer, ["t"])
    assert encoded.ids[: len(prompt_ids)].tolist() == prompt_ids.tolist()
    assert tokenizer.decode(encoded.ids[len(prompt_ids) :]) == "he<eos>"


def test_a_bos_stands_once_before_the_prompt_and_the_response_gets_none(bos_tokenizer: PreTrainedTokenizerFast) -> None:
    encoded = encode_response(bos_tokenizer, "a b", "c")
    assert encoded.ids.tolist() == [2, 10, 11, 12, 3]
    # A chat template that writes the BOS itself.
    assert [ids.tolist() for ids in encode_prompt_ids(bos_tokenizer, ["[B] a", "a"])] == [[2, 10], [2, 10]]


def test_a_bos_that_the_tokenizer_does_not_add_is_not_added() -> None:
    tokenizer = word_tokenizer("$A", {"[B]": 2, "[E]": 3}, bos_token="[B]", eos_token="[E]")
    assert encode_prompt_ids(tokenizer, ["a"])[0].tolist() == [10]


@pytest.mark.parametrize(("limits", "dropped"), [((3, 3), (0, 0)), ((2, 3), (1, 0)), ((3, 2), (0, 1))])
def test_limits_count_the_bos_and_the_eos(
    bos_tokenizer: PreTrainedTokenizerFast, limits: tuple[int, int], dropped: tuple[int, int]
) -> None:
    rules = LengthSettings(max_prompt_tokens=limits[0], max_response_tokens=limits[1])
    shown = [Demonstration("a b", "c c")]  # 3 tokens with the BOS, 3 with the EOS
    encoded = encode_demonstrations(bos_tokenizer, shown, rules, required=False)
    assert tuple(sum(one.part == part for one in encoded.dropped) for part in ("prompt", "response")) == dropped
    assert len(encoded.records) == 1 - sum(dropped)


def test_a_side_that_may_be_empty_is(bos_tokenizer: PreTrainedTokenizerFast) -> None:
    assert encode_demonstrations(bos_tokenizer, [], LengthSettings(), required=False).records == ()
    assert encode_pairs(bos_tokenizer, [], LengthSettings(), required=False).notes == ()
    short = LengthSettings(max_response_tokens=1)
    (note,) = encode_pairs(bos_tokenizer, [PreferencePair("a", "b", "c")], short, required=False).notes
    assert note.startswith("1 of 1 pairs dropped")


def test_long_rows_are_dropped_counted_and_reported(bos_tokenizer: PreTrainedTokenizerFast) -> None:
    rules = LengthSettings(max_prompt_tokens=3, max_response_tokens=2)
    pairs = [
        PreferencePair("a", "b", "c"),
        PreferencePair("a a a", "b", "c"),  # 4 tokens with the BOS
        PreferencePair("a", "b", "c c c c"),  # 5 tokens with the EOS
        PreferencePair("a", "b b", "c"),  # 3 tokens with the EOS
    ]
    encoded = encode_pairs(bos_tokenizer, pairs, rules)
    assert [[side.ids.tolist() for side in pair] for pair in encoded.records] == [[[2, 10, 11, 3], [2, 10, 12, 3]]]
    assert (encoded.num_rows, encoded.dropped) == (
        4,
        (TooLong("prompt", 4), TooLong("response", 5), TooLong("response", 3)),
    )
    assert encoded.notes == (
        "1 of 4 pairs dropped, because their prompt is longer than data.max_prompt_tokens=3 "
        "(the longest has 4 tokens).",
        "2 of 4 pairs dropped, because a response with its EOS is longer than data.max_response_tokens=2 "
        "(the longest has 5 tokens).",
    )
    demonstrations = [Demonstration(pair.prompt, pair.chosen) for pair in pairs]
    kept = encode_demonstrations(bos_tokenizer, demonstrations, rules)
    assert [record.ids.tolist() for record in kept.records] == [[2, 10, 11, 3], [2, 10, 11, 3]]
    with pytest.raises(UserError, match=r"no demonstrations are left.*data.max_prompt_tokens=1 \(the longest has 4"):
        encode_demonstrations(bos_tokenizer, demonstrations, LengthSettings(max_prompt_tokens=1))


def test_collate_pads_right_and_rows_picks() -> None:
    batch = collate([sequence(5, 6, 7, learnt=2), sequence(8, 9, learnt=1)], pad_id=9)
    # The pad id is also a real token here: only the mask tells them apart.
    assert batch.input_ids.tolist() == [[5, 6, 7], [8, 9, 9]]
    assert batch.input_ids.dtype == np.int64
    assert batch.attention_mask.tolist() == [[True, True, True], [True, True, False]]
    assert batch.loss_mask.tolist() == [[False, True, True], [False, True, False]]
    pairs = PairBatch(batch, batch.rows(np.array([1, 0]))).rows(np.array([1]))
    assert pairs.num_rows == 1
    assert pairs.chosen.input_ids.tolist() == [[8, 9, 9]]
    assert pairs.rejected.input_ids.tolist() == [[5, 6, 7]]


def test_packing_puts_an_eos_behind_each_document_and_keeps_the_rest(tokenizer: PreTrainedTokenizerFast) -> None:
    x, y, z = tokenizer.convert_tokens_to_ids(["x", "y", "z"])
    blocks = pack_texts(tokenizer, ["xy", "z", "x"], block_tokens=3)
    assert [block.ids.tolist() for block in blocks] == [[x, y, EOS], [z, EOS, x], [EOS]]
    assert all(block.loss_mask.all() for block in blocks)


def test_packing_for_an_encoder_frames_every_block() -> None:
    names = {"cls_token": "[C]", "sep_token": "[S]"}
    encoder = word_tokenizer("[C] $A [S]", {"[C]": 2, "[S]": 3}, **names)
    # The stream is a b [S] c [S]; two tokens of it fit beside the [C] in a block of 3.
    blocks = pack_texts(encoder, ["a b", "c"], block_tokens=3)
    assert [block.ids.tolist() for block in blocks] == [[2, 10, 11], [2, 3, 12], [2, 3]]


def masked_example(num_rows: int, width: int, fraction: float) -> tuple[TokenBatch, TokenBatch, np.ndarray]:
    """Ids 5..104 with a special 1 in front and two places of padding behind."""
    rng = np.random.default_rng(0)
    ids = rng.integers(5, 105, (num_rows, width))
    ids[:, 0] = 1
    real = np.ones(ids.shape, dtype=np.bool_)
    real[:, -2:] = False
    batch = TokenBatch(ids, real, real)
    masked, labels = mask_tokens(batch, [0, 1, 2], mask_id=2, vocab_size=105, fraction=fraction, rng=rng)
    return batch, masked, labels


def test_masking_hides_80_10_10_of_the_share_of_ordinary_tokens() -> None:
    batch, masked, labels = masked_example(num_rows=200, width=103, fraction=0.15)
    chosen = labels != -100
    # 103 places less one special and two of padding: 100 ordinary tokens, so 15 are chosen in every row.
    assert chosen.sum(axis=1).tolist() == [15] * 200
    assert not chosen[:, 0].any() and not chosen[:, -2:].any()
    assert (labels[chosen] == batch.input_ids[chosen]).all()
    assert (masked.input_ids[~chosen] == batch.input_ids[~chosen]).all()
    hidden = (masked.input_ids[chosen] == 2).mean()
    kept = (masked.input_ids[chosen] == batch.input_ids[chosen]).mean()
    # 3,000 draws: standard deviations 0.0073 and 0.0055. A random word out of 102 is the same one in 1% of 10%.
    assert abs(hidden - 0.8) < 0.03
    assert abs(kept - 0.101) < 0.025
    assert masked.input_ids[chosen].max() < 105 and not np.isin(masked.input_ids[chosen], [0, 1]).any()
    assert (masked.attention_mask == batch.attention_mask).all()


def test_masking_chooses_one_of_few_tokens_and_none_of_none() -> None:
    _, _, labels = masked_example(num_rows=4, width=5, fraction=0.15)  # 2 ordinary tokens: 0.3 rounds to 0
    assert (labels != -100).sum(axis=1).tolist() == [1] * 4
    _, _, labels = masked_example(num_rows=4, width=3, fraction=0.15)  # none
    assert (labels == -100).all()
