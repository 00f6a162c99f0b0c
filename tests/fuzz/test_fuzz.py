"""A slice of `make fuzz`: some hundreds of inputs, in this process, but for those that have ended or held a process."""

from collections import Counter
from pathlib import Path

import pytest

from tests.fuzz.campaign import JudgingProcess, judge
from tests.fuzz.inputs import KINDS, kind_of, make
from tests.support.tiny_policy import write_policy

NUM_INPUTS = 300


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(write_policy(tmp_path_factory.mktemp("whole")))


def test_a_slice_is_taken_or_refused_with_a_message(model: Path, tmp_path: Path) -> None:
    judged = [judge(seed, tmp_path / "input", model) for seed in range(NUM_INPUTS)]
    failed = [each for each in judged if each.verdict not in ("accepted", "refused")]
    assert failed == [], "\n".join(f"seed {each.seed}: {each.detail}" for each in failed)
    counts = Counter((kind_of(each.seed), each.verdict) for each in judged)
    assert all(counts[kind, verdict] for kind in KINDS for verdict in ("accepted", "refused")), counts


def test_a_seed_makes_the_same_input(model: Path, tmp_path: Path) -> None:
    for seed in range(20):
        contents = []
        for name in ("one", "two"):
            folder = tmp_path / name / str(seed)
            folder.mkdir(parents=True)
            files = sorted(path for path in make(seed, folder, model).rglob("*") if path.is_file())
            contents.append([path.read_bytes() for path in files if not path.name.endswith(".gz")])
        assert contents[0] == contents[1]


def test_a_process_that_ends_is_seen(model: Path, tmp_path: Path) -> None:
    worker = JudgingProcess(tmp_path / "input", model)
    worker._process.kill()
    worker._process.join()
    assert worker.judged(0).verdict == "crashed"
    worker.close()
