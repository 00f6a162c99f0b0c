"""The sizes of models, from those of their configs."""

from pathlib import Path

from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from plumbob.configs.settings.models import NewBertSettings, NewLlamaSettings
from plumbob.configs.settings.tuning.adapters import LoraTuning
from plumbob.models.adapter import save_adapter
from plumbob.models.files.weight_files import num_stored
from plumbob.models.from_scratch import empty_bert, empty_llama
from plumbob.models.sizes.config_sizes import ModelSizes, sizes_of
from plumbob.models.tuning.methods import method_of
from tests.support.opened_models import opened_policy
from tests.support.tiny_policy import make_adapter, write_policy


def test_grouped_heads_and_shared_embeddings() -> None:
    spec = NewLlamaSettings(
        vocab_size=300, hidden_size=64, num_layers=3, num_heads=4, intermediate_size=96, max_positions=32
    )
    # One embedding for both ends; a block has 4 squares, 3 feed-forward matrices and 2 norms; a norm at the end.
    block = 4 * 64 * 64 + 3 * 64 * 96 + 2 * 64
    multiplied = 3 * (block - 2 * 64)
    expected = ModelSizes(300 * 64 + 3 * block + 64, 3, 64, 96, 64, vocab_size=300, num_multiplied=multiplied)
    assert sizes_of(empty_llama(spec)) == expected
    bert = sizes_of(empty_bert(NewBertSettings(vocab_size=300, hidden_size=64, num_layers=3, intermediate_size=96)))
    assert (bert.num_layers, bert.hidden_size, bert.kv_size) == (3, 64, 64)
    # A block of BERT has two feed-forward matrices; its head one square before the output embeddings.
    assert bert.num_multiplied == 3 * (4 * 64 * 64 + 2 * 64 * 96) + 64 * 64


def test_key_value_heads_may_be_fewer_and_sizes_have_other_names(tmp_path: Path) -> None:
    opened = opened_policy(write_policy(tmp_path / "base"))  # 2 of 4 heads, 32 wide.
    assert sizes_of(opened.empty(AutoModelForCausalLM)).kv_size == 64
    found = sizes_of(GPT2LMHeadModel(GPT2Config(vocab_size=99, n_positions=16, n_embd=8, n_layer=3, n_head=2)))
    assert (found.num_layers, found.hidden_size, found.intermediate_size, found.kv_size) == (3, 8, 32, 8)
    assert (found.vocab_size, found.num_multiplied) == (99, 3 * (4 * 8 * 8 + 2 * 8 * 32))


def test_an_adapter_is_counted_before_it_is_made_as_in_its_file(tmp_path: Path) -> None:
    base = write_policy(tmp_path / "base")
    model = opened_policy(base).empty(AutoModelForCausalLM)
    # Rank 4 beside queries and outputs 128 x 128, keys and values 128 x 64, three feed-forward matrices 128 x 256.
    expected = 2 * 4 * (2 * (128 + 128) + 2 * (128 + 64) + 3 * (128 + 256))
    assert method_of(LoraTuning(rank=4)).size(model).num_trained == expected
    assert method_of(LoraTuning(rank=4, targets=("q_proj", "v_proj"))).size(model).num_trained == 2 * 4 * (256 + 192)
    save_adapter(make_adapter(base, version=0, seed=0, rank=4), tmp_path / "adapter")
    assert num_stored(tmp_path / "adapter/adapter_model.safetensors") == expected


def test_what_single_modules_and_dora_add_is_counted(tmp_path: Path) -> None:
    model = opened_policy(write_policy(tmp_path)).empty(AutoModelForCausalLM)
    # Two layers of rank 2 beside queries 128 x 128, and in one of them rank 16 beside values 128 x 64.
    tuning = LoraTuning(rank=2, targets=("q_proj", "v_proj"), rank_pattern={"layers.1.self_attn.v_proj": 16})
    expected = 2 * 2 * 256 + 2 * 192 + 16 * 192
    assert method_of(tuning).size(model).num_trained == expected
    # And the lengths of 128 and of 64 outputs, in both.
    dora = tuning.model_copy(update={"use_dora": True})
    assert method_of(dora).size(model).num_trained == expected + 2 * (128 + 64)
    # An embedding has a length for each number of its width.
    words = LoraTuning(rank=2, targets=("embed_tokens",), use_dora=True)
    assert method_of(words).size(model).num_trained == 2 * (model.config.vocab_size + 128) + 128
