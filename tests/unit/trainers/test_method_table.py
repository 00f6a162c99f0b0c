"""Each method of tuning through each stage that it is for, really trained: one table, walked."""

import itertools
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from plumbob.configs.settings.tuning.adapters import AdaLoraTuning, LoraTuning
from plumbob.configs.settings.tuning.any_tuning import AnyTuning, Tuning
from plumbob.configs.settings.tuning.weights import WeightTuning
from plumbob.configs.settings.workers import RolloutSettings, TransformersEngine, VllmEngine
from plumbob.core.errors import UserError
from plumbob.models.tuning.adapter_support import AdapterSupport
from plumbob.models.tuning.methods import method_of
from plumbob.rollout.samplers.open_sampler import support_for, support_of
from plumbob.rollout.samplers.vllm.support import VLLM_SUPPORT
from tests.support.learner_ranks import Ranks
from tests.support.method_walk import ROLES, STAGES, walk
from tests.support.opened_models import opened_policy
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
    "AdaLoRA": ({"kind": "adalora", "rank": 3, "initial_rank": 4, "alpha": 8.0}, 1e-2),
    "DoRA": (LORA | {"use_dora": True}, 3e-3),
    "(IA)³": ({"kind": "ia3"}, 1e-2),
    "VeRA": ({"kind": "vera", "rank": 16}, 1e-2),
    "bottleneck adapters (Houlsby)": ({"kind": "bottleneck", "width": 8}, 1e-2),
    "bottleneck adapters (Pfeiffer)": (
        {"kind": "bottleneck", "placement": "pfeiffer", "width": 8, "activation": "relu"},
        1e-2,
    ),
    "prompt tuning": ({"kind": "prompt-tuning", "num_virtual_tokens": 5}, 3e-2),
    "prompt tuning, from a text": (
        {"kind": "prompt-tuning", "num_virtual_tokens": 4, "init": "text", "init_text": "the car has"},
        3e-2,
    ),
    "p-tuning": ({"kind": "p-tuning", "num_virtual_tokens": 5, "hidden_size": 16}, 1e-2),
    "p-tuning, LSTM": ({"kind": "p-tuning", "num_virtual_tokens": 5, "hidden_size": 16, "encoder": "lstm"}, 1e-2),
    "prefix tuning": ({"kind": "prefix-tuning", "num_virtual_tokens": 5}, 3e-2),
    "prefix tuning, projected": (
        {"kind": "prefix-tuning", "num_virtual_tokens": 5, "projection": True, "hidden_size": 16},
        1e-2,
    ),
}
"""Name -> settings and a learning rate that shows in a few steps."""

WEIGHTS = {
    "full": {"kind": "full"},
    "chosen layers, biases (BitFit), norms": {"kind": "selective", "norms": True},
}
"""Name -> settings, of what tests/unit/trainers/learner/test_weight_tuning.py trains."""

NOT = {("orthogonal start", stage) for stage in STAGES if stage != "sft"} | {("AdaLoRA", "ppo")}
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


def samplers_of(given: dict[str, Any], base: str) -> tuple[str, str]:
    """What the table is to say of a method with transformers and with vLLM: what is refused before start."""
    tuning: AnyTuning = TypeAdapter(Tuning).validate_python(given)
    opened = opened_policy(base)

    def is_taken(support: AdapterSupport, tuning: AnyTuning = tuning) -> bool:
        try:
            method_of(tuning).check(opened, "policy.tuning", ROLES, support)
        except UserError:
            return False
        return True

    rollouts = [RolloutSettings(engine=engine) for engine in (TransformersEngine(), VllmEngine())]
    assert is_taken(support_for(rollouts[0], opened, tuning))
    if isinstance(tuning, WeightTuning):
        return "yes, in place", "in place" if is_taken(support_for(rollouts[1], opened, tuning)) else "no"
    beside, merged = (is_taken(support_of(VllmEngine(), serving)) for serving in ("lora", "merged"))
    if not beside:
        return "yes", "merged" if merged else "no"
    if isinstance(tuning, AdaLoraTuning):
        ranks = [tuning.model_copy(update={"initial_rank": rank}) for rank in (512, 513)]
        assert merged and [is_taken(VLLM_SUPPORT, one) for one in ranks] == [True, False]
        return "yes", "beside the base, or merged"
    assert merged and isinstance(tuning, LoraTuning)
    ranks = [tuning.model_copy(update={"rank": rank, "rank_pattern": {}}) for rank in (256, 257, 512)]
    taken = [is_taken(VLLM_SUPPORT, one) for one in ranks]
    limits = {(True, True, True): "", (True, False, False): " (up to rank 256)"}
    return "yes", f"beside the base{limits[taken[0], taken[1], taken[2]]}, or merged"


def test_the_document_has_the_table(base: str) -> None:
    lines = (ROOT / "docs/methods.md").read_text().splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("| method | `policy.tuning` |"))
    rows = [line.split("|")[1:-1] for line in itertools.takewhile(lambda line: line[:1] == "|", lines[first + 2 :])]
    table = {cells[0].strip(): [cell.strip() for cell in cells[2:7]] for cells in rows}
    assert METHODS.keys() <= table.keys()
    for method in METHODS:
        sft, pairs, online, _, _ = table[method]
        said = {"sft": sft, "dpo": pairs, "kto": pairs, "ppo": online}
        assert {stage for stage, word in said.items() if word.startswith("yes")} == {
            stage for stage in STAGES if (method, stage) not in NOT
        }, method
    tunings = {method: tuning for method, (tuning, _) in METHODS.items()} | WEIGHTS
    said = {method: (table[method][3], table[method][4].partition(":")[0]) for method in tunings}
    assert said == {method: samplers_of(tuning, base) for method, tuning in tunings.items()}
