"""Soft prompts: trained vectors that a model reads before every text, put in where its layers begin.

```
 a prompt   [virtual tokens][text ...] --embedded--> layers --> states of the text alone
 a prefix   keys and values of virtual tokens, in each layer's cache; [text ...] --embedded--> layers --> its states
```

Whoever calls the model gives it texts, masks, positions and caches as of the base alone. The text's positions begin
after the virtual tokens', which all of it can see wherever the row is padded: a row has the same values however it is
padded. A cache that holds something holds the virtual tokens too: what comes next is put after them.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

PREFIX = "PREFIX_TUNING"
"""What PEFT calls soft prompts that are keys and values."""

OF_TASKS = "MULTITASK_PROMPT_TUNING"
"""What it calls those that are another for each task."""


class SoftPrompts(nn.Module):
    """Those of one model, of which one is read, or none.

    Attributes:
        encoders: name -> what gives a soft prompt's vectors; a module of PEFT's.
        configs: name -> PEFT's config of it.
        active: name of the one that is read; that of none stands for none.
        task_names: of those tasks.
        tasks: int64 [B], the task of each row of the next forward, for those that have several; None is the first.
    """

    def __init__(self) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict()
        self.configs: dict[str, Any] = {}
        self.active: str | None = None
        self.tasks: Tensor | None = None
        self.task_names: tuple[str, ...] = ()

    @property
    def has_tasks(self) -> bool:
        return any(config.peft_type == OF_TASKS for config in self.configs.values())

    def vectors(self, name: str) -> Tensor:
        """[virtual tokens, width]: embeddings, or the keys and values of all layers one beside the other; of several
        tasks [B, virtual tokens, width], those of each row's."""
        encoder: Any = self.encoders[name]
        weight: Tensor = encoder.embedding.weight
        if self.configs[name].peft_type == OF_TASKS:
            tasks = torch.zeros(1, dtype=torch.long, device=weight.device) if self.tasks is None else self.tasks
            of_rows: Tensor = encoder(torch.arange(len(weight), device=weight.device).expand(len(tasks), -1), tasks)
            return of_rows
        if self.configs[name].inference_mode:
            return weight
        found: Tensor = encoder(torch.arange(len(weight), device=weight.device)[None])[0]
        return found

    def put_in(self, backbone: Any, args: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
        """Before a forward: its arguments, with the active soft prompt. A hook of torch's."""
        name = self._read()
        if name is None:
            return None
        config, given = self.configs[name], dict(named)
        if args:  # GPT-2's ids.
            (given["input_ids"],) = args
        num, ids = config.num_virtual_tokens, given["input_ids"]
        mask, positions, cache = (given.get(key) for key in ("attention_mask", "position_ids", "past_key_values"))
        if mask is not None:
            given["attention_mask"] = torch.cat([mask.new_ones(len(ids), num), mask], dim=1)
        if positions is not None:
            given["position_ids"] = positions + num
        if cache is not None and cache.get_seq_length():
            return (), given
        embeddings, vectors = backbone.get_input_embeddings(), self.vectors(name)
        if config.peft_type == PREFIX:
            vectors = vectors.to(_dtype_of(embeddings.weight))
            begun = DynamicCache(config=backbone.config) if cache is None else cache
            given["past_key_values"] = _filled(begun, config, vectors, len(ids))
            return (), given
        vectors = vectors.to(embeddings.weight.dtype).expand(len(ids), -1, -1)
        given |= {"input_ids": None, "inputs_embeds": torch.cat([vectors, embeddings(ids)], dim=1)}
        if positions is not None:
            first = torch.arange(num, device=positions.device).expand(len(positions), num)
            given["position_ids"] = torch.cat([first, positions + num], dim=1)
        return (), given

    def take_out(self, _: Any, args: tuple[Any, ...], named: Mapping[str, Any], output: Any) -> Any:
        """After a forward: the states of the text alone. A hook of torch's."""
        name = self._read()
        if name is not None and named.get("inputs_embeds") is not None:
            num = self.configs[name].num_virtual_tokens
            output.last_hidden_state = output.last_hidden_state[:, num:]
        return output

    def _read(self) -> str | None:
        return self.active if self.active is not None and self.active in self.encoders else None


def soft_prompts_of(model: Any) -> SoftPrompts | None:
    """What was put on a transformers model, whatever PEFT has around it; None where nothing was."""
    base = getattr(model, "get_base_model", lambda: model)()
    found = getattr(base, "soft_prompts", None)
    return found if isinstance(found, SoftPrompts) else None


def _filled(cache: Any, config: Any, vectors: Tensor, num_rows: int) -> Any:
    """A cache that begins with the keys and values of the virtual tokens, the same for all rows."""
    heads, width = config.num_attention_heads, config.token_dim // config.num_attention_heads
    shape = (config.num_virtual_tokens, config.num_layers, 2, heads, width)
    for layer, both in enumerate(vectors.view(shape).permute(1, 2, 3, 0, 4)):
        keys, values = both[:, None].expand(2, num_rows, -1, -1, -1)
        cache.update(keys, values, layer)
    return cache


def let_read_prompts(causal_lm: Any) -> SoftPrompts:
    """Let a transformers model read soft prompts, of which it has none yet.

    They are its `soft_prompts`, a module whose parameters are its own.
    """
    prompts = SoftPrompts()
    causal_lm.soft_prompts = prompts
    causal_lm.base_model.register_forward_pre_hook(prompts.put_in, with_kwargs=True)
    causal_lm.base_model.register_forward_hook(prompts.take_out, with_kwargs=True)
    return prompts


def _dtype_of(weight: Tensor) -> torch.dtype:
    """Of the keys and values that the layers of a model with such a weight give."""
    device = weight.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
