"""What the settings of soft prompts refuse, and what follows from them."""

from typing import Any

import pytest

from plumbob.configs.load_run import load_run
from plumbob.configs.settings.models import ModelRef, PipelinePolicySettings
from plumbob.core.errors import UserError
from tests.unit.configs.settings.tuning.test_adapters import DPO, SFT, refused


@pytest.mark.parametrize("kind", ["prompt-tuning", "p-tuning", "prefix-tuning"])
def test_its_tokens_are_known_to_whoever_opens_the_model(kind: str) -> None:
    for preset, given in (("sft", SFT), ("dpo", DPO)):
        run: Any = load_run(preset, [*given, f"policy.tuning={{kind: {kind}, num_virtual_tokens: 7}}"])
        assert run.policy.ref.num_virtual_tokens == 7
        assert (run.policy.tuning.published_rank, run.policy.tuning.is_plain_lora) == (0, False)
    tuning = {"kind": kind, "num_virtual_tokens": 7}
    pipeline = PipelinePolicySettings.model_validate({"model": "m", "sft_tuning": tuning})
    assert isinstance(pipeline.ref, ModelRef) and pipeline.ref.num_virtual_tokens == 7


@pytest.mark.parametrize(
    ("tuning", "wanted"),
    [
        ("{kind: prompt-tuning, init: text}", "policy.tuning.init=text and policy.tuning.init_text go together"),
        ("{kind: prompt-tuning, init_text: a}", "policy.tuning.init=vocabulary and policy.tuning.init_text go"),
        ("{kind: prompt-tuning, num_virtual_tokens: 0}", "expected a number greater than 0, found 0"),
        ("{kind: prefix-tuning, hidden_size: 8}", "is of the network that policy.tuning.projection=true trains"),
        ("{kind: p-tuning, encoder: gru}", "policy.tuning.encoder: expected"),
    ],
)
def test_what_makes_no_sense_is_refused(tuning: str, wanted: str) -> None:
    assert wanted in refused("sft", *SFT, f"policy.tuning={tuning}")


def test_a_base_in_4_bits_may_read_one() -> None:
    load_run("sft", [*SFT, "policy.tuning={kind: p-tuning}", "policy.quantization={kind: nf4}"])
    with pytest.raises(
        UserError, match="is for LoRA that begins at random, AdaLoRA, bottleneck adapters and soft prompts"
    ):
        load_run("sft", [*SFT, "policy.tuning={kind: ia3}", "policy.quantization={kind: nf4}"])
