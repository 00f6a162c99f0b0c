"""How much there is of each of a pipeline's inputs, and what the learners of its stages compute of it."""

from collections.abc import Mapping, Sequence

import numpy as np

from plumbob.configs.runs import PipelineRun
from plumbob.configs.settings.algorithms import algorithm_of
from plumbob.configs.settings.models import NewBertSettings, NewLlamaSettings
from plumbob.configs.settings.training import EpochSettings
from plumbob.data.prompts import encode_prompts
from plumbob.data.records import Demonstration, PreferencePair, Prompt, Ranking, make_prompt
from plumbob.data.splitting import Split, split_by_prompt
from plumbob.data.texts.tokenizer import Tokenizer
from plumbob.data.tokenization import TokenSequence, encode_demonstrations, encode_pairs, pack_texts
from plumbob.data.toy_world.toy_files import World
from plumbob.driver.input_sizes.learner_rows import LearnerRows
from plumbob.driver.input_sizes.token_lengths import (
    InputTokens,
    tokens_of_blocks,
    tokens_of_prompts,
    tokens_of_sequences,
)
from plumbob.driver.stages.reward_stage import reward_rows, whole_lengths
from plumbob.driver.stages.stage import InputSizes
from plumbob.models.from_scratch import likely_tokenizer
from plumbob.models.masked_lm import open_encoder
from plumbob.trainers.offline.loop import epoch_batches

TEXT, DEMONSTRATIONS, PAIRS, PROMPTS = "data.text", "data.demonstrations", "data.pairs", "data.prompts"


def toy_sizes(run: PipelineRun, world: World) -> InputSizes:
    """Of a generated world, whose tokenizers are made later."""
    asked, heldout = (tuple(map(make_prompt, texts)) for texts in (world.prompts, world.heldout_prompts))
    return pipeline_sizes(
        run,
        None,
        Split(world.texts, (), ()),
        Split(world.demonstrations, (), ()),
        Split(world.pairs, world.heldout_pairs, ()),
        Split(asked, heldout, ()),
    )


def pipeline_sizes(
    run: PipelineRun,
    tokenizer: Tokenizer | None,
    text: Split[str],
    demonstrations: Split[Demonstration],
    pairs: Split[PreferencePair],
    prompts: Split[Prompt],
) -> InputSizes:
    """`tokenizer`: the policy's; None where it is made from the text later: such a one is made here.

    Raises:
        UserError: of one of the inputs nothing is short enough.
    """
    corpus, _ = split_by_prompt(text.train, lambda document: document, run.data.heldout_fraction, run.seed)
    of_text: list[InputTokens] = []
    learnt: dict[str, LearnerRows] = {}
    if tokenizer is None:
        assert isinstance(run.policy.ref, NewLlamaSettings), "a policy that is there has a tokenizer"
        tokenizer = likely_tokenizer(run.policy.ref, corpus)
        blocks = pack_texts(tokenizer, corpus, run.pretrain.block_tokens, rendered=True)
        learnt["pretrain"] = _learnt([(block,) for block in blocks], run.pretrain, run.seed)
        of_text = [tokens_of_blocks(TEXT, blocks, len(text.train) - len(corpus))]
    shown = encode_demonstrations(tokenizer, demonstrations.train, run.data)
    sides = encode_pairs(tokenizer, pairs.train, run.data)
    asked = encode_prompts(tokenizer, prompts.train, run.data.max_prompt_tokens)
    ids = [prompt.ids for prompt in asked.records]
    inputs = [
        *of_text,
        tokens_of_sequences(DEMONSTRATIONS, [(one,) for one in shown.records], shown.dropped, run.data),
        tokens_of_sequences(PAIRS, sides.records, sides.dropped, run.data, len(pairs.heldout)),
        tokens_of_prompts(PROMPTS, ids, asked.dropped, run.data.max_prompt_tokens, len(prompts.heldout)),
    ]
    learnt |= {
        **_of_encoder(run, corpus, pairs),
        "sft": _learnt([(one,) for one in shown.records], run.sft, run.seed),
        "dpo": _learnt(sides.records, run.dpo, run.seed),
        algorithm_of(run.online.estimator): LearnerRows(max(map(len, ids)) + run.rollout.max_tokens),
    }
    return InputSizes(tuple(inputs), learnt)


def _learnt(records: Sequence[Sequence[TokenSequence]], settings: EpochSettings, seed: int) -> LearnerRows:
    lengths = np.array([max(len(one.ids) for one in own) for own in records], dtype=np.int64)
    return LearnerRows(int(lengths.max()), lengths, epoch_batches(settings, len(lengths), seed))


def _of_encoder(run: PipelineRun, corpus: Sequence[str], pairs: Split[PreferencePair]) -> Mapping[str, LearnerRows]:
    """Of the stages of the reward model's encoder, which may be made from the text later, as its tokenizer is."""
    encoder = run.reward.encoder
    learnt: dict[str, LearnerRows] = {}
    if isinstance(encoder, NewBertSettings):
        tokenizer = likely_tokenizer(encoder, corpus)
        blocks = pack_texts(tokenizer, corpus, run.pretrain_encoder.block_tokens, rendered=True)
        learnt["pretrain-encoder"] = _learnt([(block,) for block in blocks], run.pretrain_encoder, run.seed)
    else:
        tokenizer = open_encoder(encoder).tokenizer
    records = [Ranking(pair.prompt, (pair.chosen, pair.rejected)) for pair in pairs.train]
    found = whole_lengths(tokenizer, records)
    return learnt | {"reward": reward_rows(found, run.reward.max_tokens, run.reward_training, run.seed)}
