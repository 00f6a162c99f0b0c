"""`plumbob serve` as a process of its own: vLLM's server with a base and two adapters, asked over HTTP."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from transformers import AutoTokenizer

from plumbob.data.texts.chat_text import PLAIN_CHAT_TEMPLATE
from tests.support.libraries import write_adapter
from tests.support.plain_transformers import load_plain, plain_greedy
from tests.support.tiny_policy import EOS, write_policy

PLUMBOB = [sys.executable, "-m", "plumbob.console.cli"]
TOKEN = {"Authorization": "Bearer open sesame"}


@dataclass(frozen=True)
class RunningServer:
    """`models`: name -> folder; `url` ends in /v1."""

    process: subprocess.Popen[str]
    url: str
    models: dict[str, str]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("models")
    base = write_policy(folder / "base")
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = PLAIN_CHAT_TEMPLATE
    tokenizer.save_pretrained(base)
    models = {"base": base}
    for seed, name in enumerate(("tuned", "other")):
        models[name] = str(write_adapter(folder / name, base, seed))
    command = [*PLUMBOB, "serve", models["tuned"], f"--also=other={models['other']}", "--port=0"]
    command += ["--token-env=SERVED_TOKEN", "--kv-cache-gib=0.25"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "SERVED_TOKEN": "open sesame"}
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("base, tuned, other: served at http://127.0.0.1:"), line
        yield RunningServer(process, line.split()[5], models)
    finally:
        process.kill()
        process.wait(60)


def test_it_names_its_models_to_those_who_bear_the_token(server: RunningServer) -> None:
    found = httpx.get(f"{server.url}/models", headers=TOKEN).json()
    assert {model["id"] for model in found["data"]} == {"base", "tuned", "other"}
    for headers in ({}, {"Authorization": "Bearer guess"}):
        assert httpx.get(f"{server.url}/models", headers=headers).status_code == 401


def test_each_name_answers_as_its_own_policy(server: RunningServer) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(server.models["base"])
    ids = tokenizer("\n\nHuman: the car\n\nAssistant:", add_special_tokens=False)["input_ids"]
    texts = {}
    for name, folder in server.models.items():
        asked = {"model": name, "temperature": 0, "max_tokens": 8}
        chat = {**asked, "messages": [{"role": "user", "content": "the car"}]}
        found = httpx.post(f"{server.url}/chat/completions", json=chat, headers=TOKEN, timeout=120).json()
        # A last letter that is not whole is held back by vLLM, and shown as what it is not by the tokenizer.
        texts[name] = found["choices"][0]["message"]["content"].rstrip("\ufffd")
        expected = tokenizer.decode(plain_greedy(load_plain(folder), ids, 8, EOS), skip_special_tokens=True).rstrip(
            "\ufffd"
        )
        assert texts[name] == expected, name
        told = httpx.post(f"{server.url}/completions", json={**asked, "prompt": ids}, headers=TOKEN, timeout=120).json()
        assert told["choices"][0]["text"].rstrip("\ufffd") == expected, name
    assert len(set(texts.values())) == 3


def test_its_end_is_that_of_all_it_has_started(server: RunningServer) -> None:
    """Also when it is killed; the last test, since the server is gone then."""
    children = psutil.Process(server.process.pid).children(recursive=True)
    folders = [Path(word) for child in children for word in child.cmdline() if "plumbob-serve-" in word]
    assert children
    server.process.send_signal(signal.SIGKILL)
    server.process.wait(10)
    _, alive = psutil.wait_procs(children, timeout=30)
    assert alive == [] and not any(folder.exists() for folder in folders)
