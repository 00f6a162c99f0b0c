"""One row of each of a pipeline's inputs, as the models of its stages see it."""

from collections.abc import Sequence
from typing import Any

from plumbob.configs.settings.data import LengthSettings
from plumbob.data.prompts import encode_prompts
from plumbob.data.records import Demonstration, PreferencePair, Prompt
from plumbob.data.rendered_rows import RenderedRow, first_fitting, prompt_rows, sequence_rows, text_rows
from plumbob.data.splitting import Split
from plumbob.data.texts.tokenizer import Tokenizer
from plumbob.data.tokenization import encode_demonstrations, encode_pairs


def pipeline_rows(
    rules: LengthSettings,
    tokenizer: Tokenizer | None,
    text: Split[str],
    demonstrations: Split[Demonstration],
    pairs: Split[PreferencePair],
    prompts: Split[Prompt],
) -> tuple[RenderedRow, ...]:
    """In tokens where the policy exists; where it is made from scratch, `tokenizer` is None and texts are shown."""
    rows = text_rows("data.text", len(text.train), ("text", text.train[0], True)) if tokenizer is None else ()
    return (
        *rows,
        *_demonstration_rows(rules, tokenizer, demonstrations.train),
        *_pair_rows(rules, tokenizer, pairs.train),
        *_prompt_rows(rules, tokenizer, prompts.train),
    )


def _demonstration_rows(
    rules: LengthSettings, tokenizer: Tokenizer | None, records: Sequence[Demonstration]
) -> tuple[RenderedRow, ...]:
    setting, first = "data.demonstrations", records[0]
    if tokenizer is None:
        parts = (("prompt", first.prompt, False), ("response", first.response, True))
        return text_rows(setting, len(records), *parts)
    encoded = first_fitting(records, lambda some: encode_demonstrations(tokenizer, some, rules, required=False))
    return _counted(sequence_rows(setting, tokenizer, [] if encoded is None else [(encoded,)], ("response",)), records)


def _pair_rows(
    rules: LengthSettings, tokenizer: Tokenizer | None, records: Sequence[PreferencePair]
) -> tuple[RenderedRow, ...]:
    setting, first = "data.pairs", records[0]
    if tokenizer is None:
        responses = (("chosen", first.chosen, True), ("rejected", first.rejected, True))
        return text_rows(setting, len(records), ("prompt", first.prompt, False), *responses)
    encoded = first_fitting(records, lambda some: encode_pairs(tokenizer, some, rules, required=False))
    rows = sequence_rows(setting, tokenizer, [] if encoded is None else [encoded], ("chosen", "rejected"))
    return _counted(rows, records)


def _prompt_rows(
    rules: LengthSettings, tokenizer: Tokenizer | None, records: Sequence[Prompt]
) -> tuple[RenderedRow, ...]:
    setting, first = "data.prompts", records[0]
    if tokenizer is None:
        return text_rows(setting, len(records), ("prompt", first.text, False))
    limit = rules.max_prompt_tokens
    encoded = first_fitting(records, lambda some: encode_prompts(tokenizer, some, limit, required=False))
    return _counted(prompt_rows(setting, tokenizer, [] if encoded is None else [encoded.ids]), records)


def _counted(rows: tuple[RenderedRow, ...], records: Sequence[Any]) -> tuple[RenderedRow, ...]:
    return tuple(RenderedRow(row.setting, len(records), row.parts) for row in rows)
