"""`make fuzz`: inputs by their seeds in worker processes, each with a time bound; what fails is kept with its seed.

python -m tests.fuzz.campaign [NUM_INPUTS] [FIRST_SEED] [OUT]
"""

import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Literal

NUM_INPUTS, NUM_WORKERS, SECONDS_EACH = 25_000, 2, 60.0
Verdict = Literal["accepted", "refused", "uncaught", "crashed", "hung"]


@dataclass(frozen=True)
class Judged:
    """How one input went; `detail` is the traceback of what is uncaught, or the message of a refusal."""

    seed: int
    verdict: Verdict
    detail: str


def judge(seed: int, scratch: Path, whole_model: Path) -> Judged:
    """In this process. What ends the process, or does not end, is seen from outside."""
    from plumbob.core.errors import UserError
    from tests.fuzz import inputs

    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    inputs.make(seed, scratch, whole_model)
    try:
        inputs.use(seed, scratch)
    except UserError as error:
        if len(str(error)) > 20_000:
            return Judged(seed, "uncaught", f"a message of {len(str(error))} letters: {str(error)[:1000]}")
        return Judged(seed, "refused", str(error)[:300])
    except BaseException:
        return Judged(seed, "uncaught", traceback.format_exc())
    return Judged(seed, "accepted", "")


def _work(pipe: Connection, scratch: Path, whole_model: Path) -> None:
    import torch

    torch.set_num_threads(1)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)  # What libraries say of files that they cannot read.
    with suppress(EOFError):
        while True:
            pipe.send(judge(pipe.recv(), scratch, whole_model))


class JudgingProcess:
    """A process that judges one input after another."""

    def __init__(self, scratch: Path, whole_model: Path) -> None:
        self.scratch, self._whole_model = scratch, whole_model
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self._process = context.Process(target=_work, args=(other, self.scratch, self._whole_model), daemon=True)
        self._process.start()
        other.close()

    def judged(self, seed: int) -> Judged:
        """Raises nothing: a process that is lost is replaced."""
        try:
            self.pipe.send(seed)
            if wait([self.pipe], SECONDS_EACH):
                result: Judged = self.pipe.recv()
                return result
            verdict: Verdict = "hung"
        except (EOFError, ConnectionError):
            verdict = "crashed"
        self.close()
        detail = f"exit code {self._process.exitcode}"
        self._start()
        return Judged(seed, verdict, detail)

    def close(self) -> None:
        self._process.kill()
        self._process.join()


def campaign(seeds: range, whole_model: Path, out: Path) -> Iterator[Judged]:
    """Judge every seed; the input of each that failed is kept in `out`."""
    from concurrent.futures import ThreadPoolExecutor

    with tempfile.TemporaryDirectory() as scratch:
        workers = [JudgingProcess(Path(scratch) / str(index), whole_model) for index in range(NUM_WORKERS)]

        def run(index: int) -> list[Judged]:
            done = []
            for seed in seeds[index::NUM_WORKERS]:
                judged = workers[index].judged(seed)
                if judged.verdict in ("uncaught", "crashed", "hung"):
                    kept = out / str(seed)
                    shutil.rmtree(kept, ignore_errors=True)
                    shutil.copytree(workers[index].scratch, kept)
                    (kept / "judged.json").write_text(json.dumps(judged.__dict__))
                done.append(judged)
            return done

        try:
            with ThreadPoolExecutor(NUM_WORKERS) as threads:
                for each in threads.map(run, range(NUM_WORKERS)):
                    yield from each
        finally:
            for worker in workers:
                worker.close()


def main() -> int:
    given = [*sys.argv[1:], *("", "", "")]
    number, first, out = int(given[0] or NUM_INPUTS), int(given[1] or 0), Path(given[2] or "runs/fuzz")
    from tests.support.tiny_policy import write_policy

    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        from tests.fuzz.inputs import kind_of

        judged = list(campaign(range(first, first + number), Path(write_policy(Path(folder) / "model")), out))
        counts = Counter((kind_of(each.seed), each.verdict) for each in judged)
    for (kind, verdict), count in sorted(counts.items()):
        print(f"{kind:8} {verdict:9} {count:7,}")
    failed = [each for each in judged if each.verdict in ("uncaught", "crashed", "hung")]
    for each in failed:
        print(f"seed {each.seed}, {kind_of(each.seed)}: {each.verdict}: {each.detail.strip().splitlines()[-1][:200]}")
    print(f"{len(judged):,} inputs, {len(failed)} failed; what failed is in {out}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
