"""The journal of a run: every response that was sampled to train on, token by token, in Parquet, step by step."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from plumbob.core.atomic_files import flush
from plumbob.core.errors import UserError
from plumbob.rollout.journal_files import files_of, step_file, step_files, step_writers
from plumbob.rollout.rollout_records import EpisodeRecord, EpisodeTurn, FinishReason
from plumbob.rollout.shaping_record import ShapingRecord

JOURNAL_FOLDER = "rollouts"
"""Below the stage's folder."""

DropReason = Literal["flat"]
"""Why a response was not trained on. "flat": the rewards of its group are all the same (dynamic sampling)."""

_SCHEMA = pa.schema(
    [
        ("step", pa.int32()),
        ("position", pa.int64()),
        ("prompt_id", pa.string()),
        ("group_id", pa.string()),
        ("sample_index", pa.int32()),
        ("seed", pa.int64()),
        ("prompt", pa.string()),
        ("prompt_row", pa.string()),
        ("response", pa.string()),
        ("prompt_ids", pa.list_(pa.int32())),
        ("token_ids", pa.list_(pa.int32())),
        ("logprobs", pa.list_(pa.float32())),
        ("ref_logprobs", pa.list_(pa.float32())),
        ("teacher_logprobs", pa.list_(pa.float32())),
        ("values", pa.list_(pa.float32())),
        ("rewards", pa.map_(pa.string(), pa.float64())),
        ("failures", pa.map_(pa.string(), pa.string())),
        ("score", pa.float64()),
        ("dropped", pa.string()),
        ("versions", pa.list_(pa.int32())),
        ("action_mask", pa.list_(pa.bool_())),
        ("finish_reason", pa.string()),
        ("worker", pa.string()),
        ("episode", pa.string()),
        ("learner_logprobs", pa.list_(pa.float32())),
        ("entropies", pa.list_(pa.float32())),
        ("advantages", pa.list_(pa.float32())),
        ("returns", pa.list_(pa.float32())),
        ("token_rewards", pa.list_(pa.float32())),
        ("ratios", pa.list_(pa.float32())),
        ("clipped", pa.list_(pa.bool_())),
        ("shaping", pa.string()),
    ]
)
_ADDED: Mapping[str, Any] = {
    **{"prompt_row": "{}", "failures": [], "teacher_logprobs": [], "episode": "null", "shaping": "null"},
    **{"learner_logprobs": [], "entropies": [], "advantages": [], "returns": [], "token_rewards": []},
    **{"ratios": [], "clipped": []},
}
"""Columns that journals of earlier versions lack -> what stands there for nothing."""
_ARRAYS: Mapping[str, Any] = {
    "prompt_ids": np.int32,
    "token_ids": np.int32,
    "logprobs": np.float32,
    "ref_logprobs": np.float32,
    "teacher_logprobs": np.float32,
    "values": np.float32,
    "versions": np.int32,
    "action_mask": np.bool_,
    "learner_logprobs": np.float32,
    "entropies": np.float32,
    "advantages": np.float32,
    "returns": np.float32,
    "token_rewards": np.float32,
    "ratios": np.float32,
    "clipped": np.bool_,
}
_OF_RESPONSE = tuple(name for name in _ARRAYS if name not in ("prompt_ids", "token_ids"))
_OF_EVERY_TOKEN = ("logprobs", "versions", "action_mask")
"""Of what has a number for each of the response's tokens, or none at all: those that are never left out."""


def _no_numbers() -> NDArray[np.float32]:
    return np.empty(0, np.float32)


@dataclass(frozen=True)
class JournalRow:
    """One response with what became of it.

    Attributes:
        position: how many prompts the run had asked for before this one; divided by their number, its epoch.
        prompt_id, group_id, sample_index, seed, prompt, prompt_ids: as in `SampleRequest`.
        response, token_ids, logprobs, versions, action_mask, finish_reason, worker: as in `Rollout`.
        ref_logprobs: float32 [T], of the reference policy; empty where the response was dropped.
        teacher_logprobs: float32 [T], of the response's teacher; empty when there is none.
        values: float32 [T], of the critic; empty when there is none.
        prompt_row: the row of the prompt's file, by its columns, as JSON on disk; empty where no reward reads it.
        rewards: part -> its reward.
        failures: part -> why it could not score the response.
        episode: what the policy's turns in it were, and an environment's answers; JSON on disk.
        learner_logprobs: float32 [T], by the learner's own forward before the update, whatever version sampled the
            token; of a step that took the sampler's, only the rows by which it was tried have them.
        entropies: float32 [T], in nats, of the learner's whole distribution at each token's place, at the sampling
            temperature, before the update: of a token of its own version that which it was drawn from. Of a step that
            took the sampler's log-probs, by the update's first forward over the row, which optimizer steps of the same
            epoch may have come before; empty there of what was not learnt from, and of objectives that weigh no single
            tokens.
        advantages: float32 [T], by the estimator, what a policy gradient's loss weighs each token with; of online DPO 1
            marks the best response of a group and -1 the worst, of best-of-n 1 the best, the one that is learnt from,
            and 0 the others. Empty of responses that `online.mask_truncated` leaves out, and of distillation in its
            `full` form.
        returns: float32 [T], what the critic learns to predict; empty where there is none, or nothing was learnt.
        token_rewards: float32 [T], what the estimator of advantages saw, whose sum is the response's return.
        ratios: float32 [T], pi / pi_old by the last epoch's forward over the row, what the surrogate was computed of;
            pi_old is the learner's before the update, or the sampler's where a step took its log-probs. Empty where
            none was.
        clipped: bool [T], whether that ratio was clipped; empty with `ratios`. Such a token has no gradient of the
            surrogate, but with CISPO, which holds its weight at the cap and learns from it. A token that
            `policy_loss.dual_clip` holds has none either, and is not counted.
        shaping: how its reward came about; JSON on disk, None where no token could earn any.
        score: the scorer's total, before shaping.
        dropped: why it was not trained on; None where it was. Of one that was dropped nothing was computed, and all
            from `learner_logprobs` to `shaping` is empty.
    """

    position: int
    prompt_id: str
    group_id: str
    sample_index: int
    seed: int
    prompt: str
    response: str
    prompt_ids: NDArray[np.int32]
    token_ids: NDArray[np.int32]
    logprobs: NDArray[np.float32]
    ref_logprobs: NDArray[np.float32]
    values: NDArray[np.float32]
    rewards: Mapping[str, float]
    score: float
    dropped: DropReason | None
    versions: NDArray[np.int32]
    action_mask: NDArray[np.bool_]
    finish_reason: FinishReason
    worker: str
    prompt_row: Mapping[str, Any] = field(default_factory=dict, hash=False)
    failures: Mapping[str, str] = field(default_factory=dict, hash=False)
    teacher_logprobs: NDArray[np.float32] = field(default_factory=_no_numbers, hash=False)
    episode: EpisodeRecord | None = None
    learner_logprobs: NDArray[np.float32] = field(default_factory=_no_numbers, hash=False)
    entropies: NDArray[np.float32] = field(default_factory=_no_numbers, hash=False)
    advantages: NDArray[np.float32] = field(default_factory=_no_numbers, hash=False)
    returns: NDArray[np.float32] = field(default_factory=_no_numbers, hash=False)
    token_rewards: NDArray[np.float32] = field(default_factory=_no_numbers, hash=False)
    ratios: NDArray[np.float32] = field(default_factory=_no_numbers, hash=False)
    clipped: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, np.bool_), hash=False)
    shaping: ShapingRecord | None = None

    def __post_init__(self) -> None:
        num_tokens = len(self.token_ids)
        for name in _OF_RESPONSE:
            length = len(getattr(self, name))
            is_needed = name in _OF_EVERY_TOKEN or (name == "ref_logprobs" and self.dropped is None)
            if length != num_tokens and (is_needed or length):
                raise ValueError(f"{self.prompt_id}: {name} has {length} entries for a response of {num_tokens} tokens")
        if self.finish_reason not in get_args(FinishReason):
            raise ValueError(
                f"{self.prompt_id}: finish_reason {self.finish_reason!r} is none of {get_args(FinishReason)}"
            )
        if self.dropped is not None and self.dropped not in get_args(DropReason):
            raise ValueError(f"{self.prompt_id}: dropped {self.dropped!r} is none of {get_args(DropReason)}")


def write_step(folder: Path, step: int, rows: Sequence[JournalRow]) -> Path:
    """Write one step of one writer."""
    with step_writers(folder, step, 1) as (path,):
        write_rows(path, step, rows)
    return step_file(folder, step)


def write_rows(path: Path, step: int, rows: Sequence[JournalRow]) -> None:
    """Write one writer's rows of a step, whole or not at all, and on the disk when this returns."""
    columns = [pa.array([_cell(row, step, column.name) for row in rows], column.type) for column in _SCHEMA]
    write_parquet(path, pa.Table.from_arrays(columns, schema=_SCHEMA))


def write_parquet(path: Path, table: pa.Table) -> None:
    """Whole or not at all, and on the disk when this returns; its folder is there."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        pq.write_table(table, unfinished, compression="zstd")
        flush(unfinished)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    flush(path.parent)


def read_step(path: Path) -> list[JournalRow]:
    """The rows of one step, in the order in which they were written."""
    return [_row(cells) for cells in read_table(path).to_pylist()]


def read_journal(folder: Path) -> Iterator[tuple[int, JournalRow]]:
    """(step, row) of all steps in order, one step in memory at a time."""
    for path in step_files(folder):
        for cells in read_table(path).to_pylist():
            yield cells["step"], _row(cells)


def read_table(path: Path) -> pa.Table:
    """One step as an Arrow table.

    Raises:
        UserError: a file is not a journal.
    """
    tables = [_read_file(file) for file in files_of(path)]
    if not tables:
        raise UserError(f"{path}: is not a journal of rollouts: the folder has no part-*.parquet")
    return pa.concat_tables(tables)


def _read_file(path: Path) -> pa.Table:
    try:
        table = pq.ParquetFile(path).read()
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path}: cannot be read as Parquet: {error}") from error
    missing = [name for name in _SCHEMA.names if name not in table.schema.names]
    if set(missing) <= set(_ADDED):
        for name in missing:  # In order, so that each finds its place.
            column = pa.array([_ADDED[name]] * len(table), _SCHEMA.field(name).type)
            table = table.add_column(_SCHEMA.get_field_index(name), name, column)
    if table.schema.names != _SCHEMA.names:
        different = sorted(set(table.schema.names) ^ set(_SCHEMA.names))
        raise UserError(f"{path}: is not a journal of rollouts; its columns differ in {different}")
    return table


def _cell(row: JournalRow, step: int, column: str) -> Any:
    match column:
        case "step":
            return step
        case "rewards" | "failures":
            return list(getattr(row, column).items())
        case "prompt_row":
            # What JSON has no form for, such as a date of a Parquet file, is written as text.
            return json.dumps(row.prompt_row, ensure_ascii=False, default=str)
        case "episode":
            return json.dumps(None if row.episode is None else asdict(row.episode), ensure_ascii=False)
        case "shaping":
            return json.dumps(None if row.shaping is None else row.shaping.as_cell(), ensure_ascii=False)
        case _:
            return getattr(row, column)


def _row(cells: Mapping[str, Any]) -> JournalRow:
    arrays: dict[str, Any] = {name: np.asarray(cells[name], dtype) for name, dtype in _ARRAYS.items()}
    others = {name: value for name, value in cells.items() if name not in arrays and name != "step"}
    others |= {name: dict(cells[name]) for name in ("rewards", "failures")}
    others["prompt_row"] = json.loads(cells["prompt_row"])
    episode = json.loads(cells["episode"])
    others["episode"] = None if episode is None else _episode(episode)
    shaping = json.loads(cells["shaping"])
    others["shaping"] = None if shaping is None else ShapingRecord.from_cell(shaping)
    return JournalRow(**others, **arrays)


def _episode(cell: Mapping[str, Any]) -> EpisodeRecord:
    turns = [EpisodeTurn(**turn | {"messages": tuple(turn["messages"])}) for turn in cell["turns"]]
    return EpisodeRecord(tuple(turns), cell["failure"])
