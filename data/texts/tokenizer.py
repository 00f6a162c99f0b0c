"""What is used of a transformers tokenizer."""

from typing import Any, Protocol


class Tokenizer(Protocol):
    """What is used of a transformers tokenizer."""

    name_or_path: str
    eos_token: Any
    eos_token_id: int | None
    bos_token_id: int | None
    cls_token_id: int | None
    sep_token_id: int | None
    unk_token_id: int | None
    chat_template: Any
    init_kwargs: dict[str, Any]

    def __call__(self, text: Any, **options: Any) -> Any: ...

    @property
    def added_tokens_decoder(self) -> Any: ...

    @property
    def special_tokens_map(self) -> Any: ...

    def get_chat_template(self, chat_template: None = None, tools: Any = None) -> str: ...

    def convert_ids_to_tokens(self, ids: int) -> Any: ...

    def decode(self, ids: Any, **options: Any) -> Any: ...
