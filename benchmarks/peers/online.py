"""TRL's RLOO and GRPO, sampling with transformers: `python -m benchmarks.peers.online WORKLOAD RESULT`."""

from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from benchmarks.peers.timing import StepClock, Variants, arguments, run_variants
from benchmarks.workload import KL_COEFFICIENT, LORA_ALPHA, LORA_RANK, Workload

TRAINERS = {"rloo": (RLOOConfig, RLOOTrainer, {}), "grpo": (GRPOConfig, GRPOTrainer, {"loss_type": "grpo"})}


def variants(work: Workload) -> Variants:
    """At its defaults: forwards of 8 rows, activations recomputed. At its best: neither.

    In bfloat16 two forms compete: autocast over float32 weights, and bfloat16 weights under it.
    """
    tuned = {"per_device_train_batch_size": work.micro_batch_size, "gradient_checkpointing": False}
    found: dict[str, dict[str, Any]] = {"defaults": {}, "tuned": tuned}
    if work.precision == "bfloat16":
        found["tuned, bfloat16 weights"] = tuned | {"weights": torch.bfloat16}
    return found


def train(work: Workload, rows: Dataset, folder: str, settings: dict[str, Any]) -> dict[str, Any]:
    weights = settings.pop("weights", torch.float32)
    config_class, trainer_class, own = TRAINERS[work.method]
    config = config_class(
        num_generations=work.samples_per_prompt,
        max_completion_length=work.max_new_tokens,
        beta=KL_COEFFICIENT[work.method],
        **own | arguments(work, folder, settings),
    )
    clock = StepClock()
    trainer = trainer_class(
        model=AutoModelForCausalLM.from_pretrained(work.policy, dtype=weights),
        reward_funcs=AutoModelForSequenceClassification.from_pretrained(work.reward_model, dtype=torch.float32),
        reward_processing_classes=AutoTokenizer.from_pretrained(work.reward_model),
        processing_class=AutoTokenizer.from_pretrained(work.policy),
        args=config,
        train_dataset=rows,
        peft_config=LoraConfig(r=LORA_RANK, lora_alpha=LORA_ALPHA, target_modules="all-linear"),
        callbacks=[clock],
    )
    trainer.train()
    lengths = [line["completions/mean_length"] for line in trainer.state.log_history if "loss" in line]
    return clock.seconds() | {"response_tokens": sum(lengths) / len(lengths)}


if __name__ == "__main__":
    run_variants(variants, train)
