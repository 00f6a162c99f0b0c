"""What rollout workers do with adapters where the settings leave it open."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from plumbob.configs.settings.models import ModelRef
from plumbob.configs.settings.tuning.adapters import LoraTuning
from plumbob.configs.settings.workers import RolloutSettings, TransformersEngine
from plumbob.rollout.samplers.open_sampler import MERGED_ALONE, adapter_serving, serving_notes
from plumbob.rollout.samplers.sampler import SamplerSpec, open_sampler_model
from tests.support.opened_models import opened_policy
from tests.support.tiny_policy import write_policy

LLAMA = ("LlamaForCausalLM",)


@pytest.mark.parametrize(
    ("given", "dtype", "architectures", "serving"),
    [
        ({}, "float32", LLAMA, "merged"),
        # Merged weights would be rounded.
        ({}, "bfloat16", LLAMA, "lora"),
        # Whose weights nobody has read back.
        ({}, "float32", ("OPTForCausalLM",), "lora"),
        ({}, "float32", (), "lora"),
        ({"num_gpus": 1}, "float32", LLAMA, "lora"),
        ({"tensor_parallel": 2}, "float32", LLAMA, "lora"),
        ({"engine": {"kind": "vllm", "enforce_eager": False}}, "float32", LLAMA, "lora"),
        ({"engine": {"kind": "transformers"}}, "float32", LLAMA, "lora"),
        ({"adapter": "lora"}, "float32", LLAMA, "lora"),
        ({"adapter": "merged"}, "bfloat16", LLAMA, "merged"),
    ],
)
def test_adapters_are_merged_where_that_is_exact(
    given: dict[str, Any], dtype: Any, architectures: tuple[str, ...], serving: str
) -> None:
    assert adapter_serving(RolloutSettings(**given), dtype, architectures) == serving


@pytest.mark.parametrize(
    ("given", "dtype", "serving"),
    [
        ({}, "float32", "merged"),
        # Where plain LoRA would be computed beside the base, others are merged too, as long as that is exact.
        ({"num_gpus": 1}, "float32", "merged"),
        ({"num_gpus": 1}, "bfloat16", "lora"),
        ({"tensor_parallel": 2}, "float32", "lora"),
        ({"adapter": "lora"}, "float32", "lora"),
    ],
)
def test_adapters_that_vllm_cannot_compute_with_are_merged(given: dict[str, Any], dtype: Any, serving: str) -> None:
    assert adapter_serving(RolloutSettings(**given), dtype, LLAMA, plain_lora=False) == serving


def test_it_is_told_that_an_adapter_is_merged(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}')
    opened, dora = opened_policy(tmp_path), LoraTuning(use_dora=True)
    assert serving_notes(RolloutSettings(), opened, dora) == (MERGED_ALONE,)
    assert serving_notes(RolloutSettings(), opened, LoraTuning()) == ()
    transformers = RolloutSettings(engine={"kind": "transformers"})
    assert serving_notes(transformers, opened, dora) == ()


def test_a_tokenizer_from_elsewhere_is_no_adapter(tmp_path: Path) -> None:
    base = write_policy(tmp_path / "base")
    tokenizer = Path(shutil.copytree(base, tmp_path / "tokenizer", ignore=shutil.ignore_patterns("*.safetensors")))
    engine = TransformersEngine()
    spec = SamplerSpec(ModelRef(base, "policy.model"), "w", engine, 1.0, 8, 0, tokenizer=str(tokenizer))
    assert open_sampler_model(spec).num_positions == 256
    prompted = replace(spec, model=replace(spec.model, num_virtual_tokens=6))
    assert open_sampler_model(prompted).num_positions == 250
