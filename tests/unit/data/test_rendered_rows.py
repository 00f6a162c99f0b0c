import numpy as np
from transformers import PreTrainedTokenizerFast

from plumbob.configs.settings.data import LengthSettings
from plumbob.data.records import Demonstration, PreferencePair
from plumbob.data.rendered_rows import RenderedRow, RowPart, first_fitting, sequence_rows, shortened, text_rows
from plumbob.data.tokenization import TokenSequence, encode_demonstrations, encode_pairs

RULES = LengthSettings(max_prompt_tokens=8, max_response_tokens=8)


def test_a_row_is_shown_with_its_special_tokens_and_what_is_learnt(tokenizer: PreTrainedTokenizerFast) -> None:
    pairs = [PreferencePair("<mask>xy\n", "zz", "q"), PreferencePair("x", "a", "b")]
    encoded = encode_pairs(tokenizer, pairs, RULES).records
    # <mask>, x, y and the line end are a token each; z, z and the end; q and the end.
    assert sequence_rows("data.pairs", tokenizer, encoded, ("chosen", "rejected")) == (
        RenderedRow(
            "data.pairs",
            2,
            (
                RowPart("prompt", "<mask>xy\n", False, 4),
                RowPart("chosen", "zz<eos>", True, 3),
                RowPart("rejected", "q<eos>", True, 2),
            ),
        ),
    )
    assert sequence_rows("data.pairs", tokenizer, [], ("chosen", "rejected")) == ()


def test_a_row_that_fits_is_looked_for(tokenizer: PreTrainedTokenizerFast) -> None:
    records = [Demonstration("xyz" * 3, "a"), Demonstration("x", "a")]
    found = first_fitting(records, lambda some: encode_demonstrations(tokenizer, some, RULES, required=False))
    assert found is not None and found.loss_mask.tolist() == [False, True, True]
    assert first_fitting(records[:1], lambda some: encode_demonstrations(tokenizer, some, RULES, False)) is None


def test_long_texts_lose_their_middle() -> None:
    assert shortened("a" * 1200) == "a" * 1200
    assert shortened("a" * 700 + "b" * 700) == "a" * 600 + " ... 200 letters ... " + "b" * 600
    (row,) = text_rows("data.text", 3, ("text", "é" * 5000, True))
    assert len(row.parts[0].text) < 1300 and row.num_records == 3
    assert text_rows("data.text", 0) == ()


def test_a_first_token_keeps_the_space_that_it_has_in_its_place() -> None:
    """Tokenizers of Llama 2's kind take a text's first space away where the text is read by itself."""

    class Stripping:
        def decode(self, ids: list[int], **_: object) -> str:
            return "".join([" a", " b", "</s>"][id_] for id_ in ids).removeprefix(" ")

    sequence = TokenSequence(np.array([0, 1, 2], np.int32), np.array([False, True, True]))
    (row,) = sequence_rows("data.x", Stripping(), [(sequence,)], ("response",))  # type: ignore[arg-type]
    assert [part.text for part in row.parts] == ["a", " b</s>"]
