"""Models made from scratch: a tokenizer trained on the text and random weights, saved as Hugging Face folders."""

from collections import Counter
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from plumbob.configs.settings.models import NewBertSettings, NewLlamaSettings
from plumbob.core.errors import UserError
from plumbob.data.texts.chat_text import PLAIN_CHAT_TEMPLATE
from plumbob.models.files.weight_files import save_model

EOS = "<|endoftext|>"
PAD = "<|pad|>"
BERT_SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def build_llama(spec: NewLlamaSettings, texts: Sequence[str], folder: Path, seed: int) -> None:
    """Save an untrained float32 Llama and a byte-level BPE tokenizer trained on `texts` into `folder`.

    The tokenizer has an EOS and another token for padding, and puts nothing before the text. Its chat template writes
    what chat messages are in text that was read before there was a tokenizer. The same arguments give
    the same bytes. Input and output embeddings are one matrix.

    Raises:
        UserError: the sizes do not fit together.
    """
    check_sizes(spec)
    tokenizer = _bpe_tokenizer(spec, texts)
    config = llama_config(spec, len(tokenizer), tokenizer.eos_token_id, tokenizer.pad_token_id)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    _save(model, tokenizer, folder)


NEW_POLICY = LlamaForCausalLM.__name__
"""The architecture of a policy that is made from scratch."""


def llama_config(spec: NewLlamaSettings, vocab_size: int, eos_token_id: int, pad_token_id: int) -> LlamaConfig:
    """The architecture that is made; a tokenizer trained on little text has fewer tokens than `spec.vocab_size`."""
    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=spec.hidden_size,
        intermediate_size=spec.intermediate_size,
        num_hidden_layers=spec.num_layers,
        num_attention_heads=spec.num_heads,
        num_key_value_heads=spec.num_heads,
        max_position_embeddings=spec.max_positions,
        bos_token_id=None,
        eos_token_id=eos_token_id,
        pad_token_id=pad_token_id,
        tie_word_embeddings=True,
        initializer_range=_initial_std(spec),
    )


def build_bert(spec: NewBertSettings, texts: Sequence[str], folder: Path, seed: int) -> None:
    """Save an untrained float32 BERT with its masked-word head and a WordPiece tokenizer trained on `texts`.

    The tokenizer is lower-case, the model has no dropout. The same arguments give the same bytes.

    Raises:
        UserError: the sizes do not fit together.
    """
    check_sizes(spec)
    tokenizer = _wordpiece_tokenizer(spec, texts)
    config = bert_config(spec, len(tokenizer), tokenizer.pad_token_id)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BertForMaskedLM(config)
    # Masked-word training never shows a second segment: it starts out as nothing, not as noise.
    torch.nn.init.zeros_(model.bert.embeddings.token_type_embeddings.weight)
    _save(model, tokenizer, folder)


def bert_config(spec: NewBertSettings, vocab_size: int, pad_token_id: int) -> BertConfig:
    """As `llama_config`."""
    return BertConfig(
        vocab_size=vocab_size,
        hidden_size=spec.hidden_size,
        intermediate_size=spec.intermediate_size,
        num_hidden_layers=spec.num_layers,
        num_attention_heads=spec.num_heads,
        max_position_embeddings=spec.max_positions,
        pad_token_id=pad_token_id,
        initializer_range=_initial_std(spec),
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )


def empty_llama(spec: NewLlamaSettings) -> LlamaForCausalLM:
    """The modules of a model that is yet to be made, without weights."""
    with torch.device("meta"):
        return LlamaForCausalLM(llama_config(spec, spec.vocab_size, eos_token_id=0, pad_token_id=1))


def empty_bert(spec: NewBertSettings) -> BertForMaskedLM:
    """As `empty_llama`."""
    with torch.device("meta"):
        return BertForMaskedLM(bert_config(spec, spec.vocab_size, pad_token_id=0))


LETTERS_LOOKED_AT = 4_000_000
"""Of the text, by which `likely_tokenizer` tells how long texts will be."""


def likely_tokenizer(spec: NewLlamaSettings | NewBertSettings, texts: Sequence[str]) -> PreTrainedTokenizerBase:
    """The tokenizer that a new model gets; of much text that of its beginning, by which lengths are much the same."""
    ends = accumulate(map(len, texts))
    read = [text for text, end in zip(texts, ends, strict=True) if end - len(text) < LETTERS_LOOKED_AT]
    return _bpe_tokenizer(spec, read) if isinstance(spec, NewLlamaSettings) else _wordpiece_tokenizer(spec, read)


def check_sizes(spec: NewLlamaSettings | NewBertSettings, min_head_width: int = 1) -> None:
    """Raises UserError when the sizes do not fit together, or heads are too narrow for what the model is made for."""
    width, rest = divmod(spec.hidden_size, spec.num_heads)
    if rest or width < min_head_width:
        raise UserError(
            f"{spec.setting}: hidden_size={spec.hidden_size} over num_heads={spec.num_heads} gives heads "
            f"{spec.hidden_size / spec.num_heads:g} wide; make that a whole number of at least {min_head_width}"
        )
    smallest = len(pre_tokenizers.ByteLevel.alphabet()) + len((EOS, PAD))
    if isinstance(spec, NewLlamaSettings) and spec.vocab_size < smallest:
        raise UserError(
            f"{spec.setting}.vocab_size={spec.vocab_size}: a byte-level vocabulary needs at least {smallest} "
            f"(256 bytes, an EOS and a padding token); make it larger"
        )


def _initial_std(spec: NewLlamaSettings | NewBertSettings) -> float:
    """Keeps the size of what passes through a layer; the customary 0.02 does so for widths near 2,500."""
    return spec.hidden_size**-0.5


def _save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    save_model(model.float(), tokenizer, folder)


def _bpe_tokenizer(spec: NewLlamaSettings, texts: Sequence[str]) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=spec.vocab_size,
        special_tokens=[EOS, PAD],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=EOS,
        pad_token=PAD,
        model_max_length=spec.max_positions,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = PLAIN_CHAT_TEMPLATE
    return fast


def _wordpiece_tokenizer(spec: NewBertSettings, texts: Sequence[str]) -> PreTrainedTokenizerBase:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    counts = Counter(char for text in texts for char in tokenizer.normalizer.normalize_str(text) if not char.isspace())
    ranked = sorted(counts, key=lambda char: (-counts[char], char))
    alphabet = sorted(ranked[: (spec.vocab_size - len(BERT_SPECIALS)) // 4])
    trainer = trainers.WordPieceTrainer(
        vocab_size=spec.vocab_size,
        # The trainer numbers the letters inside words in hash order, and ties between merges follow those numbers:
        # named here they have a fixed order. The vocabulary alone is kept, so they do not stay special.
        special_tokens=[*BERT_SPECIALS, *(f"##{char}" for char in alphabet)],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return BertTokenizer(vocab=tokenizer.get_vocab(), do_lower_case=True, model_max_length=spec.max_positions)
