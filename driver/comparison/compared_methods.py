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


FLOATS = "policy.quantization=null"
LORA = (
    FLOATS,
    "policy.tuning.kind=lora",
    "policy.tuning.use_rslora=false",
    "policy.tuning.use_dora=false",
    "policy.tuning.init=default",
    "policy.tuning.rank_pattern={}",
    "policy.tuning.alpha_pattern={}",
)
"""Plain LoRA, whatever switches of it the run's own settings have."""

METHODS = (
    ComparedMethod("lora", LORA),
    ComparedMethod("rslora", (*LORA, "policy.tuning.use_rslora=true")),
    ComparedMethod("dora", (*LORA, "policy.tuning.use_dora=true")),
    ComparedMethod("pissa", (*LORA, "policy.tuning.init=pissa")),
    ComparedMethod("olora", (*LORA, "policy.tuning.init=olora")),
    ComparedMethod("adalora", (FLOATS, "policy.tuning.kind=adalora"), 5.0),
    ComparedMethod("qlora", (*LORA, "policy.quantization={kind: nf4}")),
    ComparedMethod("ia3", (FLOATS, "policy.tuning.kind=ia3"), 10.0),
    ComparedMethod("vera", (FLOATS, "policy.tuning.kind=vera"), 100.0),
    ComparedMethod("houlsby", (FLOATS, "policy.tuning.kind=bottleneck")),
    ComparedMethod("pfeiffer", (FLOATS, "policy.tuning.kind=bottleneck", "policy.tuning.placement=pfeiffer")),
    ComparedMethod("prompt", (FLOATS, "policy.tuning.kind=prompt-tuning"), 100.0),
    ComparedMethod("p-tuning", (FLOATS, "policy.tuning.kind=p-tuning"), 100.0),
    ComparedMethod("prefix", (FLOATS, "policy.tuning.kind=prefix-tuning"), 100.0),
    ComparedMethod("norms", (FLOATS, "policy.tuning.kind=selective", "policy.tuning.norms=true"), 5.0),
    ComparedMethod("full", (FLOATS, "policy.tuning.kind=full"), 0.1),
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
    settings = (f"policy.tuning.rank={rank}", f"policy.tuning.alpha={2 * rank}")
    return ComparedMethod(f"lora-rank-{rank}", (*LORA, *settings))
