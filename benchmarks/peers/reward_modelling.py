"""TRL's reward modelling: `python -m benchmarks.peers.reward_modelling WORKLOAD RESULT`."""

from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from trl import RewardConfig, RewardTrainer

from benchmarks.peers.timing import StepClock, Variants, arguments, run_variants, with_lengths
from benchmarks.workload import Workload


def variants(work: Workload) -> Variants:
    """At its defaults: 8 pairs a forward, in random order, activations recomputed."""
    tuned = {"per_device_train_batch_size": work.micro_batch_size, "gradient_checkpointing": False}
    tuned |= {"train_sampling_strategy": "group_by_length", "remove_unused_columns": False}
    return {"defaults": {}, "grouped": tuned}


def train(work: Workload, rows: Dataset, folder: str, settings: dict[str, Any]) -> dict[str, Any]:
    clock = StepClock()
    tokenizer = AutoTokenizer.from_pretrained(work.policy)
    if "train_sampling_strategy" in settings:
        rows = with_lengths(rows)
    trainer = RewardTrainer(
        model=AutoModelForSequenceClassification.from_pretrained(work.policy, num_labels=1, dtype=torch.float32),
        processing_class=tokenizer,
        args=RewardConfig(
            max_length=work.max_tokens,
            # A BERT's tokenizer names no EOS, and the library puts one behind every text.
            eos_token=tokenizer.sep_token,
            **arguments(work, folder, settings),
        ),
        train_dataset=rows,
        callbacks=[clock],
    )
    trainer.train()
    return clock.seconds()


if __name__ == "__main__":
    run_variants(variants, train)
