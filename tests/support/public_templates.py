"""Chat templates of public models, as TRL keeps them in its package, and tokenizers that read them."""

import re
from importlib.util import find_spec
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from tests.support.control_tokenizers import CONTROL, byte_tokenizer

BOS = "<bos>"
_CONTROL = re.compile(
    r"<\|[^<>|\s'\"]+\|>|<｜[^<>｜\s]+｜>|<(?:start_of_turn|end_of_turn|end_of_utterance|turn\||\|turn)>"
)


def public_names() -> list[str]:
    """Without those that TRL has changed for its own training."""
    return sorted(path.stem for path in _folder().glob("*.jinja") if not path.stem.endswith("_training"))


def public_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """Bytes, the control tokens that the template spells, and the template. BOS `<bos>`, EOS `<|endoftext|>`."""
    template = (_folder() / f"{name}.jinja").read_text(encoding="utf-8")
    own = dict.fromkeys([BOS, *_CONTROL.findall(template)])
    tokenizer = byte_tokenizer(template, (*CONTROL, *(token for token in own if token not in CONTROL)))
    tokenizer.bos_token = BOS
    return tokenizer


def _folder() -> Path:
    spec = find_spec("trl")
    assert spec is not None and spec.origin is not None, "TRL is installed for development"
    return Path(spec.origin).parent / "chat_templates"
