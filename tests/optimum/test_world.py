"""The world's tokenizer: every response is one text, and every text one response."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from plumbob.verify.optima.response_tree import EOS
from plumbob.verify.world.problem import Size
from plumbob.verify.world.tiny_world import write_model


@pytest.mark.parametrize(
    ("size", "num_responses"),
    # With v tokens, EOS among them: 1 + (v - 1) + (v - 1)^2 that end, and (v - 1)^3 that are cut.
    [(Size(), 1 + 3 + 9 + 27), (Size(vocab_size=8), 1 + 7 + 49 + 343)],
)
def test_decoding_is_one_to_one(tmp_path: Path, size: Size, num_responses: int) -> None:
    world = size.world
    tokenizer = AutoTokenizer.from_pretrained(write_model(tmp_path, world, seed=0))
    texts = [tokenizer.decode(response, skip_special_tokens=True) for response in world.tree.responses]
    assert texts == [world.response_text(k) for k in range(num_responses)] and len(set(texts)) == num_responses
    for text, response in zip(texts, world.tree.responses, strict=True):
        assert tokenizer(text, add_special_tokens=False).input_ids == [token for token in response if token != EOS]
