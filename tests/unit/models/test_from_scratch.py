"""Models made from scratch: what is saved loads with plain transformers, and the seed decides every byte."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer

from plumbob.configs.settings.data import ToyWorldSettings
from plumbob.configs.settings.models import NewBertSettings, NewLlamaSettings
from plumbob.core.errors import UserError
from plumbob.data.texts.chat_text import chat_renderer, plain_dialogue
from plumbob.data.toy_world.toy_files import build_world
from plumbob.models.from_scratch import build_bert, build_llama, check_sizes

LLAMA = NewLlamaSettings(
    vocab_size=400, hidden_size=64, num_layers=2, num_heads=2, intermediate_size=96, max_positions=64
)
BERT = NewBertSettings(
    vocab_size=300, hidden_size=64, num_layers=2, num_heads=2, intermediate_size=96, max_positions=64
)
TEXTS = build_world(
    ToyWorldSettings(num_texts=300, num_demonstrations=1, num_pairs=1, num_heldout_pairs=1), seed=0
).texts
BUILD = """
import sys
from pathlib import Path
from tests.unit.models.test_from_scratch import BERT, LLAMA, TEXTS, build_bert, build_llama
"""


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_llama_loads_and_decodes_what_it_encodes(tmp_path: Path) -> None:
    build_llama(LLAMA, TEXTS, tmp_path, seed=0)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    text = " The Quillan costs 9 €\n  <odd>\x00"
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert tokenizer.bos_token_id is None and tokenizer.eos_token_id != tokenizer.pad_token_id
    assert tokenizer.eos_token_id not in ids
    assert model.config.eos_token_id == tokenizer.eos_token_id and model.config.pad_token_id == tokenizer.pad_token_id
    assert len(tokenizer) == model.config.vocab_size <= LLAMA.vocab_size
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model(input_ids=torch.tensor([ids])).logits.shape == (1, len(ids), len(tokenizer))
    # tied embeddings V*64; a layer: 4*64*64 attention + 3*64*96 MLP + 2*64 norms; one last norm of 64.
    assert model.num_parameters() == len(tokenizer) * 64 + 2 * (4 * 64 * 64 + 3 * 64 * 96 + 2 * 64) + 64


def test_chat_template_gives_the_text_that_the_model_learnt_from(tmp_path: Path) -> None:
    """A chat file is written plainly where the policy is made from it, and by the template where it is used again."""
    build_llama(LLAMA, TEXTS, tmp_path, seed=0)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    turns = [("system", "Be brief."), ("user", "How {{ fast }}?\n"), ("assistant", " Very."), ("user", "Say more.")]
    messages = [{"role": role, "content": content} for role, content in turns]
    expected = (
        "\n\nSystem: Be brief.\n\nHuman: How {{ fast }}?\n\n\nAssistant:  Very.\n\nHuman: Say more.\n\nAssistant:"
    )
    assert chat_renderer(tokenizer)(messages) == plain_dialogue(messages) == expected
    # A whole dialogue ends as a response does.
    assert tokenizer.apply_chat_template(messages[1:3], tokenize=False) == (
        "\n\nHuman: How {{ fast }}?\n\n\nAssistant:  Very.<|endoftext|>"
    )


def test_bert_loads_as_both_of_its_uses(tmp_path: Path) -> None:
    build_bert(BERT, TEXTS, tmp_path, seed=0)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    encoded = tokenizer("How fast?", "The Quillan.", return_tensors="pt")
    tokens = tokenizer.convert_ids_to_tokens(encoded["input_ids"][0])
    assert tokens[0] == "[CLS]" and tokens[-1] == "[SEP]" and tokens.count("[SEP]") == 2 and "[UNK]" not in tokens
    assert encoded["token_type_ids"][0, [0, -1]].tolist() == [0, 1]
    assert tokenizer.tokenize("the ☃") == ["the", "[UNK]"]
    masked = AutoModelForMaskedLM.from_pretrained(tmp_path)
    assert masked(**encoded).logits.shape == (1, len(tokens), len(tokenizer))
    assert len(tokenizer) == masked.config.vocab_size <= BERT.vocab_size
    scorer = AutoModelForSequenceClassification.from_pretrained(tmp_path, num_labels=1)
    assert scorer(**encoded).logits.shape == (1, 1)


def test_the_same_seed_gives_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    """In another process, because Rust and Python order their hash tables anew in each. It needs no DeepSpeed."""
    script = BUILD + "build_llama(LLAMA, TEXTS, Path(sys.argv[1]), 5); build_bert(BERT, TEXTS, Path(sys.argv[2]), 5)"
    script += "; print('deepspeed' in sys.modules)"
    folders = [tmp_path / name for name in ("llama", "bert")]
    root = Path(__file__).parents[3]
    built = subprocess.run(
        [sys.executable, "-c", script, *map(str, folders)], check=True, cwd=root, capture_output=True
    )
    assert built.stdout.split() == [b"False"]
    build_llama(LLAMA, TEXTS, tmp_path / "llama here", 5)
    build_bert(BERT, TEXTS, tmp_path / "bert here", 5)
    assert contents(folders[0]) == contents(tmp_path / "llama here")
    assert contents(folders[1]) == contents(tmp_path / "bert here")
    build_llama(LLAMA, TEXTS, tmp_path / "other", 6)
    assert contents(tmp_path / "other")["model.safetensors"] != contents(folders[0])["model.safetensors"]


def test_building_leaves_the_random_state_alone(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    build_llama(LLAMA, TEXTS, tmp_path / "llama", seed=0)
    build_bert(BERT, TEXTS, tmp_path / "bert", seed=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_sizes_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"policy\.model: hidden_size=64 over num_heads=3 gives heads 21\.3333 wide"):
        build_llama(LLAMA.model_copy(update={"num_heads": 3}), TEXTS, tmp_path / "out", seed=0)
    narrow = LLAMA.model_copy(update={"num_heads": 4})
    check_sizes(narrow, 16)
    with pytest.raises(UserError, match=r"num_heads=4 gives heads 16 wide; make that a whole number of at least 17"):
        check_sizes(narrow, 17)
    with pytest.raises(UserError, match=r"reward\.model: hidden_size=64 over num_heads=3"):
        build_bert(BERT.model_copy(update={"num_heads": 3}), TEXTS, tmp_path / "out", seed=0)
    with pytest.raises(UserError, match=r"vocab_size=257.*at least 258"):
        build_llama(LLAMA.model_copy(update={"vocab_size": 257}), TEXTS, tmp_path / "out", seed=0)
    assert not (tmp_path / "out").exists()
