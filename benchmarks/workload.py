"""What both sides are given (Workload): the same models, data, batch, lengths, optimizer steps and precision."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Self

Method = Literal["rloo", "grpo", "ppo", "dpo", "sft", "reward"]
Precision = Literal["float32", "bfloat16"]

ONLINE: tuple[Method, ...] = ("rloo", "grpo", "ppo")
KL_COEFFICIENT = {"rloo": 0.05, "grpo": 0.04, "ppo": 0.05}
"""Above 0, so that both sides compute the reference's log-probs."""

LEARNING_RATE = 1e-5
LORA_RANK, LORA_ALPHA = 8, 16
PREFERENCE_BETA = 0.1


@dataclass(frozen=True)
class Workload:
    """Work that is measured.

    Attributes:
        method: what is trained. A reward model is trained whole, a policy by LoRA on all linear layers.
        policy: folder of the base model; of a reward model's work, of the encoder.
        data: file of JSON lines: prompts, pairs or demonstrations. As many records as the steps take.
        precision: bfloat16 in the form that each side is fastest in.
        num_steps: optimizer steps. Of a method that samples, the first is a warm-up.
        batch_size: responses, pairs or demonstrations in one optimizer step.
        micro_batch_size: of them, what one forward has at most, where a side does not choose for itself.
        max_tokens: of prompt and response together; longer records were left out.
        samples_per_prompt, max_new_tokens, reward_model: of a method that samples.
    """

    method: Method
    policy: str
    data: str
    precision: Precision
    num_steps: int
    batch_size: int
    micro_batch_size: int
    max_tokens: int
    samples_per_prompt: int = 1
    max_new_tokens: int = 0
    reward_model: str = ""

    @property
    def is_online(self) -> bool:
        return self.method in ONLINE

    @property
    def prompts_per_step(self) -> int:
        return self.batch_size // self.samples_per_prompt

    @property
    def num_records(self) -> int:
        """Lines that `data` has."""
        return self.num_steps * self.prompts_per_step

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Self:
        return cls(**json.loads(path.read_text(encoding="utf-8")))
