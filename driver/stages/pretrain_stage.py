"""The stages of self-supervised pre-training: of a causal model, and of an encoder."""

from plumbob.configs.runs import PretrainEncoderRun, PretrainRun
from plumbob.configs.settings.models import ModelRef
from plumbob.driver.stages.new_models import create_encoder, create_policy
from plumbob.driver.stages.stage import PreparedStage, StageContext, training_stage
from plumbob.models.loading import open_policy
from plumbob.models.masked_lm import open_encoder
from plumbob.trainers.metrics.metrics_log import MetricsLog
from plumbob.trainers.metrics.stage_result import StageResult
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

    return training_stage(corpus.notes, train, corpus_rows(corpus, tokenizer, run))


def prepare_encoder(run: PretrainEncoderRun) -> PreparedStage:
    """Read and check the input. Raises UserError; starts and writes nothing."""
    corpus = read_corpus(run)
    tokenizer = open_encoder(run.reward.encoder).tokenizer if isinstance(run.reward.encoder, ModelRef) else None

    def train(context: StageContext, log: MetricsLog) -> StageResult:
        reward = create_encoder(run.reward, corpus.train, context.folder / "new", run.seed)
        data = encode_corpus(corpus, open_encoder(reward.existing_encoder).tokenizer, run)
        named = run.model_copy(update={"reward": reward})
        return run_pretrain_encoder(named, data, context.session.start_learners(named), context.folder, log)

    return training_stage(corpus.notes, train, corpus_rows(corpus, tokenizer, run))
