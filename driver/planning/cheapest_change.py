"""What would make a run fit its hosts' memory: changes of settings by what they cost, tried as the plan is made."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from plumbob.configs.load_run import build_run
from plumbob.configs.runs import AnyRun, PipelineRun
from plumbob.configs.settings.tuning.weights import WeightTuning
from plumbob.configs.settings.workers import LearnerSettings, VllmEngine
from plumbob.configs.yaml_files import Source, overridden
from plumbob.core.errors import UserError

LEAST_CACHE_GIB = 0.1

Fits = Callable[[AnyRun, Sequence[str]], bool]


@dataclass(frozen=True)
class SettingChange:
    """One way to take less memory.

    Attributes:
        variants: overrides, from the smallest change of it to the largest.
        cost: what is paid for it.
    """

    variants: tuple[str, ...]
    cost: str


@dataclass(frozen=True)
class FittingChange:
    """What was found to fit: all of the overrides together, with what each costs."""

    overrides: tuple[str, ...]
    costs: tuple[str, ...]


def changes_by_cost(run: AnyRun) -> Iterator[SettingChange]:
    """Those that change no result come first, then those that round, then those that learn something else."""
    learner, rollout, policy = run.learner, getattr(run, "rollout", None), getattr(run, "policy", None)
    if learner.micro_batch_size > 1:
        halves = _halves(learner.micro_batch_size)
        yield SettingChange(
            tuple(f"learner.micro_batch_size={size}" for size in halves),
            "no result changes; smaller products take longer",
        )
    if isinstance(learner, LearnerSettings) and not learner.gradient_checkpointing:
        yield SettingChange(
            ("learner.gradient_checkpointing=true",),
            "no result changes; each layer is computed twice, a third more of the learners' time",
        )
    if rollout is not None and isinstance(rollout.engine, VllmEngine) and rollout.num_gpus == 0:
        sizes: list[float] = []
        while (sizes[-1] if sizes else rollout.engine.kv_cache_gib) > LEAST_CACHE_GIB:
            sizes.append(max(LEAST_CACHE_GIB, (sizes[-1] if sizes else rollout.engine.kv_cache_gib) / 2))
        if sizes:
            yield SettingChange(
                tuple(f"rollout.engine.kv_cache_gib={size:g}" for size in sizes),
                "no result changes; fewer responses are sampled at once",
            )
        if rollout.adapter is None:
            yield SettingChange(
                ("rollout.adapter=lora",), "adapters stand beside the base's weights, and sampling takes longer"
            )
    if rollout is not None and rollout.num_workers > 1:
        yield SettingChange(("rollout.num_workers=1",), "one worker samples all: sampling takes longer")
    if not learner.autocast:
        yield SettingChange(("learner.autocast=true",), "matrix products are rounded to bfloat16")
    if policy is None:
        return
    tuning = getattr(policy, "tuning", None)
    is_whole = isinstance(tuning, WeightTuning)
    if not is_whole and not isinstance(run, PipelineRun) and getattr(policy, "quantization", "no") is None:
        yield SettingChange(("policy.quantization.kind=nf4",), "the frozen weights are rounded to 4 bits")
    if getattr(policy, "dtype", None) == "float32":
        yield SettingChange(("policy.dtype=bfloat16",), "weights are rounded to bfloat16")
    if is_whole:
        yield SettingChange(("policy.tuning.kind=lora",), "an adapter is trained instead of weights of the model")
    if rollout is not None and rollout.max_tokens > 1:
        yield SettingChange(
            tuple(f"rollout.max_tokens={size}" for size in _halves(rollout.max_tokens)[:3]), "responses are shorter"
        )
    if hasattr(run.data, "max_response_tokens"):
        yield SettingChange(
            tuple(f"data.max_response_tokens={size}" for size in _halves(run.data.max_response_tokens)[:3]),
            "records with longer responses are left out",
        )


def cheapest_change(run: AnyRun, fits: Fits) -> FittingChange | None:
    """The cheapest change that makes the run fit, or of single ones that do not the fewest together; None if none does.

    Args:
        fits: whether the run would, with these overrides; UserError where it is refused, which is no way then.
    """
    found = list(changes_by_cost(run))
    for change in found:
        for variant in change.variants:
            if _tried(run, [variant], fits):
                return FittingChange((variant,), (change.cost,))
    taken: list[tuple[str, str]] = []
    for change in found:
        if not _is_possible(run, [*(one for one, _ in taken), change.variants[-1]]):
            continue
        taken.append((change.variants[-1], change.cost))
        if _tried(run, [one for one, _ in taken], fits):
            return _without_idle(run, taken, fits)
    return None


def changed(run: AnyRun, overrides: Sequence[str]) -> AnyRun:
    """The run with these settings. Raises UserError where they do not go together."""
    return build_run(overridden(Source("the run", run.model_dump(mode="json")), overrides))


def _without_idle(run: AnyRun, taken: list[tuple[str, str]], fits: Fits) -> FittingChange:
    """Without those that it fits without, the costliest first."""
    for change in reversed(taken):
        others = [one for one in taken if one != change]
        if _tried(run, [override for override, _ in others], fits):
            taken = others
    return FittingChange(tuple(override for override, _ in taken), tuple(cost for _, cost in taken))


def _tried(run: AnyRun, overrides: Sequence[str], fits: Fits) -> bool:
    try:
        return fits(changed(run, overrides), overrides)
    except UserError:
        return False


def _is_possible(run: AnyRun, overrides: Sequence[str]) -> bool:
    try:
        changed(run, overrides)
    except UserError:
        return False
    return True


def _halves(number: Any) -> list[int]:
    """Down to 1."""
    found = []
    while number > 1:
        number //= 2
        found.append(number)
    return found
