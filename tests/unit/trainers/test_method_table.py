"""Each method of tuning through each stage that it is for, really trained: one table, walked."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.learner_ranks import Ranks
from tests.support.method_walk import STAGES, walk
from tests.support.source_tree import ROOT
from tests.support.tiny_policy import write_policy

LORA = {"kind": "lora", "rank": 4, "alpha": 8.0}
METHODS: dict[str, tuple[dict[str, Any], float]] = {
    "LoRA": (LORA, 3e-3),
    "rsLoRA": (LORA | {"use_rslora": True}, 3e-3),
    "single ranks and alphas": (
        LORA | {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"layers.1.mlp.up_proj": 2.0}},
        3e-3,
    ),
    "gaussian start": (LORA | {"init": "gaussian"}, 3e-3),
    "orthogonal start": (LORA | {"init": "orthogonal"}, 3e-3),
    "PiSSA": (LORA | {"init": "pissa"}, 3e-3),
    "PiSSA, faster": (LORA | {"init": "pissa_niter_16", "use_rslora": True, "rank_pattern": {"v_proj": 3}}, 3e-3),
    "OLoRA": (LORA | {"init": "olora"}, 3e-4),
    "DoRA": (LORA | {"use_dora": True}, 3e-3),
    "(IA)³": ({"kind": "ia3"}, 1e-2),
    "VeRA": ({"kind": "vera", "rank": 16}, 1e-2),
    "bottleneck adapters (Houlsby)": ({"kind": "bottleneck", "width": 8}, 1e-2),
    "bottleneck adapters (Pfeiffer)": (
        {"kind": "bottleneck", "placement": "pfeiffer", "width": 8, "activation": "relu"},
        1e-2,
    ),
}
"""Name -> settings and a learning rate that shows in a few steps."""

NOT = {("orthogonal start", stage) for stage in STAGES if stage != "sft"}
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


def test_the_document_has_the_table() -> None:
    rows = [line.split("|")[1:-1] for line in (ROOT / "docs/methods.md").read_text().splitlines() if line[:2] == "| "]
    table = {cells[0].strip(): [cell.strip() for cell in cells[2:5]] for cells in rows[1:]}
    assert METHODS.keys() <= table.keys()
    for method in METHODS:
        sft, pairs, online = table[method]
        said = {"sft": sft, "dpo": pairs, "kto": pairs, "ppo": online}
        assert {stage for stage, word in said.items() if word.startswith("yes")} == {
            stage for stage in STAGES if (method, stage) not in NOT
        }, method
