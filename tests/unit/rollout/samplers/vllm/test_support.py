"""What runs are told of vLLM's architectures before it is started, against the source of the installed vLLM."""

import ast
import importlib.util
from functools import cache
from pathlib import Path

import pytest

from plumbob.configs.settings.tuning.adapters import LoraTuning
from plumbob.configs.settings.workers import TransformersEngine, VllmEngine
from plumbob.core.errors import UserError
from plumbob.models.tuning.methods import check_served, method_of
from plumbob.rollout.samplers.open_sampler import support_of
from plumbob.rollout.samplers.vllm.support import VLLM_SUPPORT
from tests.support.opened_models import opened_policy

MODELS = "vllm.model_executor.models"


@cache
def file_of(module: str) -> Path | None:
    """Of a module of vLLM's, which is read and not imported: that would take a minute."""
    found = importlib.util.find_spec("vllm")
    assert found is not None and found.origin is not None
    path = Path(found.origin).parent.joinpath(*module.split(".")[1:])
    return next((each for each in (path.with_suffix(".py"), path / "__init__.py") if each.is_file()), None)


@cache
def nodes_of(file: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(file.read_text())))


def takes_lora(module: str, name: str) -> bool:
    """Whether a class derives from SupportsLoRA."""
    if name == "SupportsLoRA":
        return True
    file = file_of(module)
    if file is None:
        return False
    for node in nodes_of(file):
        if isinstance(node, ast.ClassDef) and node.name == name:
            return any(takes_lora(module, base.id) for base in node.bases if isinstance(base, ast.Name))
    imports = [node for node in nodes_of(file) if isinstance(node, ast.ImportFrom)]
    named = [node for node in imports if name in [each.asname or each.name for each in node.names]]
    # Some have a class for each platform: what one of them serves is not refused.
    return any(takes_lora(_imported(module, node, file), name) for node in named)


def _imported(module: str, node: ast.ImportFrom, file: Path) -> str:
    num_dropped = node.level - (file.name == "__init__.py")
    above = module.split(".")[: -num_dropped or None] if node.level else []
    return ".".join([*above, *filter(None, [node.module])])


def registered() -> dict[str, tuple[str, str]]:
    """Architecture -> module and class."""
    file = file_of(f"{MODELS}.registry")
    assert file is not None
    for node in nodes_of(file):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_TEXT_GENERATION_MODELS":
            places = ast.literal_eval(node.value)
            return {
                name: (module if module.startswith("vllm.") else f"{MODELS}.{module}", cls)
                for name, (module, cls) in places.items()
            }
    raise AssertionError("vLLM's registry has another form now")


def test_architectures_that_vllm_serves_without_lora() -> None:
    causal = {name: place for name, place in registered().items() if "CausalLM" in name or "LMHead" in name}
    without = {name for name, place in causal.items() if not takes_lora(*place)}
    assert without == VLLM_SUPPORT.without_adapters
    assert {"LlamaForCausalLM", "Qwen3ForCausalLM", "MistralForCausalLM"} <= causal.keys() - without


def test_gpt2_is_refused_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}')
    opened = opened_policy(tmp_path)
    wanted = f"policy.model={tmp_path}: vLLM serves no LoRA on GPT2LMHeadModel; set rollout.engine.kind=transformers"
    vllm = support_of(VllmEngine())
    for check in (
        lambda: check_served(opened, vllm),
        lambda: method_of(LoraTuning()).check(opened, "policy.tuning", ("policy",), vllm),
    ):
        with pytest.raises(UserError) as refused:
            check()
        assert str(refused.value) == wanted
    check_served(opened, support_of(TransformersEngine()))


def test_gpt2_is_merged_and_what_was_never_read_back_is_not(tmp_path: Path) -> None:
    merged = support_of(VllmEngine(), "merged")
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}')
    check_served(opened_policy(tmp_path), merged)
    (tmp_path / "config.json").write_text('{"model_type": "opt", "architectures": ["OPTForCausalLM"]}')
    wanted = r"merged in vLLM into GPT2LMHeadModel, .* and this is OPTForCausalLM; set rollout\.adapter=lora$"
    with pytest.raises(UserError, match=wanted):
        check_served(opened_policy(tmp_path), merged)
