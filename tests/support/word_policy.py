"""A tiny Llama whose tokens are words, and which was taught dialogues: what it says in them it says about as often."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

Dialogue = list[dict[str, str]]

SPECIAL = ("<pad>", "<eos>", "<unk>", "<user>", "<assistant>")
TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}> {{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}<eos>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def write_word_policy(folder: Path, dialogues: Iterator[Dialogue], num_steps: int, batch_size: int = 64) -> str:
    """Hidden 64, 2 layers; the words are those of the first 2,000 dialogues, apart from marks of punctuation."""
    first = [next(dialogues) for _ in range(2000)]
    tokenizer = _tokenizer(first)
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=128,
            pad_token_id=0,
            eos_token_id=1,
            bos_token_id=None,
        )
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(num_steps):
        batch = _batch(tokenizer, [next(dialogues) for _ in range(batch_size)])
        loss = model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * min(1.0, (num_steps - step) / (0.5 * num_steps))
        optimizer.step()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def _tokenizer(dialogues: Sequence[Dialogue]) -> PreTrainedTokenizerFast:
    splitter = pre_tokenizers.Whitespace()
    said = {message["content"] for dialogue in dialogues for message in dialogue}
    words = sorted({word for text in said for word, _ in splitter.pre_tokenize_str(text)})
    inner = Tokenizer(models.WordLevel({word: id_ for id_, word in enumerate((*SPECIAL, *words))}, unk_token="<unk>"))
    inner.pre_tokenizer = splitter
    fast = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")
    fast.add_special_tokens({"additional_special_tokens": ["<user>", "<assistant>"]})
    fast.chat_template = TEMPLATE
    return fast


def _batch(tokenizer: PreTrainedTokenizerFast, dialogues: Sequence[Dialogue]) -> dict[str, torch.Tensor]:
    texts = [tokenizer.apply_chat_template(dialogue, tokenize=False) for dialogue in dialogues]
    ids = tokenizer(texts, padding=True, return_tensors="pt", add_special_tokens=False)
    labels = ids["input_ids"].masked_fill(ids["input_ids"] == 0, -100)
    return {"input_ids": ids["input_ids"], "attention_mask": ids["attention_mask"], "labels": labels}
