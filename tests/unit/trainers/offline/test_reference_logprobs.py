"""What the reference gives is computed once: by hand, and in runs of DPO and KTO of two epochs."""

from collections import Counter
from pathlib import Path
from shutil import copytree, rmtree
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from plumbob.configs.runs import DpoRun, KtoRun
from plumbob.trainers.build import build_learner
from plumbob.trainers.learner.learner_protocol import MergedUpdate
from plumbob.trainers.metrics.metrics_log import MetricsLog
from plumbob.trainers.offline import dpo, kto
from plumbob.trainers.offline.reference_logprobs import BLOCK, KeptLogprobs
from plumbob.verify.local_learner import OneRank
from tests.support.learner_ranks import Ranks, this_rank
from tests.support.ragged_batches import sequence
from tests.support.recording_listener import Watching
from tests.support.tiny_policy import write_policy

NUM_RECORDS, BATCH = 6, 2


def test_neighbours_are_computed_together_and_once() -> None:
    asked: list[list[int]] = []

    def compute(index: np.ndarray) -> np.ndarray:
        asked.append([int(index[0]), int(index[-1])])
        return np.stack([index, -index], axis=1).astype(np.float32)

    kept = KeptLogprobs(2 * BLOCK + 3, compute)
    wanted = np.array([2 * BLOCK + 1, 4, 2 * BLOCK])
    assert kept.of(wanted).tolist() == [[i, -i] for i in wanted]
    assert kept.of(np.array([0, 4])).tolist() == [[0, 0], [4, -4]]
    assert asked == [[0, BLOCK - 1], [2 * BLOCK, 2 * BLOCK + 2]]


class CountingRank(OneRank):
    """Counts rows by role and by how many updates were made before."""

    def __init__(self, learner: Any) -> None:
        super().__init__(learner)
        self.num_updates, self.rows = 0, Counter[tuple[str, int]]()

    def compute(self, batch: Any, role: Any, function: Any) -> Any:
        self.rows[role, self.num_updates] += batch.num_rows
        return super().compute(batch, role, function)

    def update(self, batch: Any, plan: Any) -> MergedUpdate:
        self.num_updates += 1
        return super().update(batch, plan)


def settings_of(kind: str, model: str) -> dict[str, Any]:
    stage = {"num_epochs": 2, "batch_size": BATCH, "save_every": 1, "keep_checkpoints": 9, "learning_rate": 1e-2}
    data = {"dpo": "pairs", "kto": "labelled"}[kind]
    policy = {"model": model, "tuning": {"kind": "lora", "rank": 2}}
    return {"data": {data: "unread"}, "policy": policy, kind: stage}


def train(kind: str, model: str, folder: Path, forgets: bool = False) -> tuple[dict[tuple[str, int], int], bytes]:
    """A run from the newest checkpoint in `folder`: rows that were computed, and the policy's weights.

    `forgets` computes the reference anew for each batch, as before anything was kept.
    """
    random = np.random.default_rng(0)
    records: Any = [(sequence(2, 1 + i, random), sequence(2, 7 - i, random)) for i in range(NUM_RECORDS)]
    trainer: Any = dpo if kind == "dpo" else kto
    if forgets:
        trainer.KeptLogprobs = lambda number, compute: SimpleNamespace(of=compute)
    settings = settings_of(kind, model)
    try:
        with MetricsLog(folder, Watching()) as log:
            if kind == "dpo":
                run = DpoRun.model_validate(settings)
                learners = CountingRank(build_learner(run, this_rank()))
                dpo.run_dpo(run, dpo.DpoInput(tuple(records), (), 0, ()), learners, folder, log)
            else:
                labelled = tuple((one, i % 2 == 0) for i, (one, _) in enumerate(records))
                other = KtoRun.model_validate(settings)
                learners = CountingRank(build_learner(other, this_rank()))
                kto.run_kto(other, kto.KtoInput(labelled, (), 0, ()), learners, folder, log)
    finally:
        trainer.KeptLogprobs = KeptLogprobs
    return dict(learners.rows), (folder / "policy/adapter_model.safetensors").read_bytes()


@pytest.mark.parametrize("kind", ["dpo", "kto"])
def test_the_second_epoch_and_a_resumed_run_learn_from_the_same_bits(
    one_rank: Ranks, tmp_path: Path, kind: str
) -> None:
    model = str(write_policy(tmp_path / "model"))
    rows, policy = one_rank.run(train, kind, model, tmp_path / "whole")[0]
    # All six in one block before the first of six updates; KTO asks beside them about the mismatched ones of each step.
    mismatched = BATCH if kind == "kto" else 0
    found = [rows.get(("reference", step), 0) for step in range(6)]
    assert found == [NUM_RECORDS + mismatched] + 5 * [mismatched]
    # Resumed in the second epoch, where nothing is kept: the same weights to the last bit.
    copytree(tmp_path / "whole", tmp_path / "again")
    rmtree(tmp_path / "again/policy")
    for step in (5, 6):
        rmtree(tmp_path / f"again/checkpoints/step-{step:06d}")
    _, again = one_rank.run(train, kind, model, tmp_path / "again")[0]
    assert again == policy
    # Nothing but rounding is between them and weights from references that every batch computes anew.
    forgetful_rows, forgetful = one_rank.run(train, kind, model, tmp_path / "forgetful", True)[0]
    assert [forgetful_rows["reference", step] for step in range(6)] == 6 * [BATCH + mismatched]
    assert weights(forgetful).keys() == weights(policy).keys()
    for name, tensor in weights(policy).items():
        assert np.abs(weights(forgetful)[name] - tensor).max() < 1e-4, name  # A step is 1e-2.


def weights(data: bytes) -> dict[str, np.ndarray]:
    from safetensors.numpy import load

    return load(data)
