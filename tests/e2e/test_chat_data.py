"""Learning from conversations by all their turns; and from a mixture of files, by each kind of run, also resumed."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from plumbob.configs.settings.offline_objectives import SimpoLoss
from plumbob.console.cli import main
from plumbob.models.adapter import WEIGHTS_FILE
from tests.support.chat_rows import dialogue
from tests.support.plain_transformers import load_plain, plain_logprobs
from tests.support.small_run import WORKERS, Left, Stages, settings
from tests.support.tiny_policy import write_policy

TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}:\n{{ message['content'] }}"
    "{{ eos_token if message['role'] == 'assistant' else '' }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:\n{% endif %}"
)
BOUND_S = 240
KEYS = {
    "sft": ("prompt", "completion"),
    "dpo": ("prompt", "chosen", "rejected"),
    "kto": ("prompt", "completion", "label"),
    "rloo": ("prompt",),
}
"""Kind of run -> what a row of its data has."""
NAMED = ("prompt", "response")
"""What parts of a row are called."""


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny model with a chat template."""
    folder = write_policy(tmp_path_factory.mktemp("chat-policy"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def test_a_plan_marks_every_turn_that_is_learnt(
    policy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chats = write(tmp_path / "chats.jsonl", [dialogue("Hi", "a car", "Who?", "the engine")])
    given = {"policy.model": policy, "data.demonstrations": chats, "storage.path": tmp_path, "sft.batch_size": 1}
    overrides = settings(given, {"data.learnt_turns": "all", "data.heldout_fraction": 0})
    assert main(["plan", "sft", *overrides]) == 0
    shown = [line.split(None, 1) for line in capsys.readouterr().out.splitlines()]
    rows = [rest.partition(")  ") for kind, rest in filter(lambda line: len(line) == 2, shown) if kind in NAMED]
    assert [("learnt" in title, text.lstrip(" ")) for title, _, text in rows] == [
        (False, r"user:\nHi\nassistant:\n"),
        (True, "a car<eos>"),
        (False, r"\nuser:\nWho?\nassistant:\n"),
        (True, "the engine<eos>"),
    ]


def test_every_turn_is_learnt_behind_its_own_prompt(stage: Stages, policy: str, tmp_path: Path) -> None:
    rows = [dialogue("Hi", "a car", "Who?", "the engine"), dialogue("red?", "four")]
    left = stage(
        "sft-turns",
        "sft",
        {"policy.model": policy, "data.demonstrations": write(tmp_path / "chats.jsonl", rows)},
        {"data.learnt_turns": "all", "data.heldout_fraction": 0, "sft.batch_size": 2},
    )
    # By hand, each turn by itself.
    first = "user:\nHi\nassistant:\n"
    turns = [
        (first, "a car<eos>"),
        (f"{first}a car<eos>\nuser:\nWho?\nassistant:\n", "the engine<eos>"),
        ("user:\nred?\nassistant:\n", "four<eos>"),
    ]
    tokenizer, model = AutoTokenizer.from_pretrained(policy), load_plain(policy)
    logprobs = [
        plain_logprobs(model, *(tokenizer(text, add_special_tokens=False)["input_ids"] for text in turn), 1.0)
        for turn in turns
    ]
    (line,) = left.metrics
    assert line["metrics"]["loss"] == pytest.approx(-np.concatenate(logprobs).mean(), abs=1e-4)
    # Two rows: the three turns are two sequences.
    assert left.summary["stages"]["sft"]["num_records"] == 2


def test_pairs_that_part_early_are_compared_by_all_their_turns(stage: Stages, policy: str, tmp_path: Path) -> None:
    contents = {
        "chosen": ("Hi", "a car", "Who?", "the engine"),
        "rejected": ("Hi", "red", "What?", "a door", "No?", "four"),
    }
    row = {name: dialogue(*texts)["messages"] for name, texts in contents.items()}
    left = stage(
        "dpo-turns",
        "dpo",
        {"policy.model": policy, "data.pairs": write(tmp_path / "pairs.jsonl", [row])},
        {"data.heldout_fraction": 0, "dpo.batch_size": 1, "dpo.loss.kind": "simpo"},
    )
    # By hand: the mean over the tokens of each side's turns, each behind all that stands before it.
    tokenizer, model = AutoTokenizer.from_pretrained(policy), load_plain(policy)
    rewards = []
    for texts in contents.values():
        before, logprobs = "", []
        for asked, answer in zip(texts[::2], texts[1::2], strict=True):
            before += f"user:\n{asked}\nassistant:\n"
            ids = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (before, f"{answer}<eos>"))
            logprobs.append(plain_logprobs(model, *ids, 1.0))
            before += f"{answer}<eos>\n"
        rewards.append(np.concatenate(logprobs).mean())
    loss = SimpoLoss()
    margin = loss.beta * (rewards[0] - rewards[1]) - loss.margin
    (line,) = left.metrics
    assert line["metrics"]["loss"] == pytest.approx(np.log1p(np.exp(-margin)), abs=1e-4)


ONLINE: dict[str, object] = {
    **{"reward.parts": "[{kind: length, unit: characters, max: 12}]", "reward.num_cpus": 0.25},
    **{"rollout.engine.kind": "transformers", "rollout.num_cpus": 0.25, "rollout.max_tokens": 6},
    **{"online.num_steps": 4, "online.prompts_per_step": 5, "online.samples_per_prompt": 4},
    **{"online.minibatch_size": 20, "online.learning_rate": 1e-2},
}
"""4 steps of 5 prompts: two epochs of the mixture."""


def of_epochs(section: str) -> dict[str, object]:
    values = {"batch_size": 4, "num_epochs": 2, "save_every": 2, "learning_rate": 1e-2}
    return {f"{section}.{name}": value for name, value in values.items()}


@pytest.mark.parametrize(
    ("kind", "given"),
    [("sft", of_epochs("sft")), ("dpo", of_epochs("dpo")), ("kto", of_epochs("kto")), ("rloo", ONLINE)],
    ids=["sft", "dpo", "kto", "rloo"],
)
def test_a_mixture_that_was_killed_ends_with_the_same_bytes(
    stage: Stages, policy: str, tmp_path: Path, kind: str, given: dict[str, object]
) -> None:
    def records(name: str, number: int) -> Path:
        rows: list[dict[str, Any]] = [
            {
                **{"prompt": f"{name} {place}?", "label": place % 2 == 0},
                **dict.fromkeys(("completion", "chosen"), " a red car"[: 3 + place]),
                "rejected": " four",
            }
            for place in range(number)
        ]
        return write(tmp_path / f"{name}.jsonl", [{key: row[key] for key in KEYS[kind]} for row in rows])

    large, small = records("large", 8), records("small", 2)
    mixed: dict[str, object] = {
        "policy.model": policy,
        "data.mixture": f"{{{large}: 1, {small}: 1}}",
        "data.heldout_fraction": 0,
    }
    whole = stage(f"{kind}-mixed", kind, mixed, given)
    notes = whole.summary["stages"][kind]["notes"]
    assert f"5 of the 10 records of an epoch (50.0%) are of {small}: each of its 2 is used 2.5 times." in "".join(notes)
    if kind == "rloo":
        # Each epoch's 10 places are 2 steps of 5 prompts, of 4 responses each.
        asked = [(step, row.prompt.split()[0]) for step, row in whole.journal]
        assert [sum(name == "small" and step in epoch for step, name in asked) for epoch in ((1, 2), (3, 4))] == [
            20,
            20,
        ]
    overrides = settings(stage.cluster, WORKERS, {"name": f"{kind}-mixed-killed"}, mixed, given)
    command = [sys.executable, "-m", "tests.support.die_at_step", "3", kind, *overrides]
    killed = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=BOUND_S, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stdout.decode()
    folder = stage.storage / f"{kind}-mixed-killed"
    resumed = stage.resume(Left(folder))
    assert resumed.untimed == whole.untimed
    first, second = ((Path(left.policy) / WEIGHTS_FILE).read_bytes() for left in (whole, resumed))
    assert first == second
