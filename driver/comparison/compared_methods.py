"""Which methods are compared (`METHODS`), and what each changes in the settings of a run."""

from collections.abc import Sequence
from dataclasses import dataclass

from plumbob.configs.validation import nearest
from plumbob.core.errors import UserError

Overrides = tuple[str, ...]


@dataclass(frozen=True)
class ComparedMethod:
    """A method of fine-tuning, as a change of a run's settings.

    Attributes:
        name: of its row, and of its run's folder.
        overrides: `a.b=c` that make the run train by it.
        rate_factor: its learning rate, of that of LoRA.
    """

    name: str
    overrides: Overrides = ()
    rate_factor: float = 1.0


METHODS = (
    ComparedMethod("lora", ("policy.tuning.kind=lora",)),
    ComparedMethod("rslora", ("policy.tuning.kind=lora", "policy.tuning.use_rslora=true")),
    ComparedMethod("dora", ("policy.tuning.kind=lora", "policy.tuning.use_dora=true")),
    ComparedMethod("pissa", ("policy.tuning.kind=lora", "policy.tuning.init=pissa")),
    ComparedMethod("olora", ("policy.tuning.kind=lora", "policy.tuning.init=olora")),
    ComparedMethod("qlora", ("policy.tuning.kind=lora", "policy.quantization.kind=nf4")),
    ComparedMethod("ia3", ("policy.tuning.kind=ia3",), 10.0),
    ComparedMethod("vera", ("policy.tuning.kind=vera",), 10.0),
    ComparedMethod("houlsby", ("policy.tuning.kind=bottleneck",)),
    ComparedMethod("pfeiffer", ("policy.tuning.kind=bottleneck", "policy.tuning.placement=pfeiffer")),
    ComparedMethod("prompt", ("policy.tuning.kind=prompt-tuning",), 100.0),
    ComparedMethod("p-tuning", ("policy.tuning.kind=p-tuning",), 100.0),
    ComparedMethod("prefix", ("policy.tuning.kind=prefix-tuning",), 100.0),
    ComparedMethod("norms", ("policy.tuning.kind=selective", "policy.tuning.norms=true"), 5.0),
    ComparedMethod("full", ("policy.tuning.kind=full",), 0.1),
)
"""Those that a comparison makes unless it is told others. A factor is what papers use for the method, beside LoRA."""

FULL = METHODS[-1]


def chosen_methods(names: Sequence[str], own: Sequence[str]) -> tuple[ComparedMethod, ...]:
    """The methods of these names, all where there is no name, and behind them the user's own.

    Args:
        own: as `NAME: a.b=c a.b=c`.

    Raises:
        UserError: there is no such method, or one is not written so.
    """
    known = {method.name: method for method in METHODS}
    for name in names:
        if name not in known:
            close = nearest(name, list(known))
            hint = f"did you mean {close}? " if close else ""
            raise UserError(f"--methods {name}: {hint}the methods are {', '.join(known)}; of your own: --method")
    own_methods = [_own_method(text) for text in own]
    chosen = (*(known[name] for name in names or (() if own else known)), *own_methods)
    twice = sorted({method.name for method in chosen if sum(each.name == method.name for each in chosen) > 1})
    if twice:
        raise UserError(f"--method {twice[0]}: there is a method of that name already: give another name")
    return chosen


def _own_method(text: str) -> ComparedMethod:
    name, colon, settings = text.partition(":")
    if not colon or not name.strip().replace("-", "").isalnum() or not settings.split():
        raise UserError(f'--method {text}: expected a name and settings, such as "lora-32: policy.tuning.rank=32"')
    return ComparedMethod(name.strip(), tuple(settings.split()))


def of_rank(rank: int) -> ComparedMethod:
    """LoRA of that rank, scaled alike: alpha is twice the rank."""
    settings = ("policy.tuning.kind=lora", f"policy.tuning.rank={rank}", f"policy.tuning.alpha={2 * rank}")
    return ComparedMethod(f"lora-rank-{rank}", settings)
