"""The answers as a small YAML file with a comment where one helps (`yaml_text`)."""

import json
from collections.abc import Mapping

from plumbob.console.first_settings.first_answers import COLUMN, MEANINGS, Answers

ONLINE = ("ppo", "rloo", "grpo")
KINDS: Mapping[str, str] = {
    "ipo": "dpo",
    "simpo": "dpo",
    "orpo": "dpo",
    "ppo": "online",
    "rloo": "online",
    "grpo": "online",
}
"""Method -> the kind of run, where it is called otherwise."""

ROWS: Mapping[str, str] = {
    "pairs": "rows of prompt, chosen and rejected",
    "demonstrations": "rows of prompt and completion, or messages",
    "prompts": "rows of prompt",
    "labelled": "rows of prompt, completion and label (true: good)",
    "text": "rows of text, or plain text with empty lines between documents",
}

LOSSES: Mapping[str, str] = {
    "dpo": "beta: 0.1            # how strongly the policy is held to the reference",
    "ipo": "tau: 0.1             # how strongly the policy is held to the reference",
    "simpo": "beta: 2.0            # scale of the reward",
    "orpo": "weight: 0.1          # of the odds, beside a likelihood of weight 1",
}

ESTIMATORS: Mapping[str, str] = {
    "ppo": """\
  kl:
    kind: adaptive       # the coefficient follows the target
    coefficient: 0.05
    target: 4.0          # nats a response from the reference""",
    "rloo": """\
  estimator:
    kind: rloo
  kl:
    kind: fixed
    coefficient: 0.05    # how strongly the policy is held to the reference""",
    "grpo": """\
  estimator:
    kind: grpo
  loss_mean: response
  kl:
    kind: fixed
    place: loss
    estimate: k3
    coefficient: 0.04    # how strongly the policy is held to the reference""",
}

SMALL_LLAMA = """\
  model:                 # a new one; a folder or a hub name continues from that model instead
    vocab_size: 8192
    hidden_size: 384
    num_layers: 6
    num_heads: 6
    intermediate_size: 1024
    max_positions: 512"""


def yaml_text(answers: Answers, file_name: str) -> str:
    """The file's text; `file_name` is what it will be called, for the commands that it shows. Checks the answers."""
    answers.check()
    kind = KINDS.get(answers.method, answers.method)
    online = answers.method in ONLINE
    sections = [
        f"# Made by `plumbob init`: {answers.method} ({MEANINGS[answers.method]}).",
        f"#   plumbob plan {file_name}   what it needs, and one row as the model sees it",
        f"#   plumbob run {file_name}    any setting can stand behind it, such as seed=1",
        f"# `plumbob config --kind {kind}` lists all settings with their meanings.",
        f"kind: {kind}",
        f"data:\n  {answers.have}: {_quoted(answers.file)}   # {ROWS[answers.have]}",
        *([] if answers.method == "reward" else [_policy(answers)]),
        *([_reward(answers)] if online or answers.method == "reward" else []),
        *([_rollout(answers)] if online else []),
        _learner(answers),
        _training(answers),
    ]
    return "\n".join(sections) + "\n"


def _policy(answers: Answers) -> str:
    if answers.method == "pretrain":
        return "policy:\n" + (f"  model: {_quoted(answers.model)}" if answers.model else SMALL_LLAMA)
    also = "" if answers.method in ("sft", "simpo", "orpo") else "; it is the reference too"
    return f"""\
policy:
  model: {_quoted(answers.model)}   # a full model or a PEFT adapter{also}
  tuning:
    kind: lora           # full trains all weights, with a learning rate 10 to 100 times smaller
    rank: 16
    alpha: 32"""


def _reward(answers: Answers) -> str:
    if answers.method == "reward":
        return f"""\
reward:
  model: {_quoted(answers.model)}   # a BERT, which becomes the reward model
  max_tokens: 256        # of prompt and response together"""
    gpu = "\n  num_gpus: 0.1" if answers.machine == "gpu" else ""
    if answers.reward.startswith(COLUMN):
        part = "- kind: numeric      # 1 where a response's last number is that of the row's column, else 0\n"
        part += f"      column: {_quoted(answers.reward.removeprefix(COLUMN))}"
    elif ".py:" in answers.reward:
        part = "- kind: function     # score(prompt, response, row), or without the row, gives a number\n"
        part += f"      function: {_quoted(answers.reward)}"
    else:
        return f"reward:\n  model: {_quoted(answers.reward)}   # what `plumbob run reward` made, or any like it{gpu}"
    return f"reward:{gpu}\n  parts:                 # others can stand beside it, each with its weight\n    {part}"


def _rollout(answers: Answers) -> str:
    gpu = answers.machine == "gpu"
    if answers.engine == "transformers":
        engine = "    kind: transformers   # slow; vLLM is not installed here"
    elif gpu:
        engine = "    kind: vllm\n    gpu_memory_fraction: 0.4   # the rest is the learner's and the reward's"
    else:
        engine = "    kind: vllm\n    kv_cache_gib: 1.0"
    tokens = 64 if answers.time == "try" else 128
    return f"""\
rollout:
  engine:
{engine}
  max_tokens: {tokens:<10} # of a response; what is longer is cut there{_num_gpus(0.5) if gpu else ""}"""


def _learner(answers: Answers) -> str:
    share = 0.4 if answers.method in ONLINE else 1
    autocast = "" if answers.method in ONLINE else "\n  autocast: true         # bfloat16 in the matrix products"
    return f"""\
learner:
  micro_batch_size: 8    # sequences at once: memory and speed, never the result{autocast}\
{_num_gpus(share) if answers.machine == "gpu" else ""}"""


def _training(answers: Answers) -> str:
    is_try = answers.time == "try"
    if answers.method in ONLINE:
        return _online(answers.method, is_try)
    batch = 8 if is_try else 16 if answers.method == "reward" else 32
    match answers.method:
        case "pretrain":
            name, rate, more = "pretrain", "1.0e-3", "\n  block_tokens: 256      # of one sequence"
        case "sft":
            name, rate, more = "sft", "2.0e-4", ""
        case "reward":
            name, rate, more = "reward_training", "5.0e-5", ""
        case "kto":
            name, rate, more = (
                "kto",
                "1.0e-4",
                "\n  beta: 0.1              # how strongly the policy is held to the reference",
            )
        case loss:
            name, rate, more = "dpo", "1.0e-4", f"\n  loss:\n    kind: {loss}\n    {LOSSES[loss]}"
    return f"""\
{name}:
  learning_rate: {rate}
  num_epochs: 1
  batch_size: {batch:<10} # records in one optimizer step{more}"""


def _online(method: str, is_try: bool) -> str:
    samples = {"ppo": 1, "rloo": 4, "grpo": 4 if is_try else 16}[method]
    prompts = 8 if is_try or method == "grpo" else 64 if method == "ppo" else 16
    return f"""\
online:
  learning_rate: 1.0e-4
  num_steps: {5 if is_try else 100:<11} # each samples, scores, learns and publishes a new policy
  prompts_per_step: {prompts}
  samples_per_prompt: {samples}
  minibatch_size: {prompts * samples // 2:<6} # responses in one update: two of them a step
{ESTIMATORS[method]}"""


def _num_gpus(share: float) -> str:
    return f"\n  num_gpus: {share}"


def _quoted(text: str) -> str:
    """As YAML has it, which reads JSON's texts."""
    return json.dumps(text, ensure_ascii=False)
