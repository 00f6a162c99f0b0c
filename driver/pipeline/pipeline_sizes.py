"""How much there is of each of a pipeline's inputs, and what the learners of its stages compute of it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from plumbob.configs.runs import PipelineRun
from plumbob.configs.settings.algorithms import algorithm_of
from plumbob.configs.settings.models import NewBertSettings
from plumbob.configs.settings.training import EpochSettings
from plumbob.data.prompts import encode_prompts
from plumbob.data.records import Demonstration, PreferencePair, Prompt, Ranking
from plumbob.data.splitting import Split
from plumbob.data.texts.tokenizer import Tokenizer
from plumbob.data.tokenization import TokenSequence, encode_demonstrations, encode_pairs
from plumbob.data.toy_world.toy_files import World
from plumbob.driver.input_sizes.learner_rows import LearnerRows
from plumbob.driver.input_sizes.token_lengths import InputTokens, tokens_of_prompts, tokens_of_sequences
from plumbob.driver.stages.reward_stage import reward_rows, whole_lengths
from plumbob.driver.stages.stage import InputSizes
from plumbob.models.masked_lm import open_encoder
from plumbob.trainers.offline.loop import epoch_batches

TEXT, DEMONSTRATIONS, PAIRS, PROMPTS = "data.text", "data.demonstrations", "data.pairs", "data.prompts"


def toy_sizes(world: World) -> InputSizes:
    """Of a generated world, whose tokenizers are made later."""
    return InputSizes(
        (
            InputTokens(TEXT, len(world.texts)),
            InputTokens(DEMONSTRATIONS, len(world.demonstrations)),
            InputTokens(PAIRS, len(world.pairs), num_heldout=len(world.heldout_pairs)),
            InputTokens(PROMPTS, len(world.prompts), num_heldout=len(world.heldout_prompts)),
        )
    )


def pipeline_sizes(
    run: PipelineRun,
    tokenizer: Tokenizer | None,
    text: Split[str],
    demonstrations: Split[Demonstration],
    pairs: Split[PreferencePair],
    prompts: Split[Prompt],
) -> InputSizes:
    """`tokenizer`: the policy's; None where it is made from the text only later.

    Raises:
        UserError: of one of the inputs nothing is short enough.
    """
    if tokenizer is None:
        counts: dict[str, Split[Any]] = {TEXT: text, DEMONSTRATIONS: demonstrations, PAIRS: pairs, PROMPTS: prompts}
        inputs = [InputTokens(name, len(one.train), num_heldout=len(one.heldout)) for name, one in counts.items()]
        return InputSizes(tuple(inputs), _rewarded(run, pairs))
    shown = encode_demonstrations(tokenizer, demonstrations.train, run.data)
    sides = encode_pairs(tokenizer, pairs.train, run.data)
    asked = encode_prompts(tokenizer, prompts.train, run.data.max_prompt_tokens)
    ids = [prompt.ids for prompt in asked.records]
    inputs = [
        tokens_of_sequences(DEMONSTRATIONS, [(one,) for one in shown.records], shown.dropped, run.data),
        tokens_of_sequences(PAIRS, sides.records, sides.dropped, run.data, len(pairs.heldout)),
        tokens_of_prompts(PROMPTS, ids, asked.dropped, run.data.max_prompt_tokens, len(prompts.heldout)),
    ]
    learnt = {
        "sft": _learnt([(one,) for one in shown.records], run.sft, run.seed),
        **_rewarded(run, pairs),
        "dpo": _learnt(sides.records, run.dpo, run.seed),
        algorithm_of(run.ppo.estimator): LearnerRows(max(map(len, ids)) + run.rollout.max_tokens),
    }
    return InputSizes(tuple(inputs), learnt)


def _learnt(records: Sequence[Sequence[TokenSequence]], settings: EpochSettings, seed: int) -> LearnerRows:
    lengths = np.array([max(len(one.ids) for one in own) for own in records], dtype=np.int64)
    return LearnerRows(int(lengths.max()), lengths, epoch_batches(settings, len(lengths), seed))


def _rewarded(run: PipelineRun, pairs: Split[PreferencePair]) -> Mapping[str, LearnerRows]:
    """Of an encoder that is there."""
    encoder = run.reward.encoder
    if isinstance(encoder, NewBertSettings):
        return {}
    records = [Ranking(pair.prompt, (pair.chosen, pair.rejected)) for pair in pairs.train]
    found = whole_lengths(open_encoder(encoder).tokenizer, records)
    return {"reward": reward_rows(found, run.reward.max_tokens, run.reward_training, run.seed)}
