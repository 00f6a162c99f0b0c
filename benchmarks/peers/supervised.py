"""TRL's SFT: `python -m benchmarks.peers.supervised WORKLOAD RESULT`."""

from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from benchmarks.peers.timing import StepClock, Variants, arguments, run_variants
from benchmarks.workload import LORA_ALPHA, LORA_RANK, Workload


def variants(work: Workload) -> Variants:
    """At its defaults: 8 rows a forward, padded, activations recomputed.

    Without FlashAttention a padding-free batch is still right, since transformers makes the block mask from the
    positions; but every row then attends over the whole batch's length. So both that and grouping by length are tried.
    """
    tuned = {"per_device_train_batch_size": work.micro_batch_size, "gradient_checkpointing": False}
    return {
        "defaults": {},
        "grouped": tuned | {"train_sampling_strategy": "group_by_length"},
        "padding-free": tuned | {"padding_free": True, "per_device_train_batch_size": 8, "max_length": None},
    }


def train(work: Workload, rows: Dataset, folder: str, settings: dict[str, Any]) -> dict[str, Any]:
    clock = StepClock()
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(work.policy, dtype=torch.float32),
        processing_class=AutoTokenizer.from_pretrained(work.policy),
        args=SFTConfig(**{"max_length": work.max_tokens} | arguments(work, folder, settings)),
        train_dataset=rows,
        peft_config=LoraConfig(r=LORA_RANK, lora_alpha=LORA_ALPHA, target_modules="all-linear"),
        callbacks=[clock],
    )
    trainer.train()
    return clock.seconds()


if __name__ == "__main__":
    run_variants(variants, train)
