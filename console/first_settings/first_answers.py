"""What `plumbob init` wants to know, and which answers go together (Answers)."""

from collections.abc import Mapping
from dataclasses import dataclass

from plumbob.core.errors import UserError

METHODS: Mapping[str, tuple[str, ...]] = {
    "pairs": ("dpo", "ipo", "simpo", "orpo", "reward"),
    "demonstrations": ("sft",),
    "prompts": ("ppo", "rloo", "grpo"),
    "labelled": ("kto",),
    "text": ("pretrain",),
}
"""What somebody has -> the methods that learn from it, the usual one first."""

HAVES: Mapping[str, str] = {
    "pairs": "prompts with a better and a worse response",
    "demonstrations": "prompts with the response to imitate",
    "prompts": "prompts alone, and a reward",
    "labelled": "responses that are each good or bad",
    "text": "raw text",
}

MEANINGS: Mapping[str, str] = {
    "dpo": "the policy learns the preferences directly",
    "ipo": "as dpo, with a bound on how far a pair pulls",
    "simpo": "as dpo, without a reference model",
    "orpo": "from any model: likelihood and preferences at once",
    "reward": "a BERT learns to score; ppo, rloo and grpo can use it",
    "sft": "supervised fine-tuning",
    "ppo": "with a critic",
    "rloo": "without a critic: several responses to a prompt are each other's baseline",
    "grpo": "as rloo, with the reward divided by the group's spread",
    "kto": "each response by itself",
    "pretrain": "next-token training of a small Llama from scratch, or of a model that is given",
}

TIMES: Mapping[str, str] = {"try": "minutes: does it work at all?", "full": "as long as the presets take"}
MACHINES: Mapping[str, str] = {"cpu": "this machine's cores", "gpu": "one GPU, which the roles share"}

COLUMN = "column:"
"""Before the name of the column that has the right answers, as a reward."""


@dataclass(frozen=True)
class Answers:
    """What was answered.

    Attributes:
        have, file: one of HAVES, and where it is.
        method: one of METHODS[have].
        model: a folder, hub name or adapter; empty where a new one is made.
        reward: of `prompts`: a reward model's folder, `file.py:function` or `column:NAME`; empty elsewhere.
        time: one of TIMES.
        machine: one of MACHINES.
        engine: what samples responses, "vllm" or "transformers".
    """

    have: str
    file: str
    method: str
    model: str
    reward: str
    time: str = "full"
    machine: str = "cpu"
    engine: str = "vllm"

    def check(self) -> None:
        """Raises UserError where answers do not go together, with the option that is to be changed."""
        if self.method not in METHODS[self.have]:
            choices = ", ".join(METHODS[self.have])
            raise UserError(f"--method={self.method}: does not learn from {self.have}; these do: {choices}")
        if not self.file:
            raise UserError(f"--file: say where the {self.have} are: a file, a folder or a pattern")
        if not self.model and self.method != "pretrain":
            what = "a BERT to begin from" if self.method == "reward" else "the model to train: a folder or hub name"
            raise UserError(f"--model: give {what}")
        if self.have == "prompts" and not self.reward:
            raise UserError(
                f"--reward: say what a response is worth: a reward model's folder, file.py:function, or {COLUMN}NAME "
                f"for the column that has the right number"
            )
        if self.have != "prompts" and self.reward:
            raise UserError(f"--reward={self.reward}: is for --have=prompts only; leave it out")
