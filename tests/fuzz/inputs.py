"""What is mutated, and what is asked of each mutation: whatever `plumbob plan` does before anything starts."""

import csv
import gzip
import io
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from plumbob.configs.load_run import PRESETS, load_run, preset_names
from plumbob.configs.settings.data import ReadingSettings
from plumbob.data.reading.readers import read_annotated_pairs, read_demonstrations, read_prompts, read_rankings
from plumbob.data.row_digest import digest_of_rows
from plumbob.data.texts.chat_text import chat_renderer
from tests.fuzz.mutations import mutated_bytes, mutated_json, mutated_yaml
from tests.support.opened_models import policy_ref

KINDS = ("config", "command", "data", "model")
SHARES = (8, 4, 7, 3)
"""Of a kind among the inputs: opening a model takes longest."""

SKIP = ReadingSettings(bad_rows="skip")
MESSAGES = [{"role": "user", "content": "Is it?"}, {"role": "assistant", "content": "Yes.", "tool_calls": None}]
TOOLS = [
    {
        "type": "function",
        "function": {"name": "f", "parameters": {"type": "object", "properties": {"x": {"type": "text"}}}},
    }
]
CALLING = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
ROWS = [
    {"prompt": "q", "chosen": "a", "rejected": "b", "margin": 1.5, "annotator": 3},
    {"prompt": "q?", "completion": " a", "label": True, "made": "2026-01-01"},
    {"messages": MESSAGES},
    {"prompt": "r", "answers": ["a", "b", "c"], "scores": [1, 3, 2]},
    {"conversations": [{"from": "human", "value": "Is it?"}, {"from": "gpt", "value": "Yes."}], "system": "Be."},
    {"instruction": "Add.", "input": "1 + 1", "output": "2"},
    {"messages": [MESSAGES[0], CALLING], "tools": TOOLS, "chat_template_kwargs": {"brief": True}},
    {"prompt": [{"role": "user", "content": [{"type": "text", "text": "q"}]}], "completion": MESSAGES[1:]},
]
FORMATS = ("jsonl", "json", "jsonl.gz", "csv", "parquet", "arrow", "stream.arrow", "txt")


def kind_of(seed: int) -> str:
    return random.Random(f"{seed} kind").choices(KINDS, SHARES)[0]


def make(seed: int, folder: Path, whole_model: Path) -> Path:
    """Write the input of a seed into an empty folder."""
    rng = random.Random(seed)
    match kind_of(seed):
        case "config":
            text = (PRESETS / f"{_preset(rng)}.yaml").read_text()
            (folder / "run.yaml").write_bytes(mutated_yaml(rng, text))
        case "command":
            (folder / "command.json").write_text(json.dumps(_command(rng)))
        case "data":
            _write_rows(rng, folder)
        case _:
            _write_model(rng, folder / "model", whole_model)
    return folder


def use(seed: int, folder: Path) -> None:
    """Do with it what is done before anything starts. Raises whatever that does; UserError refuses it."""
    match kind_of(seed):
        case "config":
            load_run(str(folder / "run.yaml"))
        case "command":
            config, *overrides = json.loads((folder / "command.json").read_text())
            load_run(config, overrides)
        case "data":
            _use_rows(next(folder.iterdir()))
        case _:
            _use_model(folder / "model")


def _preset(rng: random.Random) -> str:
    """The demo's mostly: the others lack a file or a model until one is given."""
    return "toy" if rng.random() < 0.8 else rng.choice(preset_names())


def _command(rng: random.Random) -> list[str]:
    keys = ("seed", "name", "storage.path", "online.num_steps", "policy.model", "data.toy.num_pairs", "kind", "cluster")
    overrides = []
    for _ in range(rng.randint(1, 4)):
        value = json.dumps(mutated_json(rng, rng.choice([1, "a", [1], {"kind": "lora"}, 0.5, None])))
        text = f"{rng.choice(keys)}={value}"
        if rng.random() < 0.6:
            text = mutated_bytes(rng, text.encode()).decode("utf-8", "surrogateescape")
        overrides.append(text)
    if rng.random() < 0.1:
        overrides = [f"online.num_steps={rng.randint(1, 9)}", f"name={rng.choice('abc')}"]
    config = _preset(rng)
    if rng.random() < 0.2:
        config = mutated_bytes(rng, config.encode()).decode("utf-8", "surrogateescape")
    return [config, *overrides]


def _write_rows(rng: random.Random, folder: Path) -> None:
    form = rng.choice(FORMATS)
    path = folder / f"rows.{form}"
    same = [rng.choice(ROWS)] * rng.randint(1, 4)
    if form in ("parquet", "arrow", "stream.arrow"):
        table = pa.Table.from_pylist(same)
        if form == "parquet":
            pq.write_table(table, path)
        else:
            opened = pa.ipc.new_file if form == "arrow" else pa.ipc.new_stream
            with pa.OSFile(str(path), "wb") as sink, opened(sink, table.schema) as out:
                out.write_table(table)
        path.write_bytes(mutated_bytes(rng, path.read_bytes()))
        return
    rows = [mutated_json(rng, row) if rng.random() < 0.7 else row for row in same]
    content = _as_csv(rows) if form == "csv" else _as_json(rows, in_lines=form != "json")
    if rng.random() < 0.5:
        content = mutated_bytes(rng, content)
    if form.endswith(".gz"):
        content = gzip.compress(content)
        content = mutated_bytes(rng, content) if rng.random() < 0.5 else content
    path.write_bytes(content)


def _as_json(rows: list[object], in_lines: bool) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows) if in_lines else json.dumps(rows).encode()


def _as_csv(rows: list[object]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text)
    for index, row in enumerate(row for row in rows if isinstance(row, dict)):
        writer.writerows([row.keys()] if index == 0 else [])
        writer.writerow([value if isinstance(value, str) else json.dumps(value) for value in row.values()])
    return text.getvalue().encode("utf-8", "surrogatepass")


def _use_rows(path: Path) -> None:
    def render(messages: list[dict[str, object]], **values: object) -> str:
        return "".join(f"{message}\n" for message in messages) + str(values)

    digest_of_rows(str(path))
    readers: list[Callable[[], object]] = [
        lambda: read_demonstrations(str(path), SKIP, render),
        lambda: read_prompts(str(path), SKIP, render),
        lambda: read_annotated_pairs(str(path), SKIP, render, use_margin=True),
        lambda: read_rankings(str(path), SKIP, render),
    ]
    refused: list[ValueError] = []
    for reader in readers:
        try:
            reader()
        except ValueError as error:
            if type(error).__name__ != "UserError":
                raise
            refused.append(error)
    if len(refused) == len(readers):
        raise refused[0]


def _write_model(rng: random.Random, folder: Path, whole: Path) -> None:
    shutil.copytree(whole, folder)
    for path in rng.sample(sorted(folder.iterdir()), rng.randint(1, 2)):
        content = path.read_bytes()
        if path.suffix == ".json" and rng.random() < 0.8:
            path.write_text(json.dumps(mutated_json(rng, json.loads(content))))
        elif rng.random() < 0.1:
            path.write_bytes(b"")
        else:
            path.write_bytes(mutated_bytes(rng, content))


def _use_model(folder: Path) -> None:
    from plumbob.models.loading import load_causal_lm, open_policy
    from plumbob.models.tuning.adapter_support import WHAT_PEFT_LOADS
    from plumbob.models.tuning.methods import check_served
    from plumbob.models.tuning.targets import check_targets

    opened = open_policy(policy_ref(str(folder)))
    tokenizer = opened.tokenizer
    _ = opened.num_positions
    check_served(opened, WHAT_PEFT_LOADS)
    check_targets(opened, ("q_proj",))
    if tokenizer.chat_template is not None:
        try:
            chat_renderer(tokenizer)([{"role": "user", "content": "Hi"}])
        except ValueError as error:
            if type(error).__name__ != "RowError":
                raise
    load_causal_lm(opened)
