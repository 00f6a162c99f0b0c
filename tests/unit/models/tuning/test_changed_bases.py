"""Adapters that began as parts of the base's own weights: what a refusal advises is tried, with PEFT alone."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.nn import Params4bit
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora.config import CordaConfig, LoftQConfig
from peft.tuners.lora.corda import preprocess_corda
from transformers import AutoTokenizer

from plumbob.configs.settings.models import AlignedPolicySettings
from plumbob.configs.settings.tuning.adapters import LoraTuning
from plumbob.core.errors import UserError
from plumbob.models.tuning.methods import method_of, open_tunable
from tests.support.carried_adapters import base_of, move
from tests.support.role_logprobs import plain, response
from tests.support.tiny_policy import write_policy


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_policy(tmp_path_factory.mktemp("policy"))


def begun(folder: str, kind: str) -> PeftModel:
    """A new adapter that began as parts of the base's weights, on the base without them."""
    torch.manual_seed(0)
    base = base_of(folder)
    asked = LoraConfig(
        r=4,
        lora_alpha=10,
        target_modules=["q_proj"],
        init_lora_weights=kind,
        loftq_config=LoftQConfig() if kind == "loftq" else {},
        corda_config=CordaConfig() if kind == "corda" else None,
        task_type="CAUSAL_LM",
    )
    if kind == "corda":
        texts = torch.randint(2, 280, (16, 1, 64))
        preprocess_corda(base, asked, run_model=lambda: [base(text) for text in texts])
    return get_peft_model(base, asked)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["pissa", "pissa_niter_4", "olora", "corda"])
def test_the_way_out_of_an_init_that_changes_the_base(folder: str, tmp_path: Path, kind: str) -> None:
    """What the refusal advises: PEFT's own conversion is plain LoRA, and starts as what was trained, to 1e-5."""
    model = begun(folder, kind)
    model.peft_config["default"].init_lora_weights = True
    model.save_pretrained(str(tmp_path / "initial"))
    model.peft_config["default"].init_lora_weights = kind
    move(model)
    model.save_pretrained(str(tmp_path / "as-is"))
    model.save_pretrained(
        str(tmp_path / "converted"), path_initial_model_for_weight_conversion=str(tmp_path / "initial")
    )
    with pytest.raises(UserError, match="save it as plain LoRA where it was trained"):
        open_tunable(AlignedPolicySettings(model=str(tmp_path / "as-is")), ("policy",))
    opened = open_tunable(AlignedPolicySettings(model=str(tmp_path / "converted")), ("policy", "reference"))
    tuned = method_of(LoraTuning()).policy(opened, ("policy", "reference"), 0)
    for role in ("policy", "reference"):
        torch.testing.assert_close(response(tuned, role), plain(model), rtol=0, atol=1e-5)


def use_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """PEFT asks for a CUDA device for what LoftQ does, which bitsandbytes does on a CPU as well."""
    for kind in (torch.Tensor, Params4bit):

        def to(tensor: Any, *given: Any, real: Any = kind.to, **named: Any) -> Any:
            named = {name: "cpu" if value == "cuda" else value for name, value in named.items()}
            return real(tensor, *("cpu" if value == "cuda" else value for value in given), **named)

        monkeypatch.setattr(kind, "to", to)


@pytest.mark.filterwarnings("ignore")
def test_the_ways_out_of_loftq(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both that the refusal advises compute what was trained, to 1e-5: the changed base, and the merged model."""
    use_the_cpu(monkeypatch)
    model = begun(folder, "loftq")
    move(model)
    model.save_pretrained(str(tmp_path / "as-is"))
    with pytest.raises(UserError, match="save the base that LoftQ changed"):
        open_tunable(AlignedPolicySettings(model=str(tmp_path / "as-is")), ("policy",))
    trained, tokenizer = plain(model), AutoTokenizer.from_pretrained(folder)
    assert (trained - plain(base_of(folder))).abs().max() > 0.1
    merged = PeftModel.from_pretrained(base_of(folder), str(tmp_path / "as-is")).merge_and_unload()
    model.unload().save_pretrained(str(tmp_path / "changed"))
    merged.save_pretrained(str(tmp_path / "merged"))
    for name in ("changed", "merged"):
        tokenizer.save_pretrained(str(tmp_path / name))
    config = tmp_path / "as-is/adapter_config.json"
    said = {"base_model_name_or_path": str(tmp_path / "changed"), "init_lora_weights": True}
    config.write_text(json.dumps(json.loads(config.read_text()) | said))
    for name in ("as-is", "merged"):
        opened = open_tunable(AlignedPolicySettings(model=str(tmp_path / name)), ("policy", "reference"))
        tuned = method_of(LoraTuning()).policy(opened, ("policy", "reference"), 0)
        for role in ("policy", "reference"):
            torch.testing.assert_close(response(tuned, role), trained, rtol=0, atol=1e-5)
