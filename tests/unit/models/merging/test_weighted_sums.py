"""Weighted sums of adapters, by numbers: what is summed exactly, what PEFT's other kinds give, what is refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from torch import Tensor
from transformers import AutoModelForCausalLM

from plumbob.core.errors import UserError
from plumbob.models.adapter import Adapter, load_adapter, save_adapter
from plumbob.models.merging.asked_sum import SPARSE, SUM_KINDS, SumKind, WeightedSum
from plumbob.models.merging.weighted_sums import open_parts, weighted_sum
from tests.support.libraries import write_adapter, write_other_base
from tests.support.plain_transformers import load_plain
from tests.support.published_adapters import of_config
from tests.support.tiny_policy import make_adapter, write_policy

IDS = torch.arange(2, 14)[None]
Q = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_policy(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def parts(base: str, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two of rank 4, scaling 2.5."""
    return [write_adapter(tmp_path_factory.mktemp("part"), base, seed) for seed in (1, 2)]


def summed(folders: list[Path], how: SumKind, *weights: float, density: float | None = None) -> Adapter:
    return weighted_sum(open_parts(folders), WeightedSum(how, weights, density))


def delta(adapter: Adapter, module: str = Q) -> Tensor:
    """What an adapter adds to a weight, by its own file: alpha / r B A."""
    a, b = (adapter.tensors[f"{module}.lora_{side}.weight"] for side in "AB")
    scaling = adapter.config["lora_alpha"] / (a.shape[0] ** 0.5 if adapter.config["use_rslora"] else a.shape[0])
    return scaling * (b @ a)


def modules(adapter: Adapter) -> set[str]:
    return {name.partition(".lora_")[0] for name in adapter.tensors}


def logits(base: str, deltas: dict[str, Tensor]) -> Tensor:
    """Of the base with these added to its weights by hand."""
    model = AutoModelForCausalLM.from_pretrained(base).eval()
    with torch.no_grad():
        for module, added in deltas.items():
            model.get_submodule(module.removeprefix("base_model.model.")).weight += added
        found: Tensor = model(IDS).logits
    return found


def test_the_sum_is_what_the_adapters_add_to_the_base(base: str, parts: list[Path], tmp_path: Path) -> None:
    first, second = map(load_adapter, parts)
    made = summed(parts, "sum", 0.7, -0.3)
    assert (made.config["r"], made.config["lora_alpha"]) == (8, 8) and modules(made) == modules(first)
    by_hand = {module: 0.7 * delta(first, module) - 0.3 * delta(second, module) for module in modules(first)}
    for module, expected in by_hand.items():
        torch.testing.assert_close(delta(made, module), expected, atol=1e-6, rtol=1e-5)
    save_adapter(made, tmp_path)
    with torch.no_grad():
        found = load_plain(str(tmp_path))(IDS).logits
    torch.testing.assert_close(found, logits(base, by_hand), atol=1e-4, rtol=1e-4)


def test_one_adapter_is_scaled(parts: list[Path]) -> None:
    made = summed(parts[:1], "sum", -0.5)
    assert made.config["r"] == 4
    torch.testing.assert_close(delta(made), -0.5 * delta(load_adapter(parts[0])), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("how", SUM_KINDS)
def test_peft_knows_every_kind(parts: list[Path], how: SumKind) -> None:
    """The sum adds the ranks up, 4 + 4; the others sum the halves."""
    made = summed(parts, how, 1.0, 0.5, density=0.5 if how in SPARSE else None)
    assert made.config["r"] == (8 if how == "sum" else 4) and delta(made).abs().max() > 0


def test_linear_has_products_of_one_with_the_other(parts: list[Path]) -> None:
    """(sum c_i B_i)(sum c_i A_i) with c_i = sqrt(w_i s_i): s = 2.5 for both, c_1 = sqrt(0.64 x 2.5) = 0.8 sqrt(2.5)."""
    first, second = map(load_adapter, parts)
    made = summed(parts, "linear", 0.64, 0.36)
    halves = [[one.tensors[f"{Q}.lora_{side}.weight"] for side in "AB"] for one in (first, second)]
    (a_1, b_1), (a_2, b_2) = halves
    cross = 2.5 * 0.8 * 0.6 * (b_1 @ a_2 + b_2 @ a_1)
    exact = 0.64 * delta(first) + 0.36 * delta(second)
    assert made.config["r"] == 4
    torch.testing.assert_close(delta(made), exact + cross, atol=1e-6, rtol=1e-5)
    assert (delta(made) - exact).abs().max() > 0.1 * exact.abs().max()


def test_ties_keeps_the_largest_of_the_sign_that_most_have(base: str, tmp_path: Path) -> None:
    """Rank 1 with scaling 1 on one module; of 128 numbers of A the half that is larger stays, signs are by the sum."""
    config = LoraConfig(r=1, lora_alpha=1, target_modules=["layers.0.self_attn.q_proj"], task_type="CAUSAL_LM")
    folders = []
    for version, (begin, end) in enumerate([((0.1, 5.0), (0.1, -2.0)), ((0.2, -3.0), (0.2, -4.0))]):
        a = torch.tensor([[*begin] * 32 + [*end] * 32])
        made = of_config(base, config, version)
        tensors = {f"{Q}.lora_A.weight": a, f"{Q}.lora_B.weight": torch.ones(128, 1)}
        save_adapter(replace(made, tensors=tensors), tmp_path / str(version))
        folders.append(tmp_path / str(version))
    made = summed(folders, "ties", 1.0, 1.0, density=0.5)
    # Odd columns stay. Of the first 32 the sum 5 - 3 is positive, so that 5 alone counts; then -2 and -4, their mean.
    a = made.tensors[f"{Q}.lora_A.weight"][0]
    assert a[0:64:2].abs().max() == a[64::2].abs().max() == 0
    assert torch.equal(a[1:64:2], torch.full((32,), 5.0)) and torch.equal(a[65::2], torch.full((32,), -3.0))


def test_dare_keeps_a_share_at_random_by_the_seed(parts: list[Path]) -> None:
    def made(seed: int) -> Tensor:
        asked = WeightedSum("dare_linear", (1.0, 0.0), 0.5, seed)
        return weighted_sum(open_parts(parts), asked).tensors[f"{Q}.lora_A.weight"]

    whole = load_adapter(parts[0]).tensors[f"{Q}.lora_A.weight"] * 2.5**0.5
    kept = made(3)
    # What stays is divided by the share that does.
    torch.testing.assert_close(kept[kept != 0], 2 * whole[kept != 0])
    # 512 numbers: the standard deviation of the share is 0.022.
    assert abs((kept != 0).float().mean() - 0.5) < 0.1
    assert torch.equal(made(3), kept) and not torch.equal(made(4), kept)
    assert not torch.equal(summed(parts, "dare_ties", 1.0, 0.5, density=0.5).tensors[f"{Q}.lora_A.weight"], kept)


def test_ranks_layers_and_scalings_of_their_own_are_summed_exactly(base: str, tmp_path: Path) -> None:
    """PEFT takes the sum's layers and its rsLoRA from the first alone, which would lose modules and scale the rest."""
    configs: list[dict[str, Any]] = [
        {"r": 9, "lora_alpha": 6, "use_rslora": True, "target_modules": ["q_proj"], "layers_to_transform": [0]},
        {"r": 2, "lora_alpha": 3, "target_modules": ["q_proj", "up_proj"], "rank_pattern": {"up_proj": 5}},
    ]
    folders = []
    for version, config in enumerate(configs):
        save_adapter(of_config(base, LoraConfig(task_type="CAUSAL_LM", **config), version), tmp_path / str(version))
        folders.append(tmp_path / str(version))
    made = summed(folders, "sum", 2.0, 1.0)
    first, second = map(load_adapter, folders)
    assert modules(made) == modules(first) | modules(second) and len(modules(made)) == 4
    # 6 / sqrt(9) = 2 and 3 / 2 = 1.5.
    a, b = (first.tensors[f"{Q}.lora_{side}.weight"] for side in "AB")
    c, d = (second.tensors[f"{Q}.lora_{side}.weight"] for side in "AB")
    torch.testing.assert_close(delta(made), 2.0 * 2.0 * (b @ a) + 1.5 * (d @ c), atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        deltas = {
            module: sum(
                (
                    weight * delta(one, module)
                    for weight, one in ((2.0, first), (1.0, second))
                    if module in modules(one)
                ),
                torch.zeros(1),
            )
            for module in modules(made)
        }
        save_adapter(made, tmp_path / "made")
        torch.testing.assert_close(
            load_plain(str(tmp_path / "made"))(IDS).logits, logits(base, deltas), atol=1e-4, rtol=1e-4
        )
    with pytest.raises(UserError, match=r"modules of different ranks \(rank_pattern\), which --how=sum alone can sum"):
        summed(folders, "linear", 1.0, 1.0)


def test_what_has_no_sum_is_refused(base: str, parts: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"All adapters must have the same r value.*; use --how=sum, which goes with"):
        summed([parts[0], write_adapter(tmp_path / "rank-2", base, rank=2)], "linear", 1.0, 1.0)
    other = write_other_base(base, tmp_path / "other")
    on_other = write_adapter(tmp_path / "on-other", str(other))
    with pytest.raises(UserError, match=rf"^{on_other} is on {other}, and {parts[0]} on {base}: adapters of different"):
        open_parts([parts[0], on_other])
    dora = tmp_path / "dora"
    save_adapter(of_config(base, LoraConfig(use_dora=True, task_type="CAUSAL_LM", target_modules=["q_proj"]), 0), dora)
    with pytest.raises(UserError, match=r"only plain LoRA, B A beside weights, can be summed.*--full FOLDER"):
        summed([parts[0], dora], "sum", 1.0, 1.0)


def test_two_copies_of_a_base_are_one(base: str, parts: list[Path], tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(base)
    model.save_pretrained(tmp_path / "copy")
    for path in Path(base).iterdir():
        (tmp_path / "copy" / path.name).write_bytes(path.read_bytes())
    adapter = make_adapter(str(tmp_path / "copy"), 0, seed=2)
    save_adapter(adapter, tmp_path / "on-copy")
    assert json.loads((tmp_path / "on-copy" / "adapter_config.json").read_text())["base_model_name_or_path"] != base
    assert len(open_parts([parts[0], tmp_path / "on-copy"])) == 2


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (WeightedSum("sum", (1.0,)), "--weights: 1 are given for 2 adapters"),
        (WeightedSum("sum", (1.0, float("nan"))), "--weights=1.0 nan: expected numbers"),
        (WeightedSum("ties", (1.0, 1.0)), "--how=ties: --density, the share of numbers that are kept, is needed"),
        (WeightedSum("sum", (1.0, 1.0), 0.5), r"--how=sum: --density.* is for --how=ties, dare_linear, dare_ties"),
        (WeightedSum("ties", (1.0, 1.0), 1.5), "--density=1.5: expected a share between 0 and 1"),
    ],
)
def test_what_is_asked_is_checked_first(asked: WeightedSum, message: str) -> None:
    with pytest.raises(UserError, match=message):
        asked.check(2)
    with pytest.raises(UserError, match="--how=linear: is of two adapters or more"):
        WeightedSum("linear", (1.0,)).check(1)
