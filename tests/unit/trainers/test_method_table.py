"""Each method of tuning through each stage that it is for, really trained: one table, walked."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.learner_ranks import Ranks
from tests.support.method_walk import STAGES, walk
from tests.support.tiny_policy import write_policy

LORA = {"kind": "lora", "rank": 4, "alpha": 8.0}
METHODS: dict[str, tuple[dict[str, Any], float]] = {
    "lora": (LORA, 3e-3),
    "rslora": (LORA | {"use_rslora": True}, 3e-3),
    "patterns": (LORA | {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"layers.1.mlp.up_proj": 2.0}}, 3e-3),
    "gaussian": (LORA | {"init": "gaussian"}, 3e-3),
    "orthogonal": (LORA | {"init": "orthogonal"}, 3e-3),
    "pissa": (LORA | {"init": "pissa"}, 3e-3),
    "pissa, fast": (LORA | {"init": "pissa_niter_16", "use_rslora": True, "rank_pattern": {"v_proj": 3}}, 3e-3),
    "olora": (LORA | {"init": "olora"}, 3e-4),
    "dora": (LORA | {"use_dora": True}, 3e-3),
}
"""Name -> settings and a learning rate that shows in a few steps."""

NOT = {("orthogonal", stage) for stage in STAGES if stage != "sft"}
"""What the settings refuse (tests/unit/configs/settings/tuning/test_adapters.py)."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_policy(tmp_path_factory.mktemp("policy"))


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("method", METHODS)
def test_a_method_in_a_stage(one_rank: Ranks, base: str, tmp_path: Path, method: str, stage: str) -> None:
    if (method, stage) in NOT:
        pytest.skip("refused by its message")
    tuning, learning_rate = METHODS[method]
    (found,) = one_rank.run(walk, stage, tuning, learning_rate, base, tmp_path)
    assert found.start_gap == 0.0
    assert all(after < before for before, after in found.losses), found.losses
    assert found.policy_move > 0.01
    assert (found.unmoved, found.moved_too, found.reference_moved) == ([], [], False)
    assert found.base_gap < 1e-5
    assert found.export_gap < 3e-5
    assert found.is_resumed_exactly
    assert found.next_start_gap == 0.0 and found.next_export_gap < 3e-5
