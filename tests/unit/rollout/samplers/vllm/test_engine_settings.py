"""What vLLM is started with, on which the meaning of log-probs and the exactness of a repeat rest."""

from dataclasses import replace

import pytest

from plumbob.configs.settings.workers import VllmEngine
from plumbob.rollout.samplers.sampler import SamplerSpec
from plumbob.rollout.samplers.vllm.engine_settings import engine_arguments, environment, main_message
from tests.support.opened_models import policy_ref

ENGINE = VllmEngine(kv_cache_gib=0.25, gpu_memory_fraction=0.6, max_num_seqs=7)
SPEC = SamplerSpec(policy_ref("model"), "rollout-0", ENGINE, temperature=0.7, max_tokens=8, lora_rank=4, num_threads=3)


def test_logprobs_are_those_of_what_is_sampled_from() -> None:
    arguments = engine_arguments(SPEC, ENGINE, max_lora_rank=8, num_slots=4, on_cpu=True)
    assert arguments["logprobs_mode"] == "processed_logprobs"
    assert arguments["generation_config"] == "vllm"
    assert (arguments["model"], arguments["dtype"], arguments["max_num_seqs"]) == ("model", "float32", 7)


def test_memory_is_set_where_the_engine_is() -> None:
    cpu, gpu = (engine_arguments(SPEC, ENGINE, 0, 4, on_cpu) for on_cpu in (True, False))
    # A quarter of 2**30 bytes.
    assert cpu["kv_cache_memory_bytes"] == 268_435_456
    assert cpu["enable_chunked_prefill"] is False
    assert "gpu_memory_utilization" not in cpu
    assert gpu["gpu_memory_utilization"] == 0.6
    assert not {"kv_cache_memory_bytes", "enable_chunked_prefill"} & set(gpu)


def test_adapters_have_their_slots_where_any_will_be_loaded() -> None:
    with_adapters = engine_arguments(SPEC, ENGINE, 8, 4, True)
    # As many in memory as in slots: none is pushed out and loaded again unproven.
    assert with_adapters["enable_lora"] is True
    assert (with_adapters["max_lora_rank"], with_adapters["max_loras"], with_adapters["max_cpu_loras"]) == (8, 4, 4)
    assert not {name for name in engine_arguments(SPEC, ENGINE, 0, 4, True) if "lora" in name}


@pytest.mark.parametrize(("num_gpus", "backend"), [(1, "uni"), (2, "mp")])
def test_one_gpu_needs_no_other_process(num_gpus: int, backend: str) -> None:
    arguments = engine_arguments(replace(SPEC, tensor_parallel=num_gpus), ENGINE, 8, 4, False)
    assert (arguments["tensor_parallel_size"], arguments["distributed_executor_backend"]) == (num_gpus, backend)


def test_the_environment_keeps_a_person_s_log_level(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_LOGGING_LEVEL", raising=False)
    quiet = environment(SPEC, ENGINE)
    assert (quiet["VLLM_LOGGING_LEVEL"], quiet["OMP_NUM_THREADS"]) == ("WARNING", "3")
    assert quiet["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    assert quiet["TORCHDYNAMO_DISABLE"] == "1"
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "DEBUG")
    compiled = environment(SPEC, VllmEngine(enforce_eager=False))
    assert compiled["VLLM_LOGGING_LEVEL"] == "DEBUG"
    assert "TORCHDYNAMO_DISABLE" not in compiled


def test_an_error_is_told_by_its_sentence() -> None:
    pydantic = ValueError("1 validation error for ModelConfig\n  Value error, too long [type=value_error]\n    more")
    assert main_message(pydantic) == "Value error, too long [type=value_error]"
    assert main_message(ValueError("\n plain \n more")) == "plain"
    assert main_message(ValueError()) == "ValueError()"
