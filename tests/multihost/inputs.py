"""Models and files so small that what takes time is the hosts' own."""

import json
from pathlib import Path

from tests.support.tiny_policy import write_policy
from tests.support.tiny_scorer import write_scorer

NUM_PROMPTS = 24


def write_inputs(folder: Path) -> dict[str, object]:
    """A policy, a reward model and prompts in a folder. Returns the settings of a PPO run on them, of two steps."""
    policy = write_policy(folder / "policy")
    reward = write_scorer(folder / "reward")
    prompts = folder / "prompts.jsonl"
    words = ("car", "door", "engine", "red")
    lines = [{"prompt": f"the {words[number % 4]} {number}"} for number in range(NUM_PROMPTS)]
    prompts.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return {
        **{"policy.model": policy, "policy.tuning.rank": 4},
        **{"reward.model": reward, "reward.normalize": "false", "reward.max_tokens": 32},
        **{"data.prompts": prompts, "data.max_prompt_tokens": 32, "data.heldout_fraction": 0},
        **{"rollout.engine.kind": "transformers", "rollout.max_tokens": 8},
        **{
            "online.num_steps": 2,
            "online.prompts_per_step": 8,
            "online.minibatch_size": 4,
            "online.learning_rate": 1e-3,
        },
    }
