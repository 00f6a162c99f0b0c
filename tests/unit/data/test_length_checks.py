import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from plumbob.core.errors import UserError
from plumbob.data.length_checks import check_context, check_limits, check_tokenizer


def bare(**names: str) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), **names)


def test_a_tokenizer_needs_an_eos_and_a_pad_token() -> None:
    with pytest.raises(UserError, match="my-model: the tokenizer has no EOS token"):
        check_tokenizer(bare(pad_token="<pad>"), "my-model")
    with pytest.raises(UserError, match=r'my-model: the tokenizer has no pad token.*"</s>"'):
        check_tokenizer(bare(eos_token="</s>"), "my-model")
    check_tokenizer(bare(eos_token="</s>", pad_token="</s>"), "my-model")


def test_prompt_and_response_must_fit_the_context() -> None:
    check_context(longest_prompt=192, max_new_tokens=64, max_positions=256)
    with pytest.raises(UserError, match=r"193 tokens.*rollout\.max_tokens=64, together 257.*256 positions.* to 192"):
        check_context(longest_prompt=193, max_new_tokens=64, max_positions=256)
    with pytest.raises(UserError, match=r"positions: lower data\.max_response_tokens$"):
        check_context(longest_prompt=1, max_new_tokens=256, max_positions=256, response_key="data.max_response_tokens")


def test_settings_must_fit_together() -> None:
    check_limits({"a.x": 60, "b.y": 40}, 100, "c.z")
    with pytest.raises(UserError, match=r"a\.x=60 \+ b\.y=41 = 101 tokens do not fit the 100 positions of c\.z"):
        check_limits({"a.x": 60, "b.y": 41}, 100, "c.z")
    with pytest.raises(UserError, match=r"^a\.x=101 tokens do not fit"):
        check_limits({"a.x": 101}, 100, "c.z")
