"""Rows with the same prompt: its hidden states, keys and values are computed once, and every response reads them.

```
 prompts  [G, P] --backbone--> keys, values of each layer --a copy for each row--+
                      |                                                          v
                      |               responses [B, R] --------backbone, after the prompt--> states [B, R, H]
                      +--> state of the prompt's last token, which predicts a response's first [B, 1, H]
```

The copies keep the graph: the gradients of a prompt's keys and values are summed over its responses.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import DynamicCache

WORTH = 0.8
"""Tokens to compute, over those of whole rows, at most: a second pass through the layers costs something too."""

FULL_ATTENTION = "full_attention"


class SharedPrompts(NamedTuple):
    """Which rows share a prompt.

    Attributes:
        lengths: of each row's prompt, [B]: the tokens before the first asked one.
        response_lengths: how many tokens after it are read, [B]: those before the last asked one.
        owners: a row of each distinct prompt, [G].
        groups: the prompt of each row, [B], 0 <= groups < G.
    """

    lengths: Tensor
    response_lengths: Tensor
    owners: Tensor
    groups: Tensor


def find_shared(ids: Tensor, asked: Tensor) -> SharedPrompts | None:
    """By the tokens themselves; None where less than a fifth of all tokens would be saved.

    Args:
        ids: int64 [B, T], real tokens first.
        asked: bool [B, T], never in column 0.
    """
    columns = torch.arange(asked.shape[1], device=asked.device)
    first = torch.where(asked, columns, asked.shape[1]).amin(dim=1)
    last = torch.where(asked, columns, 0).amax(dim=1)
    lengths = torch.minimum(first, last).clamp(min=1)  # Nothing is asked of a row: its first token is enough.
    response_lengths = (last - lengths).clamp(min=0)
    prompts: dict[bytes, int] = {}
    owners: list[int] = []
    groups = []
    rows = ids.cpu().numpy()
    for row, length in enumerate(lengths.tolist()):
        group = prompts.setdefault(rows[row, :length].tobytes(), len(prompts))
        groups.append(group)
        if group == len(owners):
            owners.append(row)
    if len(owners) == len(groups):
        return None
    widest = int(lengths.max()), int(response_lengths.max())
    if len(owners) * widest[0] + len(groups) * widest[1] > WORTH * len(groups) * int(last.max()):
        return None
    return SharedPrompts(lengths, response_lengths, *(torch.tensor(x, device=ids.device) for x in (owners, groups)))


def states_after(backbone: Any, ids: Tensor, shared: SharedPrompts) -> Tensor:
    """Last hidden states [B, 1 + R, H]: of the prompt's last token, then of the response."""
    lengths = shared.lengths
    width = int(lengths.max())
    prompt_mask = _first(lengths, width)
    cache = DynamicCache()
    of_prompts = backbone(
        input_ids=ids[shared.owners, :width],
        attention_mask=prompt_mask[shared.owners].long(),
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    ends = of_prompts[shared.groups, lengths - 1][:, None]
    num_read = int(shared.response_lengths.max())
    if not num_read:
        return ends
    for layer in cache.layers:
        layer.keys, layer.values = (x.index_select(0, shared.groups) for x in (layer.keys, layer.values))
    response_mask = _first(shared.response_lengths, num_read)
    positions = (lengths[:, None] + torch.arange(num_read, device=ids.device)).clamp(max=ids.shape[1] - 1)
    of_responses = backbone(
        input_ids=ids.gather(1, positions),
        attention_mask=torch.cat([prompt_mask, response_mask], dim=1).long(),
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    return torch.cat([ends, of_responses], dim=1)


def can_share(backbone: Any) -> bool:
    """Whether a prompt's keys and values are all that its responses read of it, found by asking the model both ways.

    Not where attention slides, where layers have another state, nor where dropout would give every row its own.
    """
    config = backbone.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or [FULL_ATTENTION])
    if kinds != {FULL_ATTENTION} or (getattr(config, "sliding_window", None) and not hasattr(config, "layer_types")):
        return False
    if any(isinstance(each, nn.Dropout) and each.p > 0 for each in backbone.modules()) or _has_dropout(config):
        return False
    device = next(backbone.parameters()).device
    ids = torch.tensor([[1, 2, 3, 2, 1], [1, 2, 2, 3, 3]], device=device) % config.vocab_size
    was_training = backbone.training
    backbone.eval()
    try:
        with torch.no_grad():
            whole = backbone(input_ids=ids, use_cache=False).last_hidden_state[:, 1:]
            lengths, groups = ids.new_full((2,), 2), ids.new_zeros(2)
            found = states_after(backbone, ids, SharedPrompts(lengths, lengths + 1, groups[:1], groups))
    except (TypeError, AttributeError, ValueError, IndexError, RuntimeError):  # It keeps no such cache.
        return False
    finally:
        backbone.train(was_training)
    products = {whole.dtype, *(getattr(each, "compute_dtype", None) for each in backbone.modules())} - {None}
    bound = (1e-4 if products == {torch.float32} else 5e-2) * float(whole.abs().max())
    return found.shape == whole.shape and float((found - whole).abs().max()) <= bound


def _has_dropout(config: Any) -> bool:
    """Of attention, which is no module: families name it differently."""
    return any(
        getattr(config, name, None)
        for name in ("attention_dropout", "attn_pdrop", "attn_dropout", "attention_probs_dropout_prob")
    )


def _first(lengths: Tensor, width: int) -> Tensor:
    """bool [B, width]: True on each row's first `lengths` columns."""
    return torch.arange(width, device=lengths.device) < lengths[:, None]
