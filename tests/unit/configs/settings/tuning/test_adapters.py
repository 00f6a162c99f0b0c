"""What the settings of adapters refuse, and what follows from them."""

from typing import Any, get_args

import pytest

from plumbob.configs.load_run import load_run
from plumbob.configs.settings.tuning.adapters import LoraTuning
from plumbob.configs.settings.tuning.any_tuning import AnyTuning
from plumbob.core.errors import UserError

SFT = ["policy.model=m", "data.demonstrations=d"]
DPO = ["policy.model=m", "data.pairs=p"]


def refused(preset: str, *overrides: str) -> str:
    with pytest.raises(UserError) as found:
        load_run(preset, overrides)
    return str(found.value)


def test_no_method_drops_out_in_alignment() -> None:
    """Whichever has a setting for it, one that is added tomorrow too."""
    dropping = {
        kind.model_fields["kind"].default: [name for name in kind.model_fields if "dropout" in name]
        for kind in get_args(AnyTuning)
    }
    assert {kind for kind, names in dropping.items() if names} == {"lora", "adalora", "vera"}
    for kind, names in dropping.items():
        for name in names:
            assert f"policy.tuning.{name}=0.5: PPO" in refused(
                "dpo", *DPO, f"policy.tuning={{kind: {kind}, {name}: 0.5}}"
            )


def test_patterns_are_read_from_the_command_line() -> None:
    run: Any = load_run("dpo", [*DPO, "policy.tuning.rank_pattern={q_proj: 2, layers.1.mlp.up_proj: 32}"])
    assert run.policy.tuning.rank_pattern == {"q_proj": 2, "layers.1.mlp.up_proj": 32}
    assert run.policy.tuning.published_rank == 32


@pytest.mark.parametrize(
    ("given", "rank"),
    [
        ({"rank": 4}, 4),
        ({"rank": 4, "rank_pattern": {"q_proj": 2}}, 4),
        ({"rank": 4, "init": "pissa"}, 8),
        ({"rank": 4, "rank_pattern": {"q_proj": 6}, "init": "olora"}, 12),
        ({"rank": 4, "init": "orthogonal"}, 4),
    ],
)
def test_the_rank_that_others_load(given: dict[str, Any], rank: int) -> None:
    assert LoraTuning(**given).published_rank == rank


@pytest.mark.parametrize(
    ("overrides", "wanted"),
    [
        (["policy.tuning.init=orthogonal", "policy.tuning.rank=5"], "halves each rank, and one is 5: make it even"),
        (
            ["policy.tuning.init=orthogonal", "policy.tuning.rank_pattern={q_proj: 3}"],
            "halves each rank, and one is 3: make it even",
        ),
        (
            ["policy.tuning.use_dora=true", "policy.tuning.init=pissa"],
            "policy.tuning.init=pissa takes apart: choose one of the two",
        ),
        (["policy.tuning.rank_pattern={'q(': 3}"], "expected the end of a module's name, such as q_proj or layers.1."),
        (["policy.tuning.rank_pattern={q_proj: 0}"], "expected a number greater than 0, found 0"),
        (["policy.tuning.init=svd"], "policy.tuning.init: expected"),
    ],
)
def test_what_makes_no_sense_is_refused(overrides: list[str], wanted: str) -> None:
    assert wanted in refused("sft", *SFT, *overrides)


def test_a_start_that_is_not_exact_is_refused_beside_a_reference() -> None:
    load_run("sft", [*SFT, "policy.tuning.init=orthogonal"])
    for preset, given in (
        ("dpo", DPO),
        ("kto", ["policy.model=m", "data.labelled=l"]),
        ("ppo", ["policy.model=m", "reward.model=r", "data.prompts=p"]),
    ):
        message = refused(preset, *given, "policy.tuning.init=orthogonal")
        assert "policy.tuning.init=orthogonal: B A begins at zero but for rounding, and PPO, DPO and KTO" in message
        assert "use it in supervised fine-tuning, or set policy.tuning.init=olora" in message


PPO = ["policy.model=m", "reward.model=r", "data.prompts=p"]


def test_adalora_begins_with_more_ranks_than_it_ends_with() -> None:
    run: Any = load_run("dpo", [*DPO, "policy.tuning={kind: adalora, rank: 5}"])
    assert (run.policy.tuning.first_rank, run.policy.tuning.published_rank) == (8, 8)  # 7.5, rounded up.
    load_run("sft", [*SFT, "policy.tuning={kind: adalora}", "policy.quantization.kind=nf4"])
    message = refused("sft", *SFT, "policy.tuning={kind: adalora, rank: 8, initial_rank: 8}")
    assert "policy.tuning.rank=8 on average: make initial_rank larger, or leave it out" in message
    message = refused("sft", *SFT, "policy.tuning={kind: adalora, initial_share: 0.6, final_share: 0.4}")
    assert "final_share=0.4 leave no steps in which ranks are dropped: make their sum less than 1" in message
    assert "policy.tuning.dropout=0.1: PPO, DPO" in refused("dpo", *DPO, "policy.tuning={kind: adalora, dropout: 0.1}")


@pytest.mark.parametrize(("preset", "given"), [("ppo", PPO), ("rloo", PPO), ("toy", [])])
def test_no_ranks_are_dropped_online(preset: str, given: list[str]) -> None:
    message = refused(preset, *given, "policy.tuning={kind: adalora}")
    assert "policy.tuning.kind=adalora drops the ranks that gradients have made least of" in message
    assert "in a run of kind sft, dpo or kto, which leaves LoRA, or set policy.tuning.kind=lora" in message


def test_a_pipeline_aligns_the_lora_that_adalora_leaves() -> None:
    load_run("toy", ["policy.sft_tuning={kind: adalora}"])


def test_ia3_has_no_rank() -> None:
    run: Any = load_run("dpo", [*DPO, "policy.tuning={kind: ia3, targets: [k_proj]}"])
    assert (run.policy.tuning.targets, run.policy.tuning.published_rank) == (("k_proj",), 0)


def test_vera_has_no_dropout_beside_a_reference() -> None:
    load_run("sft", [*SFT, "policy.tuning={kind: vera, dropout: 0.1}"])
    assert "policy.tuning.dropout=0.1: PPO, DPO and KTO" in refused(
        "dpo", *DPO, "policy.tuning={kind: vera, dropout: 0.1}"
    )


@pytest.mark.parametrize("tuning", ["{kind: ia3}", "{kind: vera}", "{use_dora: true}", "{init: pissa}"])
def test_what_needs_the_weights_own_numbers_is_refused_on_a_quantised_base(tuning: str) -> None:
    message = refused("sft", *SFT, f"policy.tuning={tuning}", "policy.quantization={kind: nf4}")
    wanted = "is for LoRA that begins at random, AdaLoRA, bottleneck adapters and soft prompts: all else reads the"
    assert wanted in message


def test_bottleneck_adapters_have_a_place_and_a_width() -> None:
    run: Any = load_run("dpo", [*DPO, "policy.tuning={kind: bottleneck, placement: pfeiffer, width: 8}"])
    tuning = run.policy.tuning
    assert (tuning.placement, tuning.width, tuning.activation, tuning.published_rank) == ("pfeiffer", 8, "gelu", 0)
    load_run("sft", [*SFT, "policy.tuning.kind=bottleneck", "policy.quantization.kind=nf4"])
    refusals = {
        "placement: parallel": "policy.tuning.placement: expected",
        "width: 0": "policy.tuning.width: expected a number greater than 0",
    }
    for given, wanted in refusals.items():
        assert wanted in refused("sft", *SFT, f"policy.tuning={{kind: bottleneck, {given}}}")
