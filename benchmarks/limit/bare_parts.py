"""A step's parts alone, in a process: `python -m benchmarks.limit.bare_parts sample|learn|score WORKLOAD RESULT`.

What no step can be faster than: vLLM on the same prompts without LoRA; the scorer on as many texts; torch and PEFT on
the same shapes, forward and backward. Nothing is published, checked or written.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import psutil
import torch
from transformers import AutoTokenizer

from benchmarks.workload import LEARNING_RATE, LORA_ALPHA, LORA_RANK, Workload

NUM_TIMES = 4
"""Each part is done so often; the first is a warm-up."""


def seconds_of(part: Callable[[], object]) -> float:
    found = []
    for _ in range(NUM_TIMES):
        began = time.perf_counter()
        part()
        found.append(time.perf_counter() - began)
    return median(found[1:])


def prompts_of(work: Workload) -> list[str]:
    """Those of one step, each as often as it is sampled."""
    lines = Path(work.data).read_text(encoding="utf-8").splitlines()[: work.prompts_per_step]
    return [json.loads(line)["prompt"] for line in lines for _ in range(work.samples_per_prompt)]


def sample(work: Workload) -> dict[str, float]:
    """vLLM's seconds for a step's responses, all of full length."""
    os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "ERROR", "TORCHDYNAMO_DISABLE": "1"}
    from vllm import LLM, SamplingParams

    tokenizer = AutoTokenizer.from_pretrained(work.policy)
    engine = LLM(
        work.policy,
        dtype=work.precision,
        enforce_eager=True,
        skip_tokenizer_init=True,
        disable_log_stats=True,
        enable_chunked_prefill=False,
        kv_cache_memory_bytes=2**30,
        distributed_executor_backend="uni",
        logprobs_mode="processed_logprobs",
    )
    params = SamplingParams(max_tokens=work.max_new_tokens, ignore_eos=True, detokenize=False, logprobs=0)
    prompts = [{"prompt_token_ids": tokenizer.encode(text)} for text in prompts_of(work)]

    def part() -> None:
        engine.reset_prefix_cache()
        engine.generate(prompts, params, use_tqdm=False)

    return {"sample": seconds_of(part)}


def score(work: Workload) -> dict[str, float]:
    """The scorer's seconds for a step's prompts with as many random tokens behind them as a response has."""
    from transformers import AutoModelForSequenceClassification

    scorer = AutoModelForSequenceClassification.from_pretrained(work.reward_model)
    tokenizer = AutoTokenizer.from_pretrained(work.reward_model)
    texts = AutoTokenizer.from_pretrained(work.policy).batch_decode(rows_of(work))

    def part() -> None:
        with torch.no_grad():
            for start in range(0, len(texts), 32):
                given = tokenizer(texts[start : start + 32], return_tensors="pt", padding=True, truncation=True)
                scorer(**given)

    return {"score": seconds_of(part)}


def rows_of(work: Workload) -> torch.Tensor:
    """A step's prompts, each with a random response of full length: int64 [B, P + R]."""
    tokenizer = AutoTokenizer.from_pretrained(work.policy)
    prompts = torch.tensor([tokenizer.encode(text) for text in prompts_of(work)])
    return torch.cat([prompts, torch.randint(len(tokenizer), (len(prompts), work.max_new_tokens))], dim=1)


def learn(work: Workload) -> dict[str, float]:
    """Seconds of the learner's forwards and backwards, and the memory that these took, in bytes.

    `memory`: the base, two adapters with gradients and AdamW's state, and one micro-batch: how far the process grew
    from `loaded`, what it had before; `base`: the base alone.
    """
    # What a learner's process has loaded before its model is none of the growth.
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    import plumbob.cluster.workers.learner_worker
    import plumbob.trainers.learner.engine  # noqa: F401

    before = psutil.Process().memory_info().rss
    base = AutoModelForCausalLM.from_pretrained(work.policy, dtype=getattr(torch, work.precision))
    base_bytes = sum(parameter.numel() * parameter.element_size() for parameter in base.parameters())
    settings = LoraConfig(r=LORA_RANK, lora_alpha=LORA_ALPHA, target_modules="all-linear")
    model = get_peft_model(base, settings)
    head = torch.nn.Linear(base.config.hidden_size, 1)
    model.add_adapter("value", settings)
    trained = [parameter for name, parameter in model.named_parameters() if "lora_" in name]
    for parameter in trained:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW([*trained, *head.parameters()], lr=LEARNING_RATE, fused=True)
    rows, num = rows_of(work), work.max_new_tokens

    def logprobs(ids: torch.Tensor) -> torch.Tensor:
        logits = model(input_ids=ids, logits_to_keep=num + 1).logits[:, :-1]
        return torch.log_softmax(logits.float(), dim=-1).gather(-1, ids[:, -num:, None])

    def values(ids: torch.Tensor) -> torch.Tensor:
        states: torch.Tensor = model.get_base_model().model(input_ids=ids).last_hidden_state
        return head(states[:, -num:].float())

    def part() -> None:
        batches = rows.split(work.micro_batch_size)
        with torch.no_grad():
            for ids in batches:
                with model.disable_adapter():
                    logprobs(ids)
                model.base_model.set_adapter("value")
                values(ids)
        for name, loss in (("default", logprobs), ("value", values)):
            model.base_model.set_adapter(name)
            for ids in batches:
                (loss(ids).mean() * len(ids) / len(rows)).backward()
        # A switched-off adapter has no gradient in PEFT; the state of both is what memory is asked about.
        for parameter in trained:
            parameter.requires_grad_(True)
        optimizer.step()
        optimizer.zero_grad()

    learn_seconds = seconds_of(part)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    return {"learn": learn_seconds, "memory": grown, "base": base_bytes, "loaded": before}


if __name__ == "__main__":
    torch.set_num_threads(os.cpu_count() or 1)
    measured = {"sample": sample, "learn": learn, "score": score}[sys.argv[1]](Workload.read(Path(sys.argv[2])))
    Path(sys.argv[3]).write_text(json.dumps(measured), encoding="utf-8")
