"""Small tokenizers with control tokens and chat templates of several families, made on the spot."""

from collections.abc import Sequence
from typing import Any, Literal

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from plumbob.data.texts.bounded_templates import render

TEXTS = ["What is the capital of Peru? The capital of Peru is Lima.", "[INST] a question [/INST] an answer </s>"] * 4

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA_3 = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}<|sep|>\n\n{{ message['content'] | trim }}<|eot_id|>"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant<|sep|>\n\n{% endif %}"
)
LLAMA_2 = (
    "{% for message in messages %}{% if message['role'] == 'user' %}[INST] {{ message['content'].strip() }} [/INST]"
    "{% else %} {{ message['content'].strip() }} {{ eos_token }}{% endif %}{% endfor %}"
)
THINKING = (
    "{% for message in messages %}{% if message['role'] == 'user' %}<|im_start|>user\n{{ message['content'] }}"
    "<|im_end|>\n{% else %}<|im_start|>assistant\n{{ message['content'].split('</think>')[-1] }}<|im_end|>\n"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
# As Qwen 3's: an answer at the end of a dialogue has thoughts, empty ones where it gave none; no prompt opens them.
QWEN_3 = (
    "{% for message in messages %}{% set answer = message['content'] %}{% if message['role'] == 'assistant' %}"
    "{% set thoughts = '' %}{% if '</think>' in answer %}"
    "{% set thoughts = answer.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}"
    "{% set answer = answer.split('</think>')[-1].lstrip('\n') %}{% endif %}<|im_start|>assistant\n"
    "{% if loop.last or thoughts %}<think>\n{{ thoughts.strip('\n') }}\n</think>\n\n{% endif %}"
    "{% else %}<|im_start|>{{ message['role'] }}\n{% endif %}{{ answer }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# As that of its thinking-only kind: prompts open the thoughts.
QWEN_3_THINKING = QWEN_3.removesuffix("{% endif %}") + "<think>\n{% endif %}"
# As Llama 3.1's: a call of a tool that it has built in ends with another token than other turns.
LLAMA_3_TOOLS = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}<|sep|>\n\n"
    "{% for call in message.tool_calls or [] %}{% if call.function.name in (builtin_tools or []) %}"
    "<|python_tag|>{{ call.function.name }}.call()<|eom_id|>{% else %}"
    '{"name": "{{ call.function.name }}", "parameters": {{ call.function.arguments | tojson }}}<|eot_id|>{% endif %}'
    "{% else %}{{ message['content'] | trim }}<|eot_id|>{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant<|sep|>\n\n{% endif %}"
)

CONTROL = ("<|endoftext|>", "<|pad|>", "<|im_start|>", "<|im_end|>", "<|sep|>", "<|eot_id|>")


def byte_tokenizer(template: str | None = None, control: Sequence[str] = CONTROL) -> PreTrainedTokenizerFast:
    """Byte-level: a text is the same wherever it stands. EOS `<|endoftext|>`, whatever the template ends turns with."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    _train(inner, trainers.BpeTrainer, vocab_size=290, special_tokens=list(control), initial_alphabet=alphabet)
    return _fast(inner, template, eos_token="<|endoftext|>", pad_token="<|pad|>")


Spacing = Literal["normalizer", "always", "first", "unigram"]
"""How a tokenizer puts a space before a text: as Llama 2's did, before each piece or the first; or a unigram model."""


def space_tokenizer(spacing: Spacing, template: str | None = None) -> PreTrainedTokenizerFast:
    """One that puts a space before a text, as sentencepiece does. EOS `</s>`, BOS `<s>`, unknown `<unk>`."""
    control = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    alphabet = sorted(set("".join(TEXTS)) | set("<|>_/:\n▁"))
    inner = Tokenizer(models.Unigram() if spacing == "unigram" else models.BPE(unk_token="<unk>", fuse_unk=True))
    if spacing == "normalizer":
        inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        inner.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
        _train(inner, trainers.BpeTrainer, vocab_size=0, special_tokens=control, initial_alphabet=alphabet)
    else:
        scheme: Any = "first" if spacing == "first" else "always"
        inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
        inner.decoder = decoders.Metaspace(prepend_scheme=scheme)
        if spacing == "unigram":
            options = {"unk_token": "<unk>", "initial_alphabet": alphabet}
            _train(inner, trainers.UnigramTrainer, vocab_size=80, special_tokens=control, **options)
        else:
            _train(inner, trainers.BpeTrainer, vocab_size=120, special_tokens=control, initial_alphabet=alphabet)
    return _fast(inner, template, eos_token="</s>", pad_token="</s>", bos_token="<s>", unk_token="<unk>")


def written(tokenizer: PreTrainedTokenizerFast, *turns: tuple[str, str]) -> str:
    """A whole dialogue of (role, content) as the tokenizer's template writes it."""
    messages = [{"role": role, "content": content} for role, content in turns]
    assert isinstance(tokenizer.chat_template, str)
    return render(
        tokenizer.chat_template, messages=messages, add_generation_prompt=False, **tokenizer.special_tokens_map
    )


def _train(inner: Tokenizer, trainer: Any, **options: Any) -> None:
    inner.train_from_iterator(TEXTS, trainer(show_progress=False, **options))


def _fast(inner: Tokenizer, template: str | None, **names: str) -> PreTrainedTokenizerFast:
    fast = PreTrainedTokenizerFast(tokenizer_object=inner, clean_up_tokenization_spaces=False, **names)
    fast.chat_template = template
    return fast
