"""What a server is given of a policy: beside its base, or merged where vLLM computes with it no other way."""

from pathlib import Path
from typing import Any

import pytest
from peft import IA3Config

from plumbob.configs.settings.workers import VllmEngine
from plumbob.core.errors import UserError
from plumbob.driver.result.served_models import served_models
from plumbob.models.adapter import load_adapter, save_adapter
from plumbob.rollout.samplers.sampler import SamplerSpec
from plumbob.rollout.samplers.vllm.server_program import server_command, server_environment
from tests.support.libraries import write_adapter, write_other_base
from tests.support.opened_models import policy_ref
from tests.support.plain_transformers import load_plain, plain_logprobs
from tests.support.published_adapters import of_config


def test_adapters_stand_beside_their_base_under_names(adapter: str, base: str, tmp_path: Path) -> None:
    other = str(write_adapter(tmp_path / "other", base, seed=2, rank=12))
    (tmp_path / "served").mkdir()
    served = served_models(adapter, "mine", {"its": other}, "float32", tmp_path / "served")
    assert (served.ref.name, served.name, served.tokenizer, served.rank) == (base, "base", base, 12)
    assert list(served.adapters) == ["mine", "its"] and served.notes == ()
    for name, folder in (("mine", adapter), ("its", other)):
        written, own = load_adapter(Path(served.adapters[name])), load_adapter(Path(folder))
        assert all((written.tensors[key] == tensor).all() for key, tensor in own.tensors.items())


def test_a_full_model_has_adapters_beside_it_and_its_own_name(adapter: str, base: str, tmp_path: Path) -> None:
    served = served_models(base, None, {"tuned": adapter}, "float32", tmp_path)
    assert (served.name, list(served.adapters)) == ("base", ["tuned"])
    # Two names that are one: the base gives way.
    assert served_models(adapter, "base", {}, "float32", tmp_path).name == "base-base"
    assert served_models(adapter, "base", {"base-base": adapter}, "float32", tmp_path).name == "base-base-base"


def test_what_vllm_does_not_compute_beside_is_merged(base: str, adapter: str, tmp_path: Path) -> None:
    factors = IA3Config(
        target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"], task_type="CAUSAL_LM"
    )
    scaled = tmp_path / "scaled"
    save_adapter(of_config(base, factors, 1), scaled)
    served = served_models(str(scaled), None, {}, "float32", tmp_path)
    assert (served.name, served.adapters, served.ref.name) == ("scaled", {}, str(tmp_path / "merged"))
    assert served.notes[0].startswith("scaled: merged into its base, since vLLM does not compute with it beside")
    ours, plain = (plain_logprobs(load_plain(one), [5, 6], [7, 8], 1.0) for one in (served.ref.name, str(scaled)))
    assert abs(ours - plain).max() < 1e-4
    with pytest.raises(UserError, match="leave --also out"):
        served_models(str(scaled), None, {"tuned": adapter}, "float32", tmp_path)


def test_what_one_server_cannot_hold_is_refused(adapter: str, base: str, tmp_path: Path) -> None:
    other_base = str(write_other_base(base, tmp_path / "other-base"))
    for also, message in (
        (base, "--also x=.*: is a full model; a server has one, and adapters beside it"),
        (str(write_adapter(tmp_path / "apart", other_base)), "is on the base .*other-base"),
    ):
        with pytest.raises(UserError, match=message):
            served_models(adapter, None, {"x": also}, "float32", tmp_path)


def test_no_policy_takes_the_place_of_the_one_that_was_asked_for(adapter: str, base: str, tmp_path: Path) -> None:
    other = str(write_adapter(tmp_path / "other", base, seed=2))
    for policy, name, taken in ((adapter, None, "tuned"), (adapter, "mine", "mine"), (base, None, "base")):
        with pytest.raises(UserError, match=f"^--also {taken}={other}: {policy} is called {taken} itself"):
            served_models(policy, name, {taken: other}, "float32", tmp_path)


def test_the_server_is_started_as_samplers_are() -> None:
    settings = VllmEngine(kv_cache_gib=0.25)
    spec = SamplerSpec(policy_ref("m"), "server", settings, 1.0, 1, lora_rank=12, tokenizer="t", num_threads=3)
    words = server_command(spec, settings, ("base", {"a": "/f/a"}), ("127.0.0.1", 81), 512, on_cpu=True)
    assert words[:4] == ["-m", "plumbob.rollout.samplers.vllm.server_program", "--model", "m"]
    options: dict[str, Any] = {word: words[index + 1] for index, word in enumerate(words[:-1])}
    expected = {
        "--served-model-name": "base",
        "--tokenizer": "t",
        "--max-lora-rank": "16",
        "--lora-modules": "a=/f/a",
        "--kv-cache-memory-bytes": "268435456",
        "--max-model-len": "512",
        "--host": "127.0.0.1",
        "--port": "81",
        "--dtype": "float32",
    }
    assert {name: options[name] for name in expected} == expected
    assert {"--enable-lora", "--enforce-eager", "--no-enable-chunked-prefill"} <= set(words)
    variables = server_environment(spec, settings, "secret")
    assert (variables["VLLM_API_KEY"], variables["OMP_NUM_THREADS"]) == ("secret", "3")
    assert "secret" not in " ".join(words) and "VLLM_ENABLE_V1_MULTIPROCESSING" not in variables
    assert "VLLM_API_KEY" not in server_environment(spec, settings, None)
