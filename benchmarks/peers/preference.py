"""TRL's DPO: `python -m benchmarks.peers.preference WORKLOAD RESULT`."""

import time
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer

from benchmarks.peers.timing import StepClock, Variants, arguments, run_variants, with_lengths
from benchmarks.workload import LORA_ALPHA, LORA_RANK, PREFERENCE_BETA, Workload


class TimedDpo(DPOTrainer):
    """Counts what the reference's log-probs cost where they are computed before training: that is work too."""

    reference_seconds = 0.0

    def _precompute_ref_logps(self, *given: Any, **named: Any) -> Dataset:
        began = time.perf_counter()
        found = super()._precompute_ref_logps(*given, **named)
        self.reference_seconds += time.perf_counter() - began
        return found


def variants(work: Workload) -> Variants:
    """At its defaults: 8 pairs a forward, in random order, activations recomputed, the reference in every step.

    Padding-free batches are off in this release, so length grouping is what it has against padding.
    """
    tuned = {
        "per_device_train_batch_size": work.micro_batch_size,
        "gradient_checkpointing": False,
        "train_sampling_strategy": "group_by_length",
        "remove_unused_columns": False,
    }
    return {"defaults": {}, "grouped": tuned, "grouped, reference first": tuned | {"precompute_ref_log_probs": True}}


def train(work: Workload, rows: Dataset, folder: str, settings: dict[str, Any]) -> dict[str, Any]:
    clock = StepClock()
    tokenizer = AutoTokenizer.from_pretrained(work.policy)
    if "train_sampling_strategy" in settings:
        rows = with_lengths(rows)
    trainer = TimedDpo(
        model=AutoModelForCausalLM.from_pretrained(work.policy, dtype=torch.float32),
        processing_class=tokenizer,
        args=DPOConfig(max_length=work.max_tokens, beta=PREFERENCE_BETA, **arguments(work, folder, settings)),
        train_dataset=rows,
        peft_config=LoraConfig(r=LORA_RANK, lora_alpha=LORA_ALPHA, target_modules="all-linear"),
        callbacks=[clock],
    )
    trainer.train()
    seconds = clock.seconds()
    return seconds | {"whole": seconds["whole"] + trainer.reference_seconds}


if __name__ == "__main__":
    run_variants(variants, train)
