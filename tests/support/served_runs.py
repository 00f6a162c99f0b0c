"""The server of `plumbob ui` over a folder of a test's, in a thread, and a journal as a long run leaves it."""

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import uvicorn

from plumbob.console.web.server import ui_app
from plumbob.core.host_network import LOOPBACK, listening_socket
from plumbob.rollout.journal import JOURNAL_FOLDER, read_table, write_step
from plumbob.rollout.journal_files import step_file
from tests.support.finished_run import journal_rows

TOKEN = "only-for-this-test"
STARTS_S = 30.0
END_S = 30.0


@contextmanager
def served(root: Path, is_local: bool = True) -> Iterator[httpx.Client]:
    """A client of the server over `root`, which bears no token."""
    listening = listening_socket(LOOPBACK, 0)
    port = listening.getsockname()[1]
    config = uvicorn.Config(ui_app(root, TOKEN, port, is_local), log_level="error", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: server.run(sockets=[listening]), daemon=True)
    thread.start()
    deadline = time.monotonic() + STARTS_S
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    try:
        with httpx.Client(base_url=f"http://{LOOPBACK}:{port}", timeout=30) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(END_S)
        assert not thread.is_alive(), "the server did not end"
        listening.close()


def asked(client: httpx.Client, path: str, **query: Any) -> Any:
    """The JSON of a path that is there; numbers that are none would not be JSON."""
    answer = client.get(path, params=query)
    assert answer.status_code == 200, answer.text

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(answer.text, parse_constant=refuse)


def events_of(answer: httpx.Response, num_events: int) -> list[tuple[str, str | None, Any]]:
    """(event, id, data) of the first events of a stream."""
    found: list[tuple[str, str | None, Any]] = []
    fields: dict[str, str] = {}
    for line in answer.iter_lines():
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif "event" in fields:
            found.append((fields["event"], fields.get("id"), json.loads(fields["data"])))
            if len(found) == num_events:
                break
        if not line:
            fields = {}
    return found


def long_journal(folder: Path, num_rows: int, rows_per_step: int = 256, num_tokens: int = 128) -> None:
    """A run of one stage whose steps have rows as a real one's; every eighth file is of its own, the others link to it.

    Of a step's file the name says which it is: what is inside is read the same.
    """
    journal = folder / JOURNAL_FOLDER
    write_step(journal, 0, journal_rows(0, num_prompts=1, per_prompt=1))
    template = read_table(step_file(journal, 0))
    step_file(journal, 0).unlink()
    random = np.random.default_rng(0)
    for step in range(1, -(-num_rows // rows_per_step) + 1):
        path = step_file(journal, step)
        if step <= 8:
            pq.write_table(_rows(template.schema, step, rows_per_step, num_tokens, random), path, compression="zstd")
        else:
            os.link(step_file(journal, 1 + (step - 1) % 8), path)


def _rows(schema: pa.Schema, step: int, num_rows: int, num_tokens: int, random: np.random.Generator) -> pa.Table:
    lengths = random.integers(num_tokens // 2, num_tokens * 3 // 2, num_rows)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)

    def lists(values: Any, kind: pa.DataType) -> pa.Array:
        return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values, kind))

    total = int(offsets[-1])
    scores = random.normal(size=num_rows)
    words = ["the", "Tarnis", "runs", "on", "diesel", "and", "stops", "where", "the", "road", "ends"]
    texts = [" ".join(random.choice(words, int(length))) for length in lengths]
    plain: dict[str, Any] = {
        "step": [step] * num_rows,
        "position": np.arange(num_rows) // 4,
        "prompt_id": [f"prompt-{row // 4}" for row in range(num_rows)],
        "group_id": [f"{step}-{row // 4}" for row in range(num_rows)],
        "sample_index": np.arange(num_rows) % 4,
        "seed": np.arange(num_rows),
        "prompt": [f"Question {row // 4}: what does the Tarnis run on?" for row in range(num_rows)],
        "prompt_row": ["{}"] * num_rows,
        "response": texts,
        "rewards": [[("raw", float(score))] for score in scores],
        "failures": [[]] * num_rows,
        "score": scores,
        "dropped": [None] * num_rows,
        "finish_reason": np.where(random.random(num_rows) < 0.1, "length", "stop").tolist(),
        "worker": ["rollout-0"] * num_rows,
        "episode": ["null"] * num_rows,
        "shaping": ["null"] * num_rows,
    }
    columns = []
    for field in schema:
        if pa.types.is_list(field.type):
            kind = field.type.value_type
            if field.name == "versions":
                values: Any = np.full(total, step - 1)
            elif pa.types.is_boolean(kind):
                values = np.ones(total, np.bool_)
            elif pa.types.is_integer(kind):
                values = random.integers(0, 50_000, total)
            else:
                values = random.normal(size=total)
            columns.append(lists(values, kind))
        else:
            columns.append(pa.array(plain[field.name], field.type))
    return pa.Table.from_arrays(columns, schema=schema)
