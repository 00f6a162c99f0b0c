"""Chat templates of public models, as TRL keeps them in its package, and tokenizers that read them."""

from importlib.util import find_spec
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from tests.support.control_tokenizers import CONTROL, byte_tokenizer

CONTROL_OF = {
    "gemma": ("<bos>", "<start_of_turn>", "<end_of_turn>"),
    "llama3": ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>"),
    "deepseek_r1_distill": ("<｜begin▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>"),
}
"""Control tokens of the models besides those of ChatML; of each the first is the BOS."""


def public_template(name: str) -> str:
    spec = find_spec("trl")
    assert spec is not None and spec.origin is not None, "TRL is installed for development"
    return (Path(spec.origin).parent / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")


def public_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """Bytes, the model's control tokens and its chat template. EOS `<|endoftext|>`, whatever the template writes."""
    own = CONTROL_OF.get(name, ())
    tokenizer = byte_tokenizer(public_template(name), (*CONTROL, *own))
    if own:
        tokenizer.bos_token = own[0]
    return tokenizer
