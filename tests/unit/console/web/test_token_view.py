"""One response token by token."""

import json
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.decoders import Metaspace
from tokenizers.models import WordLevel

from plumbob.console.web.journal_views.token_texts import texts_of
from plumbob.console.web.journal_views.token_view import derived, waterfall
from plumbob.rollout.journal import JOURNAL_FOLDER, write_step
from plumbob.rollout.shaping_record import ShapingRecord, ShapingStep
from tests.support.finished_run import finished_run, journal_rows
from tests.support.served_runs import asked, served

RUN = "/api/runs/nested~ppo"


def test_an_episode_with_its_turns_and_numbers(client: httpx.Client) -> None:
    row = asked(client, f"{RUN}/rollouts/9/row/0")
    assert row["prompt_row"] == {"answer": "42"} and row["failures"] == {"length": "too late"}
    assert (row["length"], row["version_min"], row["version_max"], row["seed"]) == (5, 3, 4, 5)
    assert row["rewards"] == {"environment": 1.0, "length": -0.25} and row["score"] == 0.75
    tokens = row["tokens"]
    assert tokens["id"] == [11, 12, 13, 14, 15] and tokens["version"] == [3, 3, -1, -1, 4]
    assert tokens["mask"] == [True, True, False, False, True]
    assert tokens["logprob"] == [-1, -2, 0, 0, -3]
    assert tokens["kl"] == [0.5, 0.5, 0, 0, 0.5]
    assert tokens["value"] is None and tokens["td_error"] is None and tokens["sampler_gap"] is None
    assert tokens["text"] == ["[11]", "[12]", "[13]", "[14]", "[15]"]  # The run left no tokenizer.
    assert row["episode"] == {
        "turns": [
            {"role": "assistant", "content": "6 * 7", "start": 0, "end": 2, "reward": 0},
            {"role": "tool", "content": "42", "start": 2, "end": 4, "reward": None},
            {"role": "assistant", "content": "42", "start": 4, "end": 5, "reward": 1},
        ],
        "failure": None,
    }
    assert row["previous"] is None and row["next"] is None and row["group"] == {"index": 0, "size": 1, "rows": [0]}


def test_the_neighbours_of_a_response(client: httpx.Client) -> None:
    """Rows 4 to 7 are the second of eight groups."""
    row = asked(client, f"{RUN}/rollouts/30/row/5")
    assert row["previous"] == {"step": 30, "row": 4} and row["next"] == {"step": 30, "row": 6}
    assert row["group"] == {"index": 1, "size": 4, "rows": [4, 5, 6, 7]}
    assert row["group_previous"] == {"step": 30, "row": 0} and row["group_next"] == {"step": 30, "row": 8}
    last = asked(client, f"{RUN}/rollouts/30/row/31")
    assert last["next"] is None and last["group_next"] is None and last["group_previous"] == {"step": 30, "row": 24}


def test_numbers_that_follow_from_others() -> None:
    """delta = r + gamma V' - V over the first and third token: 0 + 0.5 x 4 - 2 = 0, and 3 - 4 = -1."""
    nothing = dict.fromkeys(("learner_logprob", "logprob", "ref_logprob", "value", "reward"))
    mask = np.asarray([True, False, True])
    numbers = {
        "learner_logprob": np.asarray([-1.0, 9.0, -2.0]),
        "logprob": np.asarray([-1.25, 0.0, -1.0]),
        "ref_logprob": np.asarray([-1.5, 0.0, -4.0]),
        "value": np.asarray([2.0, 7.0, 4.0]),
        "reward": np.asarray([0.0, 7.0, 3.0]),
    }
    found = derived(numbers, mask, 0.5)
    assert found["kl"].tolist() == [0.5, 0, 2] and found["sampler_gap"].tolist() == [0.25, 0, 1]
    assert found["td_error"].tolist() == [0, 0, -1]
    assert derived(numbers, mask, None)["td_error"] is None
    assert derived(nothing, mask, 1.0) == {"kl": None, "sampler_gap": None, "td_error": None}
    # Without the learner's own log-probs the sampler's stand for the policy's.
    assert derived(numbers | {"learner_logprob": None}, mask, 1.0)["kl"].tolist() == [0.25, 0, 3]


def test_a_waterfall_adds_amounts_to_levels() -> None:
    steps = [
        {"name": "rule", "kind": "part", "value": 4.0, "weight": 2.0},
        {"name": "judge", "kind": "part", "value": 2.0, "weight": 1.0},
        {"name": "scale", "kind": "scale", "value": 6.0},
        {"name": "clip", "kind": "clip", "value": -7.0},
        {"name": "no end", "kind": "penalty", "value": -1.0},
        {"name": "kl", "kind": "kl", "value": -0.5},
    ]
    found = waterfall(json.dumps({"steps": steps, "total": 6.0, "return": 3.5}))
    assert found is not None
    assert [(bar["name"], bar["kind"], bar["value"]) for bar in found] == [
        *(("rule", "part", 4), ("judge", "part", 2), ("total", "total", 6), ("scale", "scale", 12)),
        *(("clip", "clip", 5), ("no end", "penalty", -1), ("kl", "kl", -0.5), ("return", "return", 3.5)),
    ]


def test_a_shut_gate_takes_the_parts_off_again() -> None:
    steps = [{"name": "rule", "kind": "part", "value": 2.0}, {"name": "safe", "kind": "gate", "value": -2.0}]
    found = waterfall(json.dumps({"steps": steps, "total": 0.0, "return": 0.0}))
    assert found is not None
    assert [(bar["name"], bar["value"]) for bar in found] == [
        ("rule", 2),
        ("gate: safe", -2),
        ("total", 0),
        ("return", 0),
    ]


def test_what_a_teacher_gives_is_no_part_of_a_total() -> None:
    steps = [{"name": "teacher", "kind": "teacher", "value": -0.75}]
    found = waterfall(json.dumps({"steps": steps, "total": 0.0, "return": -0.75}))
    assert found is not None
    assert [(bar["name"], bar["value"]) for bar in found] == [("teacher", -0.75), ("return", -0.75)]


@pytest.mark.parametrize("damaged", ["", "null", "[]", "{", "[" * 100_000, '"a"'])
def test_what_is_no_record_of_the_shaping_draws_nothing(damaged: str) -> None:
    assert waterfall(damaged) is None


def test_tokens_keep_the_space_before_them() -> None:
    """This kind of tokenizer leaves the space out at the beginning of what it decodes."""
    tokenizer = Tokenizer(WordLevel({"▁the": 0, "▁end": 1, "s": 2}, unk_token="s"))
    tokenizer.decoder = Metaspace()
    assert texts_of(tokenizer, [0, 1, 2, 7]) == ["the", " end", "s", "[7]"]
    assert texts_of(tokenizer, []) == []


def test_all_that_a_journal_can_have_of_a_token(tmp_path: Path) -> None:
    """Of two tokens: delta = 0 + 0.5 x 4 - 2 = 0, and 3 - 4 = -1; the sampler was a quarter off at the first."""
    run = finished_run(tmp_path / "run", "ppo", {})
    estimator = {"kind": "gae", "gamma": 0.5}
    (run / "resolved.json").write_text(json.dumps({"config": {"kind": "online", "online": {"estimator": estimator}}}))
    steps = (ShapingStep("raw", "part", 4.0), ShapingStep("no end", "penalty", -1.0))
    numbers = {
        "logprobs": (-1.25, -1.0),
        "learner_logprobs": (-1.0, -1.0),
        "ref_logprobs": (-1.5, -1.0),
        "values": (2.0, 4.0),
        "token_rewards": (0.0, 3.0),
        "advantages": (0.5, -0.5),
        "entropies": (0.25, 2.0),
        "ratios": (1.0, 1.5),
    }
    (row,) = journal_rows(2, num_prompts=1, per_prompt=1)
    row = replace(
        row,
        token_ids=np.asarray([5, 6], np.int32),
        versions=np.zeros(2, np.int32),
        action_mask=np.ones(2, np.bool_),
        clipped=np.asarray([False, True]),
        shaping=ShapingRecord(steps, 4.0, 3.0),
        **{name: np.asarray(values, np.float32) for name, values in numbers.items()},
    )
    write_step(run / JOURNAL_FOLDER, 2, [row])
    with served(tmp_path) as client:
        found = asked(client, "/api/runs/run/rollouts/2/row/0")
    tokens = found["tokens"]
    assert tokens["td_error"] == [0, -1] and tokens["value"] == [2, 4] and tokens["reward"] == [0, 3]
    assert tokens["sampler_gap"] == [0.25, 0] and tokens["kl"] == [0.5, 0] and tokens["learner_logprob"] == [-1, -1]
    assert tokens["advantage"] == [0.5, -0.5] and tokens["entropy"] == [0.25, 2]
    assert tokens["ratio"] == [1, 1.5] and tokens["clipped"] == [False, True]
    assert [(bar["name"], bar["kind"], bar["value"]) for bar in found["waterfall"]] == [
        *(("raw", "part", 4), ("total", "total", 4), ("no end", "penalty", -1), ("return", "return", 3)),
    ]
