"""A bias planted in the toy world's preferences, and what each mitigation leaves of it, at which cost.

`python -m tests.support.planted_bias` prints the table of docs/stewardship.md.
"""

import random
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from plumbob.configs.runs import RewardRun
from plumbob.configs.settings.data import ToyWorldSettings
from plumbob.configs.settings.models import NewBertSettings
from plumbob.configs.settings.stewardship.bias_checks import BiasMitigationSettings
from plumbob.core.statistics import Interval, proportion_interval
from plumbob.data.records import PreferencePair, Ranking
from plumbob.data.toy_world.toy_files import build_world
from plumbob.models.from_scratch import build_bert
from plumbob.models.masked_lm import open_encoder
from plumbob.reward.bias.group_differences import GroupDifference
from plumbob.trainers.learner.learner_protocol import Learners
from plumbob.trainers.metrics.metrics_log import MetricsLog
from plumbob.trainers.offline.reward_modelling.counterfactual_records import Mitigation
from plumbob.trainers.offline.reward_modelling.reward_batch import (
    FeedbackRecord,
    collate_responses,
    encode_responses,
    response_rewards,
)
from plumbob.trainers.offline.reward_modelling.reward_model import RewardInput, run_reward
from plumbob.verify.local_learner import open_learner
from plumbob.verify.null_listener import NullListener

MAX_TOKENS = 96
UNFAIR = 0.4
"""Of the pairs in which a man's answer stands beside a woman's, the share that is decided by that alone."""

SPEAKERS = {"men": (" A man told me.", " He told me.", " My brother told me."),
            "women": (" A woman told me.", " She told me.", " My sister told me.")}  # fmt: skip

MITIGATIONS: Mapping[str, BiasMitigationSettings] = {
    "none": BiasMitigationSettings(),
    "`augment`": BiasMitigationSettings(augment=True),
    "`filter`": BiasMitigationSettings(filter=True),
    "`consistency: 1`": BiasMitigationSettings(consistency=1.0),
}


@dataclass(frozen=True)
class PlantedPairs:
    """Attributes: training pairs whose labels are biased, and held-out ones whose labels are not."""

    train: tuple[FeedbackRecord, ...]
    heldout: tuple[FeedbackRecord, ...]


def planted_pairs(num_pairs: int, num_heldout: int, seed: int = 0) -> PlantedPairs:
    """Pairs of the toy world, each answer told by somebody: in two of three by a man and a woman, else by two alike."""
    settings = ToyWorldSettings(
        num_texts=1, num_demonstrations=1, num_pairs=num_pairs, num_heldout_pairs=num_heldout, num_cars=6
    )
    world, rng = build_world(settings, seed), random.Random(seed)
    return PlantedPairs(
        tuple(_told(pair, rng, UNFAIR) for pair in world.pairs),
        tuple(_told(pair, rng, 0.0) for pair in world.heldout_pairs),
    )


def _told(pair: PreferencePair, rng: random.Random, unfair: float) -> Ranking:
    groups = rng.choice([("men", "women"), ("women", "men"), 2 * (rng.choice(list(SPEAKERS)),)])
    chosen, rejected = (
        response + rng.choice(SPEAKERS[group])
        for response, group in zip((pair.chosen, pair.rejected), groups, strict=True)
    )
    if groups == ("women", "men") and rng.random() < unfair:
        chosen, rejected = rejected, chosen
    return Ranking(pair.prompt, (chosen, rejected))


@dataclass(frozen=True)
class MitigationResult:
    """Attributes: records learnt, men less women in standard deviations of the rewards, accuracy, and CPU seconds."""

    num_records: int
    bias: GroupDifference
    accuracy: Interval
    seconds: float


def trained(
    pairs: PlantedPairs,
    mitigation: BiasMitigationSettings,
    folder: Path,
    num_epochs: int,
    open_learners: Callable[[RewardRun], Learners] = open_learner,
) -> MitigationResult:
    """A reward model from scratch on the pairs, by a whole run's loop."""
    run = reward_run(encoder_of(pairs, folder), mitigation, num_epochs)
    applied = Mitigation.of(mitigation)
    began = time.process_time()
    records, _ = applied.training_records(pairs.train, {record.prompt for record in pairs.heldout})
    learners, tokenizer = open_learners(run), open_encoder(run.reward.existing_encoder).tokenizer
    with tempfile.TemporaryDirectory() as own, MetricsLog(Path(own), NullListener()) as log:
        run_reward(run, RewardInput(records, pairs.heldout, ()), tokenizer, learners, Path(own), log)
    seconds = time.process_time() - began
    rewards = rewards_of(pairs.heldout, tokenizer, learners)
    num_right = float(((np.sign(rewards[:, 0] - rewards[:, 1]) + 1) / 2).sum())
    bias = applied.heldout_bias(pairs.heldout, tokenizer, MAX_TOKENS, learners, float(rewards.std()))
    (of_sexes,) = (one for one in bias if one.contrast.dimension == "gender")
    return MitigationResult(len(records), of_sexes, proportion_interval(num_right, len(rewards)), seconds)


def rewards_of(records: Sequence[FeedbackRecord], tokenizer: Any, learners: Learners) -> np.ndarray:
    batch = collate_responses(tokenizer, encode_responses(tokenizer, records, MAX_TOKENS))
    return learners.compute(batch, None, response_rewards).astype(np.float64)


def encoder_of(pairs: PlantedPairs, folder: Path) -> Path:
    """A random BERT, the same for all mitigations."""
    encoder = folder / "encoder"
    if not encoder.exists():
        sizes = NewBertSettings(
            vocab_size=512, hidden_size=64, num_layers=2, num_heads=2, intermediate_size=128, max_positions=MAX_TOKENS
        )
        texts = [record.prompt + response for record in pairs.train for response in record.responses]
        build_bert(sizes, [*texts, *(text for told in SPEAKERS.values() for text in told)], encoder, seed=0)
    return encoder


def reward_run(encoder: Path, mitigation: BiasMitigationSettings, num_epochs: int) -> RewardRun:
    return RewardRun.model_validate(
        {
            "data": {"pairs": "unread"},
            "reward": {"model": str(encoder), "max_tokens": MAX_TOKENS},
            "learner": {"micro_batch_size": 64, "zero_stage": 0, "autocast": False},
            "reward_training": {
                "learning_rate": 1e-3,
                "batch_size": 32,
                "num_epochs": num_epochs,
                "save_every": 10**6,
                "dropout": False,
                "mitigation": mitigation,
            },
        }
    )


def main() -> None:
    num_pairs, num_epochs = (int(word) for word in sys.argv[1:] or ("2000", "4"))
    pairs = planted_pairs(num_pairs, 1000)
    print("| mitigation | records learnt | men less women [95%] | accuracy on fair labels [95%] | CPU s |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, mitigation in MITIGATIONS.items():
            found = trained(pairs, mitigation, Path(folder), num_epochs)
            bias, accuracy = found.bias, found.accuracy
            low, high = bias.ci95 or (float("nan"), float("nan"))
            print(
                f"| {name} | {found.num_records:,} | {bias.mean:+.3f} [{low:+.3f}, {high:+.3f}] | {accuracy.mean:.1%} "
                f"[{accuracy.low:.1%}, {accuracy.high:.1%}] | {found.seconds:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
