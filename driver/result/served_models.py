"""What a server of policies holds (`ServedModels`): a model, and adapters beside it, each under its name."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from plumbob.configs.base import Dtype
from plumbob.configs.settings.models import ModelRef
from plumbob.core.errors import UserError
from plumbob.driver.run_folder.made_policy import find_policy, short_name
from plumbob.models.adapter import load_adapter, save_adapter
from plumbob.models.library.base_digest import known_base
from plumbob.models.loading import OpenedPolicy, open_policy
from plumbob.models.merging.merged_model import MERGED_TYPES, write_merged
from plumbob.models.resolution import read_adapter_config, served_rank
from plumbob.models.tuning.methods import check_served
from plumbob.rollout.samplers.vllm.support import VLLM_SUPPORT


@dataclass(frozen=True)
class ServedModels:
    """A model as vLLM's server is given it.

    Attributes:
        ref: the full model, a folder or hub name.
        name: what clients call it.
        tokenizer: folder or hub name.
        adapters: what clients call an adapter -> its folder.
        rank: the largest of the adapters'.
        notes: sentences about how the policies are served.
    """

    ref: ModelRef
    name: str
    tokenizer: str
    adapters: Mapping[str, str]
    rank: int
    notes: tuple[str, ...]


def served_models(policy: str, name: str | None, also: Mapping[str, str], dtype: Dtype, folder: Path) -> ServedModels:
    """Open the policies, and lay out what vLLM is to read.

    An adapter that vLLM computes with stands beside its base, which is served too; any other is merged into it, where
    weights can hold it.

    Args:
        policy: as `find_policy` takes it.
        name: what it is called; None takes its run's or its folder's name.
        also: name -> further adapters on the same base.
        folder: an empty one, for adapters and merged weights, which has to stay while they are served.

    Raises:
        UserError: one is no model that writes text, vLLM serves none like it, or two have one name.
    """
    opened = _open(policy, "RUN_OR_FOLDER", dtype)
    own_name = name or short_name(opened.ref.name)
    if own_name in also:
        raise UserError(
            f"--also {own_name}={also[own_name]}: {opened.ref.name} is called {own_name} itself: give one of them "
            f"another name, here or by --name"
        )
    others = {each: _open(given, f"--also {each}", dtype) for each, given in also.items()}
    for each in others.values():
        _check_beside(each, opened)
    reason = None if opened.source.adapter is None else _not_beside(opened)
    if reason is not None and others:
        raise UserError(f"{reason} (merged it could be served, but with no adapters beside it: leave --also out)")
    if reason is not None:
        return _merged(opened, own_name, folder, reason)
    adapters = {} if opened.source.adapter is None else {own_name: opened}
    base_name = own_name if opened.source.adapter is None else short_name(opened.source.base)
    adapters |= others
    while base_name in adapters:
        base_name += "-base"
    folders = {}
    for index, (title, one) in enumerate(adapters.items()):
        assert one.source.adapter is not None, "what stands beside is an adapter"
        # As samplers have them written: the two files that vLLM reads, and no tokenizer of their own.
        folders[title] = str(folder / f"{index}")
        save_adapter(load_adapter(one.source.adapter), Path(folders[title]))
    rank = max((served_rank(one.source, new_rank=0) for one in adapters.values()), default=0)
    ref = replace(opened.ref, name=opened.source.base)
    return ServedModels(ref, base_name, opened.source.tokenizer_folder, folders, rank, _notes(opened))


def _open(text: str, setting: str, dtype: Dtype) -> OpenedPolicy:
    return open_policy(ModelRef(find_policy(text), setting, dtype=dtype))


def _not_beside(opened: OpenedPolicy) -> str | None:
    """Why vLLM does not compute with an adapter beside its base; None where it does."""
    try:
        check_served(opened, VLLM_SUPPORT)
    except UserError as error:
        return str(error)
    return None


def _check_beside(other: OpenedPolicy, policy: OpenedPolicy) -> None:
    """Raises UserError where an adapter cannot stand beside the policy in one engine."""
    if other.source.adapter is None:
        raise UserError(f"{other.ref}: is a full model; a server has one, and adapters beside it: serve it alone")
    if known_base(other.source.base) != known_base(policy.source.base):
        raise UserError(
            f"{other.ref}: is on the base {other.source.base}, and {policy.ref.name} on {policy.source.base}: a "
            f"server has one base: serve it alone"
        )
    reason = _not_beside(other)
    if reason is not None:
        raise UserError(reason)


def _merged(opened: OpenedPolicy, name: str, folder: Path, reason: str) -> ServedModels:
    assert opened.source.adapter is not None, "only an adapter is merged"
    if read_adapter_config(opened.source.adapter).get("peft_type") not in MERGED_TYPES:
        raise UserError(f"{reason} (nor can it be merged; `plumbob chat` computes with it)")
    model = folder / "merged"
    proof = write_merged(load_adapter(opened.source.adapter), opened, model, None, None)
    note = f"{name}: merged into its base, since vLLM does not compute with it beside; logits differ by {proof.gap:.1g}"
    return ServedModels(replace(opened.ref, name=str(model)), name, str(model), {}, 0, (note, *_notes(opened)))


def _notes(opened: OpenedPolicy) -> tuple[str, ...]:
    if opened.tokenizer.chat_template is None:
        return ("the tokenizer has no chat template: /v1/completions alone, on prompts as text",)
    return ()
