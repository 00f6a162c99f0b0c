"""Supervised fine-tuning: imitate demonstrations, with the loss on the answer's tokens only."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from configs.schema import SftRun
from data.checks import LENGTH_KEYS, check_sequences
from data.holdout import hold_out
from data.prompts import chat_renderer
from data.readers import read_demonstrations
from data.tokens import TokenBatch, TokenSequence, collate, encode_demonstrations
from models.source import context_tokens, load_tokenizer, resolve_model
from trainers.learners import Learners
from trainers.metrics import MetricsLog
from trainers.offline import OfflineStage, heldout_means, run_epochs
from trainers.tokens import num_predicted_tokens, num_tokens


@dataclass(frozen=True)
class SftInput:
    """Encoded demonstrations, and sentences about rows that were left out."""

    train: tuple[TokenSequence, ...]
    heldout: tuple[TokenSequence, ...]
    pad_id: int
    notes: tuple[str, ...]


def prepare_sft(run: SftRun) -> SftInput:
    """Read, check, split and encode. Raises UserError; starts and writes nothing."""
    policy, data = run.policy, run.data
    source = resolve_model(policy.model, "policy.model")
    tokenizer = load_tokenizer(source, "policy.model", policy.trust_remote_code)
    render = chat_renderer(tokenizer)
    split = hold_out(
        lambda path: read_demonstrations(path, data, render),
        data.demonstrations,
        data.heldout_demonstrations,
        lambda demonstration: demonstration.prompt,
        data,
        run.seed,
    )
    train = encode_demonstrations(tokenizer, split.train, data)
    heldout = encode_demonstrations(tokenizer, split.heldout, data, required=False)
    longest = max(len(sequence.ids) for sequence in (*train.records, *heldout.records))
    check_sequences(longest, context_tokens(source, "policy.model", policy.trust_remote_code), LENGTH_KEYS)
    notes = split.notes + train.notes + heldout.notes
    return SftInput(train.records, heldout.records, tokenizer.pad_token_id, notes)


def run_sft(run: SftRun, data: SftInput, learners: Learners, folder: Path, log: MetricsLog) -> dict[str, float]:
    """Train and write `policy/`. Returns the summary's figures."""

    def batch_of(index: NDArray[np.int64], step: int) -> TokenBatch:
        return collate([data.train[i] for i in index], data.pad_id)

    stage = OfflineStage("sft", run.sft, run.seed, len(data.train), batch_of, num_tokens)
    run_epochs(stage, learners, folder, log)
    learners.export(folder / "policy")
    heldout = heldout_means(
        learners,
        len(data.heldout),
        lambda index: collate([data.heldout[i] for i in index], data.pad_id),
        num_predicted_tokens,
    )
    return heldout | {"num_records": len(data.train)}
