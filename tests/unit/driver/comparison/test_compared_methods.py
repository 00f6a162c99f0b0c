"""Which methods are compared, and how a user writes his own."""

from pathlib import Path
from typing import get_args

import pytest

from plumbob.configs.load_run import load_run
from plumbob.configs.settings.tuning.any_tuning import AnyTuning
from plumbob.core.errors import UserError
from plumbob.driver.comparison.compared_methods import METHODS, ComparedMethod, chosen_methods, of_rank


def test_all_unless_some_are_named() -> None:
    assert chosen_methods([], []) == METHODS
    assert [method.name for method in chosen_methods(["full", "lora"], [])] == ["full", "lora"]


def test_every_method_of_fine_tuning_is_compared() -> None:
    """But for the one whose rows have to name their tasks, which a file of demonstrations need not do."""
    kinds = {kind.model_fields["kind"].default for kind in get_args(AnyTuning)}
    chosen = {setting for method in METHODS for setting in method.overrides}
    assert {kind for kind in kinds if f"policy.tuning.kind={kind}" not in chosen} == {"multitask-prompt-tuning"}


def test_one_of_the_users_own_stands_alone_or_behind_those_that_are_named() -> None:
    own = ComparedMethod("lora-32", ("policy.tuning.rank=32", "sft.learning_rate=1e-4"))
    text = "lora-32: policy.tuning.rank=32 sft.learning_rate=1e-4"
    assert chosen_methods([], [text]) == (own,)
    assert chosen_methods(["lora"], [text])[-1] == own


def test_switches_of_the_runs_own_settings_are_no_part_of_a_method(tmp_path: Path) -> None:
    given = ["policy.model=m", "data.demonstrations=d", "policy.tuning.use_dora=true", "policy.tuning.dropout=0.1"]
    given += ["policy.tuning.rank_pattern={q_proj: 4}"]
    found = {method.name: load_run("sft", given, later=method.overrides).policy for method in (*METHODS, of_rank(2))}
    plain = {"rank": 16, "alpha": 32, "dropout": 0.1, "use_dora": False, "rank_pattern": {}, "init": "default"}
    assert found["lora"].tuning.model_dump(include=set(plain)) == plain
    assert found["dora"].tuning.use_dora and found["rslora"].tuning.use_rslora and not found["rslora"].tuning.use_dora
    assert (found["pissa"].tuning.init, found["pissa"].tuning.use_dora) == ("pissa", False)
    assert (found["lora-rank-2"].tuning.rank, found["lora-rank-2"].tuning.alpha) == (2, 4)
    in_4_bits = [*given, "policy.tuning.use_dora=false", "policy.quantization.kind=nf4"]
    found = {method.name: load_run("sft", in_4_bits, later=method.overrides).policy for method in METHODS}
    assert [name for name, policy in found.items() if policy.quantization is not None] == ["qlora"]


@pytest.mark.parametrize(
    ("names", "own", "wanted"),
    [
        (["qlor"], [], "--methods qlor: did you mean qlora?"),
        ([], ["policy.tuning.rank=32"], "expected a name and settings"),
        ([], ["a/b: policy.tuning.rank=32"], "expected a name and settings"),
        ([], ["wide:"], "expected a name and settings"),
        (["lora"], ["lora: policy.tuning.rank=32"], "there is a method of that name already"),
    ],
)
def test_what_is_no_method(names: list[str], own: list[str], wanted: str) -> None:
    with pytest.raises(UserError, match=wanted):
        chosen_methods(names, own)
