"""Responses on disk: some side by side for the report (`samples.jsonl`), and all with their scores as Parquet."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from plumbob.core.errors import UserError
from plumbob.core.outside import from_outside
from plumbob.driver.measures.policy_metrics import ComparedResponses, Responses

SETTING = "evaluation.responses_file"

RESPONSES_DIGEST = "responses_digest"
"""What the digest of its table is called in the result of an evaluation."""

_SCHEMA = pa.schema(
    [
        ("policy", pa.string()),
        ("prompt_id", pa.string()),
        ("sample_index", pa.int32()),
        ("seed", pa.int64()),
        ("prompt", pa.string()),
        ("response", pa.string()),
        ("score", pa.float64()),
        ("parts", pa.map_(pa.string(), pa.float64())),
        ("is_right", pa.bool_()),
        ("kl", pa.float64()),
        ("logprob", pa.float64()),
        ("num_tokens", pa.int32()),
        ("finish_reason", pa.string()),
    ]
)
"""`kl` is log pi - log pi_baseline of the whole response, null without a baseline; `logprob` is log pi, in nats."""


def check_writable_table(path: Path) -> None:
    """Raises UserError where a table could not be written there."""
    if not path.expanduser().absolute().parent.is_dir():
        raise UserError(f"{SETTING}={path}: there is no folder {path.parent}; make it, or give another file")
    if path.expanduser().is_dir():
        raise UserError(f"{SETTING}={path}: is a folder; give a file in it")


def digest_of_table(path: Path) -> str:
    """By which an evaluation's table is known again, wherever another may have taken its place."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_responses(path: Path, policies: Mapping[str, Responses], right_from: float) -> str:
    """A row a response; the table's digest. Raises UserError where it cannot be written."""
    rows = [row for name, policy in policies.items() for row in _rows(name, policy, right_from)]
    path = path.expanduser()
    partial = path.with_name(f".{path.name}.partial")
    with from_outside(f"{SETTING}={path}: cannot be written", "give a file that may be"):
        pq.write_table(pa.Table.from_pylist(rows, _SCHEMA), partial)
        digest = digest_of_table(partial)
        partial.replace(path)
    return digest


def _rows(name: str, policy: Responses, right_from: float) -> Iterator[dict[str, Any]]:
    kl = policy.kl.ravel().tolist() if isinstance(policy, ComparedResponses) else [None] * len(policy.rollouts)
    scores = policy.scores.ravel().tolist()
    for rollout, score, parts, own_kl in zip(policy.rollouts, scores, policy.parts, kl, strict=True):
        yield {
            "policy": name,
            "prompt_id": rollout.request.prompt_id,
            "sample_index": rollout.request.sample_index,
            "seed": rollout.request.seed,
            "prompt": rollout.request.prompt,
            "response": rollout.response,
            "score": score,
            "parts": list(parts.items()),
            "is_right": score >= right_from,
            "kl": own_kl,
            "logprob": float(rollout.logprobs[rollout.action_mask].sum()),
            "num_tokens": int(rollout.action_mask.sum()),
            "finish_reason": rollout.finish_reason,
        }


def write_samples(path: Path, measured: Mapping[str, Responses], num_shown: int) -> None:
    """`samples.jsonl`: the first prompts with every policy's response side by side."""
    first = next(iter(measured.values()))
    per_prompt = first.scores.shape[1]
    with path.open("w") as file:
        for prompt in range(min(num_shown, len(first.scores))):
            responses = {}
            for name, policy in measured.items():
                responses[name] = {
                    "text": policy.rollouts[prompt * per_prompt].response,
                    "reward": float(policy.scores[prompt, 0]),
                }
                if policy.gold is not None:
                    responses[name]["gold"] = float(policy.gold[prompt, 0])
            text = first.rollouts[prompt * per_prompt].request.prompt
            file.write(json.dumps({"prompt": text, "answers": responses}, ensure_ascii=False) + "\n")
