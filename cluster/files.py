"""What a pipeline begins with, as files: generated, or derived from preference pairs, split and checked."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cluster.evaluation import Judge
from configs.errors import UserError
from configs.schema import PipelineRun
from data.fields import Render
from data.gold import gold_score
from data.holdout import Split, hold_out
from data.prompts import chat_renderer, make_prompt
from data.readers import no_chat, read_demonstrations, read_pairs, read_prompts
from data.records import Demonstration, PreferencePair, Prompt
from data.splits import check_overlap
from data.toy import build_world, noise_ceiling, write_world
from models.source import load_tokenizer, resolve_model


@dataclass(frozen=True)
class Files:
    """The stages' input.

    Attributes:
        judge: scores answers for the evaluation alone; None on real data.
        noise_ceiling: accuracy of the best predictor of the held-out preferences; None where it is not known.
        notes: sentences about rows that were left out.
    """

    text: str
    demonstrations: str
    pairs: str
    heldout_pairs: str
    prompts: str
    heldout_prompts: str
    judge: Judge | None
    noise_ceiling: float | None
    notes: tuple[str, ...]


PreparedFiles = Callable[[Path], Files]
"""Input that has been read and found good; called with a folder, it is written there."""


def prepare_files(run: PipelineRun) -> PreparedFiles:
    """Generate the world, or read and split the user's files. Raises UserError; writes nothing."""
    return _toy_files(run) if run.data.toy is not None else _real_files(run)


def _toy_files(run: PipelineRun) -> PreparedFiles:
    assert run.data.toy is not None
    world = build_world(run.data.toy, run.seed)

    def write(folder: Path) -> Files:
        write_world(world, folder)
        return _files(folder, str(folder / "text.jsonl"), gold_score, noise_ceiling(world.heldout_pairs), ())

    return write


def _real_files(run: PipelineRun) -> PreparedFiles:
    data = run.data
    assert data.pairs is not None
    render = _renderer(run)
    pairs = hold_out(
        lambda path: read_pairs(path, data, render),
        data.pairs,
        data.heldout_pairs,
        lambda pair: pair.prompt,
        data,
        run.seed,
    )
    if not pairs.heldout:
        raise UserError("nothing is held out: give data.heldout_pairs=FILE, or data.heldout_fraction above 0")
    prompts = _prompts(run, pairs, render)
    demonstrations = _demonstrations(run, pairs, prompts, render)
    notes = tuple(dict.fromkeys(pairs.notes + prompts.notes + demonstrations.notes))

    def write(folder: Path) -> Files:
        folder.mkdir(parents=True, exist_ok=True)
        for name, side in (("pairs", pairs.train), ("heldout_pairs", pairs.heldout)):
            write_jsonl(
                folder / f"{name}.jsonl",
                ({"prompt": p.prompt, "chosen": p.chosen, "rejected": p.rejected} for p in side),
            )
        write_jsonl(folder / "prompts.jsonl", ({"prompt": prompt.text} for prompt in prompts.train))
        write_jsonl(folder / "heldout_prompts.jsonl", ({"prompt": prompt.text} for prompt in prompts.heldout))
        shown = ({"prompt": d.prompt, "completion": d.answer} for d in demonstrations.train)
        write_jsonl(folder / "demonstrations.jsonl", shown)
        text = data.text
        if text is None:
            text = str(folder / "text.jsonl")
            write_jsonl(folder / "text.jsonl", ({"text": d.prompt + d.answer} for d in demonstrations.train))
        return _files(folder, text, None, None, notes)

    return write


def _prompts(run: PipelineRun, pairs: Split[PreferencePair], render: Render) -> Split[Prompt]:
    """The user's prompts, less a held-out share; or those of the pairs, on the side where the pair stands."""
    if run.data.prompts is not None:
        return hold_out(
            lambda path: read_prompts(path, run.data, render),
            run.data.prompts,
            None,
            lambda p: p.text,
            run.data,
            run.seed,
        )
    train, heldout = (
        tuple(make_prompt(text) for text in dict.fromkeys(pair.prompt for pair in side))
        for side in (pairs.train, pairs.heldout)
    )
    return Split(train, heldout, ())


def _demonstrations(
    run: PipelineRun, pairs: Split[PreferencePair], prompts: Split[Prompt], render: Render
) -> Split[Demonstration]:
    """The user's demonstrations, none of them on a held-out prompt; or the chosen answers of the training pairs."""
    if run.data.demonstrations is None:
        return Split(tuple(Demonstration(pair.prompt, pair.chosen) for pair in pairs.train), (), ())
    read = read_demonstrations(run.data.demonstrations, run.data, render)
    heldout = [Demonstration(prompt.text, "") for prompt in prompts.heldout]
    kept, note = check_overlap(
        read.records, heldout, lambda d: d.prompt, run.data, "data.demonstrations and the held-out prompts"
    )
    return Split(tuple(kept), (), read.notes + ((note,) if note else ()))


def _renderer(run: PipelineRun) -> Render:
    if not isinstance(run.policy.model, str):
        return no_chat
    source = resolve_model(run.policy.model, "policy.model")
    return chat_renderer(load_tokenizer(source, "policy.model", run.policy.trust_remote_code))


def _files(folder: Path, text: str, judge: Judge | None, ceiling: float | None, notes: tuple[str, ...]) -> Files:
    return Files(
        text=text,
        demonstrations=str(folder / "demonstrations.jsonl"),
        pairs=str(folder / "pairs.jsonl"),
        heldout_pairs=str(folder / "heldout_pairs.jsonl"),
        prompts=str(folder / "prompts.jsonl"),
        heldout_prompts=str(folder / "heldout_prompts.jsonl"),
        judge=judge,
        noise_ceiling=ceiling,
        notes=notes,
    )


def write_jsonl(path: Path, rows: Iterable[Mapping[str, str]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
