"""The stages of self-supervised pre-training: of a causal model, and of an encoder."""

from typing import Any

import numpy as np

from plumbob.configs.runs import PretrainEncoderRun, PretrainRun
from plumbob.configs.settings.models import ModelRef
from plumbob.data.splitting import Split
from plumbob.driver.input_sizes.learner_rows import LearnerRows
from plumbob.driver.input_sizes.token_lengths import tokens_of_blocks
from plumbob.driver.stages.new_models import create_encoder, create_policy
from plumbob.driver.stages.stage import InputSizes, PreparedStage, StageContext, training_stage
from plumbob.models.from_scratch import likely_tokenizer
from plumbob.models.loading import open_policy
from plumbob.models.masked_lm import open_encoder
from plumbob.trainers.metrics.metrics_log import MetricsLog
from plumbob.trainers.metrics.stage_result import StageResult
from plumbob.trainers.offline.loop import epoch_batches
from plumbob.trainers.offline.pretrain import (
    corpus_rows,
    encode_corpus,
    read_corpus,
    run_pretrain,
    run_pretrain_encoder,
)


def prepare(run: PretrainRun) -> PreparedStage:
    """Read and check the input. Raises UserError; starts and writes nothing."""
    corpus = read_corpus(run)
    tokenizer = open_policy(run.policy.ref).tokenizer if isinstance(run.policy.ref, ModelRef) else None

    def train(context: StageContext, log: MetricsLog) -> StageResult:
        policy = create_policy(run.policy, corpus.train, context.folder / "new", run.seed)
        data = encode_corpus(corpus, open_policy(policy.existing_ref).tokenizer, run)
        named = run.model_copy(update={"policy": policy})
        return run_pretrain(named, data, context.session.start_learners(named), context.folder, log)

    return training_stage(
        corpus.notes, train, corpus_rows(corpus, tokenizer, run), lambda: _sizes(run, corpus, tokenizer)
    )


def prepare_encoder(run: PretrainEncoderRun) -> PreparedStage:
    """Read and check the input. Raises UserError; starts and writes nothing."""
    corpus = read_corpus(run)
    tokenizer = open_encoder(run.reward.encoder).tokenizer if isinstance(run.reward.encoder, ModelRef) else None

    def train(context: StageContext, log: MetricsLog) -> StageResult:
        reward = create_encoder(run.reward, corpus.train, context.folder / "new", run.seed)
        data = encode_corpus(corpus, open_encoder(reward.existing_encoder).tokenizer, run)
        named = run.model_copy(update={"reward": reward})
        return run_pretrain_encoder(named, data, context.session.start_learners(named), context.folder, log)

    return training_stage(
        corpus.notes, train, corpus_rows(corpus, tokenizer, run), lambda: _sizes(run, corpus, tokenizer)
    )


def _sizes(run: PretrainRun | PretrainEncoderRun, corpus: Split[str], tokenizer: Any | None) -> InputSizes:
    """By the tokenizer that there is, or one such as will be made from the text."""
    if tokenizer is None:
        model = run.policy.ref if isinstance(run, PretrainRun) else run.reward.encoder
        assert not isinstance(model, ModelRef), "a model that is there has a tokenizer"
        tokenizer = likely_tokenizer(model, corpus.train)
    blocks = encode_corpus(corpus, tokenizer, run).train
    lengths = np.array([len(block.ids) for block in blocks], dtype=np.int64)
    rows = LearnerRows(int(lengths.max()), lengths, epoch_batches(run.pretrain, len(blocks), run.seed))
    return InputSizes((tokens_of_blocks("data.text", blocks, len(corpus.heldout)),), {run.stage: rows})
