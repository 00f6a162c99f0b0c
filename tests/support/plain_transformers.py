"""Log-probs by plain transformers and peft, with nothing of ours."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
from transformers import AutoModelForCausalLM

from plumbob.rollout.journal import JournalRow


def load_plain(folder: str) -> Any:
    """A model or adapter folder."""
    config = Path(folder) / "adapter_config.json"
    if not config.exists():
        return AutoModelForCausalLM.from_pretrained(folder).eval()
    base = AutoModelForCausalLM.from_pretrained(json.loads(config.read_text())["base_model_name_or_path"])
    return PeftModel.from_pretrained(base, folder).eval()


@torch.no_grad()
def plain_logprobs(
    model: Any, prompt: Sequence[int], response: Sequence[int], temperature: float
) -> NDArray[np.float32]:
    """log pi of each response token, unpadded and one sequence at a time. [T]."""
    ids = torch.tensor([[*prompt, *response]])
    logprobs = torch.log_softmax(model(input_ids=ids).logits[0] / temperature, -1)
    found: NDArray[np.float32] = logprobs[:-1].gather(1, ids[0, 1:, None])[len(prompt) - 1 :, 0].numpy()
    return found


def largest_gap(model: Any, rows: Sequence[JournalRow], name: str, temperature: float) -> float:
    """Largest |plain log-prob - journal's column `name`| over the rows' tokens."""
    gaps = [
        np.abs(plain_logprobs(model, row.prompt_ids, row.token_ids, temperature) - getattr(row, name)) for row in rows
    ]
    return float(np.concatenate(gaps).max())


@torch.no_grad()
def plain_greedy(model: Any, prompt: Sequence[int], num_tokens: int, end: int) -> list[int]:
    """The likeliest token each time, without the token that ends the response. [T]."""
    ids = list(prompt)
    while len(ids) < len(prompt) + num_tokens:
        token = int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
        if token == end:
            break
        ids.append(token)
    return ids[len(prompt) :]
