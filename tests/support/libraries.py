"""A library's parts: tiny bases, adapters on them, and the folder of a run that made one, without training anything."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from plumbob.configs.load_run import load_run
from plumbob.configs.paths import named_inputs, with_absolute_paths
from plumbob.configs.resolved_copy import write_resolved
from plumbob.driver.run_folder.inputs import new_digests, write_digests
from plumbob.models.adapter import save_adapter
from tests.support.tiny_policy import make_adapter

SUMMARY = {
    "num_records": 9,
    "heldout_loss": 1.25,
    "heldout_accuracy": 0.75,
    "notes": ["n"],
    "seconds": 9.0,
    "peak_memory_gib": 1.0,
}


def write_adapter(folder: Path, base: str, seed: int = 1, rank: int = 4, version: int = 0) -> Path:
    """B A random on all linear layers, as PEFT writes it."""
    save_adapter(make_adapter(base, version, seed, rank), folder)
    return folder


def write_other_base(base: str, folder: Path) -> Path:
    """The same architecture with one weight changed, and the same tokenizer."""
    model = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 5] += 0.5
    model.save_pretrained(folder)
    for path in Path(base).glob("tokenizer*"):
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def write_sft_run(folder: Path, base: str, overrides: Mapping[str, object] | None = None) -> Path:
    """What a finished run of `sft` leaves that says how its adapter was made; of `seconds` no score is made."""
    rows = folder.parent / "rows.jsonl"
    rows.write_text(json.dumps({"prompt": "Q", "response": "A"}) + "\n")
    asked = {"policy.model": base, "data.demonstrations": rows, "storage.path": folder.parent, "name": folder.name}
    config = with_absolute_paths(load_run("sft", [f"{k}={v}" for k, v in {**asked, **(overrides or {})}.items()]))
    digests = new_digests(named_inputs(config), folder)
    write_resolved(config, folder)
    write_digests(digests, folder)
    summary: dict[str, Any] = {"name": folder.name, "kind": "sft", "stages": {"sft": SUMMARY}}
    (folder / "summary.json").write_text(json.dumps(summary))
    write_adapter(folder / "policy", base)
    return folder
