"""Self-supervised training on text: next tokens for a causal model, masked words for an encoder."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, assert_never

import numpy as np
import torch
from numpy.typing import NDArray

from plumbob.configs.runs import PretrainEncoderRun, PretrainRun
from plumbob.configs.settings.models import ModelRef, NewBertSettings, NewLlamaSettings
from plumbob.configs.settings.tuning.weights import FullTuning
from plumbob.data.batch import Batch
from plumbob.data.length_checks import check_limits
from plumbob.data.reading.readers import read_texts
from plumbob.data.rendered_rows import RenderedRow, text_rows, token_part
from plumbob.data.splitting import Split, hold_out
from plumbob.data.tokenization import IGNORED_LABEL, TokenBatch, TokenSequence, collate, mask_tokens, pack_texts
from plumbob.models.from_scratch import check_sizes
from plumbob.models.loading import check_full, open_model, open_policy
from plumbob.models.masked_lm import MaskedWordModel, load_masked_lm, open_encoder
from plumbob.models.tuning.methods import method_of
from plumbob.rollout.samplers.vllm.support import MIN_HEAD_WIDTH
from plumbob.trainers.algorithms.lm_losses import masked_lm_loss
from plumbob.trainers.forgetting.next_token import NEXT_TOKEN_LOSS_TERMS, num_predicted_tokens, num_tokens
from plumbob.trainers.learner.export import FullModel
from plumbob.trainers.learner.learner_parts import LearnerParts, policy_artifact
from plumbob.trainers.learner.learner_protocol import Learners, LossSum, LossTerm
from plumbob.trainers.metrics.metrics_log import MetricsLog
from plumbob.trainers.metrics.stage_result import StageResult
from plumbob.trainers.offline.input_digests import inputs_of
from plumbob.trainers.offline.loop import Heldout, OfflineStage, check_heldout, run_epochs, small_batch_notes


@dataclass(frozen=True)
class PretrainInput:
    """Packed text, and sentences about what was left out.

    Attributes:
        special_ids: tokens that are never masked (encoders).
        mask_id: what masked words become; -1 for a causal model.
    """

    train: tuple[TokenSequence, ...]
    heldout: tuple[TokenSequence, ...]
    pad_id: int
    special_ids: tuple[int, ...]
    mask_id: int
    vocab_size: int
    notes: tuple[str, ...]


def read_corpus(run: PretrainRun | PretrainEncoderRun) -> Split[str]:
    """Training and held-out documents. Raises UserError, also for blocks that the model has no positions for."""
    check_limits({"pretrain.block_tokens": run.pretrain.block_tokens}, *_positions(run))
    data = run.data
    corpus = hold_out(
        lambda path: read_texts(path, data), data.text, data.heldout_text, lambda text: text, data, run.seed
    )
    check_heldout("pretrain", run.pretrain, len(corpus.heldout))
    return corpus


def _positions(run: PretrainRun | PretrainEncoderRun) -> tuple[int, str]:
    """The model's positions, and what names them."""
    model = run.policy.ref if isinstance(run, PretrainRun) else run.reward.encoder
    match model:
        case NewLlamaSettings():
            check_sizes(model, MIN_HEAD_WIDTH)
        case NewBertSettings():
            check_sizes(model)
        case ModelRef():
            opened = open_model(model)
            check_full(opened)
            return opened.num_positions, str(model)
        case _:
            assert_never(model)
    return model.max_positions, f"{model.setting}.max_positions"


def corpus_rows(
    corpus: Split[str], tokenizer: Any | None, run: PretrainRun | PretrainEncoderRun
) -> tuple[RenderedRow, ...]:
    """The first block, or the first document where the tokenizer is made of this text only later."""
    if tokenizer is None:
        return text_rows("data.text", len(corpus.train), ("text", corpus.train[0], True))
    blocks = pack_texts(tokenizer, corpus.train[:1], run.pretrain.block_tokens, run.data.rendered)
    name = "text" if tokenizer.mask_token_id is None else "text, of which words are masked"
    part = token_part(name, tokenizer, blocks[0].ids, True)
    return (RenderedRow("data.text", len(corpus.train), (part,)),)


def encode_corpus(corpus: Split[str], tokenizer: Any, run: PretrainRun | PretrainEncoderRun) -> PretrainInput:
    is_encoder = tokenizer.mask_token_id is not None
    pack = partial(pack_texts, block_tokens=run.pretrain.block_tokens, rendered=run.data.rendered)
    return PretrainInput(
        train=tuple(pack(tokenizer, corpus.train)),
        heldout=tuple(pack(tokenizer, corpus.heldout)) if corpus.heldout else (),
        pad_id=tokenizer.pad_token_id,
        special_ids=tuple(tokenizer.all_special_ids),
        mask_id=tokenizer.mask_token_id if is_encoder else -1,
        vocab_size=len(tokenizer),
        notes=corpus.notes,
    )


def learner_parts(run: PretrainRun) -> LearnerParts:
    opened = open_policy(run.policy.existing_ref)
    module = method_of(FullTuning()).policy(opened, ("policy",), run.seed)
    return LearnerParts(module, NEXT_TOKEN_LOSS_TERMS, policy_artifact(opened, module), run.pretrain)


def run_pretrain(
    run: PretrainRun, data: PretrainInput, learners: Learners, folder: Path, log: MetricsLog
) -> StageResult:
    """Train a causal model on next tokens and write `policy/`."""

    def batch_of(blocks: Sequence[TokenSequence], index: NDArray[np.int64]) -> TokenBatch:
        return collate([blocks[i] for i in index], data.pad_id)

    heldout = Heldout(len(data.heldout), lambda index: batch_of(data.heldout, index), num_predicted_tokens)
    stage = OfflineStage(
        name="pretrain",
        settings=run.pretrain,
        seed=run.seed,
        num_records=len(data.train),
        batch_of=lambda index, step: batch_of(data.train, index),
        tokens_of=num_tokens,
        heldout=heldout,
        inputs=inputs_of(run.data, "text", data.train, data.heldout),
    )
    for note in small_batch_notes("pretrain", run.pretrain, len(data.train), run.learner):
        log.notify(stage.name, note)
    result = run_epochs(stage, learners, folder, log)
    learners.export(folder / "policy")
    return result


HELDOUT_MASKS = 2**31
"""Stands where the step does in the seed of the masks, for held-out text."""

# ------------------------------------------------------------------------------------------------------- masked words


@dataclass(frozen=True)
class MaskedBatch(Batch):
    """Text with words hidden. `labels` int64 [B, T]: the true id where one is to be guessed, else IGNORED_LABEL."""

    tokens: TokenBatch
    labels: NDArray[np.int64]


def masked_word_loss(forward: Any, batch: MaskedBatch) -> LossSum:
    logits = forward(torch.from_numpy(batch.tokens.input_ids), torch.from_numpy(batch.tokens.attention_mask))
    labels = torch.from_numpy(batch.labels).to(logits.device)
    guessed = labels != IGNORED_LABEL
    loss = masked_lm_loss(logits, labels, guessed).loss
    correct = (logits.detach().argmax(dim=-1) == labels) & guessed
    return LossSum(loss, {"loss": loss.detach(), "accuracy": correct.sum()})


def num_masked(batch: MaskedBatch) -> float:
    return float((batch.labels != IGNORED_LABEL).sum())


MASKED_WORD_LOSS_TERMS = (LossTerm(None, masked_word_loss, num_masked),)


def encoder_learner_parts(run: PretrainEncoderRun) -> LearnerParts:
    opened = open_encoder(run.reward.existing_encoder)
    encoder = load_masked_lm(opened)
    artifact = FullModel(encoder, "encoder.", opened.tokenizer)
    return LearnerParts(MaskedWordModel(encoder), MASKED_WORD_LOSS_TERMS, artifact, run.pretrain)


def run_pretrain_encoder(
    run: PretrainEncoderRun, data: PretrainInput, learners: Learners, folder: Path, log: MetricsLog
) -> StageResult:
    """Train an encoder on masked words and write `encoder/`."""

    def masked(sequences: tuple[TokenSequence, ...], index: NDArray[np.int64], seed: list[int]) -> MaskedBatch:
        batch = collate([sequences[i] for i in index], data.pad_id)
        rng = np.random.default_rng(seed)
        return MaskedBatch(
            *mask_tokens(batch, data.special_ids, data.mask_id, data.vocab_size, run.pretrain.mask_fraction, rng)
        )

    stage = OfflineStage(
        name="pretrain-encoder",
        settings=run.pretrain,
        seed=run.seed,
        num_records=len(data.train),
        batch_of=lambda index, step: masked(data.train, index, [run.seed, step]),
        tokens_of=lambda batch: num_tokens(batch.tokens),
        heldout=Heldout(
            len(data.heldout), lambda index: masked(data.heldout, index, [run.seed, HELDOUT_MASKS]), num_masked
        ),
        inputs=inputs_of(run.data, "text", data.train, data.heldout),
    )
    for note in small_batch_notes("pretrain", run.pretrain, len(data.train), run.learner):
        log.notify(stage.name, note)
    result = run_epochs(stage, learners, folder, log)
    learners.export(folder / "encoder")
    return result
