"""Chat templates, which are programs from outside, run with bounds: of steps, of time and of what they write.

They run as transformers runs them, in jinja's sandbox and with the same helpers. The sandbox keeps them from the
process and from the disk, but not from a loop that never ends or a text that fills the memory, so the compiled template
spends from a budget: a step for each turn of a loop and each call of a macro, a letter for each that is written. What
makes a long text or list out of a short one at once (`*`, `+`, `~`, widths, replace, join) is measured before it is
done. So no single operation is long, and the time is looked at between them.
"""

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from functools import cache, wraps
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes, pass_context
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

MAX_SECONDS = 10.0
"""Of one dialogue."""

MAX_STEPS = 1_000_000
MAX_LETTERS = 2_000_000
"""What a template may write, or hold in one text: as much as half a million tokens."""

SLOW = ("wordwrap", "urlize", "striptags", "pprint")
"""Filters for web pages, whose time grows faster than the text."""

MAX_NUMBER = 100_000
"""The largest whole number that a call or a filter is given, such as a width; jinja bounds `range` by the same."""

MAX_BITS = 4096
_WIDTH = re.compile(r"\d{6,}")


@dataclass
class TemplateClock:
    """What templates take for the present; `was_read` once one has asked."""

    now: datetime
    was_read: bool = False


_CLOCK: ContextVar[TemplateClock | None] = ContextVar("template_clock", default=None)


@contextmanager
def template_time(now: datetime) -> Iterator[TemplateClock]:
    """Templates that write the date write this one inside: a run that is resumed on another day has the same texts."""
    clock = TemplateClock(now)
    token = _CLOCK.set(clock)
    try:
        yield clock
    finally:
        _CLOCK.reset(token)


@contextmanager
def template_trial() -> Iterator[None]:
    """Inside, a template is tried out to learn of it, at the same time: that it asks then says nothing of any text."""
    clock = _CLOCK.get()
    with template_time(datetime.now() if clock is None else clock.now):
        yield


def render(template: str, **values: Any) -> str:
    """What the template writes. Raises whatever it does, and OverflowError, as jinja, when it does too much."""
    return _compiled(template)(values)


@cache
def _compiled(template: str) -> Callable[[dict[str, Any]], str]:
    environment = _BoundedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols], optimized=False
    )
    if len(template) > MAX_LETTERS:
        raise OverflowError(f"it has more than {MAX_LETTERS:,} letters")
    compiled = environment.from_string(template)

    def rendered(values: dict[str, Any]) -> str:
        environment.begin()
        return compiled.render(**values)

    return rendered


class _Generation(Extension):
    """`{% generation %}` marks what the assistant writes; here it changes nothing."""

    tags = {"generation"}  # noqa: RUF012 - jinja's own form

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Spending(NodeTransformer):
    """Puts the filter `spend` on all that a parsed template writes, and `joined` in the place of `~`."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802 - jinja's own form
        self.generic_visit(node)
        node.body.insert(0, nodes.Output([_spending(nodes.Const(""))]))
        return node

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.body.insert(0, nodes.Output([_spending(nodes.Const(""))]))
        return node

    def visit_Output(self, node: nodes.Output) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        written = (nodes.Const(one.data) if isinstance(one, nodes.TemplateData) else one for one in node.nodes)
        node.nodes = [_spending(one) for one in written]
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return nodes.Call(nodes.EnvironmentAttribute("joined"), list(node.nodes), [], None, None)


def _spending(written: nodes.Expr) -> nodes.Expr:
    return nodes.Filter(written, "spend", [], [], None, None)


class _BoundedEnvironment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"*", "**", "+", "%"})

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.filters = {name: self._bounded(name, one) for name, one in self.filters.items() if name not in SLOW}
        self.filters["spend"] = self.spend
        self.filters["tojson"] = self._bounded("tojson", _tojson)
        del self.globals["lipsum"]
        self.globals |= {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
        self.begin()

    def begin(self) -> None:
        """A new budget."""
        self._steps = self._letters = 0
        self._until = time.monotonic() + MAX_SECONDS

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        _Spending().visit(tree)  # In place.
        return tree

    @pass_context  # Which also keeps jinja from calling it once, when it compiles.
    def spend(self, context: object, written: object) -> object:
        """A step, and the letters that are written."""
        self._steps += 1
        self._letters += len(written if isinstance(written, str) else str(written))
        if self._steps > MAX_STEPS or self._letters > MAX_LETTERS:
            raise OverflowError(
                f"it takes more than {MAX_STEPS:,} steps or writes more than {MAX_LETTERS:,} letters for one dialogue"
            )
        self._check_time()
        return written

    def joined(self, *parts: object) -> str:
        """`a ~ b`."""
        texts = [str(part) for part in parts]
        _check_size(sum(map(len, texts)))
        return "".join(texts)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        _check_operands(operator, left, right)
        return super().call_binop(context, operator, left, right)

    def call(self, context: Any, function: Any, *args: Any, **options: Any) -> Any:
        plain = getattr(function, "__wrapped__", function)  # jinja wraps a text's `format`.
        name, owner = getattr(plain, "__name__", ""), getattr(plain, "__self__", None)
        if owner is not self:
            self._check_time()
            text = [owner] if isinstance(owner, str) else []
            _check_arguments(name, *text, *args, *options.values())
        return _checked(super().call(context, function, *args, **options))

    def _bounded(self, name: str, filter_: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(filter_)  # With what jinja has noted on it, such as that it takes the environment.
        def bounded(*args: Any, **options: Any) -> Any:
            self._check_time()
            taken = [list(one) if isinstance(one, Iterator | range) else one for one in args]
            _check_arguments(name, *taken, *options.values())
            return _checked(filter_(*taken, **options))

        return bounded

    def _check_time(self) -> None:
        if time.monotonic() > self._until:
            raise OverflowError(f"it takes more than {MAX_SECONDS:g} s for one dialogue")


def _check_operands(operator: str, left: Any, right: Any) -> None:
    match operator, left, right:
        case "*", int(), int():
            _check_bits(left.bit_length() + right.bit_length())
        case "*", int() as times, str() | list() | tuple() as what:
            _check_size(len(what) * max(times, 0))
        case "*", str() | list() | tuple() as what, int() as times:
            _check_size(len(what) * max(times, 0))
        case "**", int(), int():
            _check_bits(left.bit_length() * max(right, 1))
        case "+", str() | list() | tuple(), str() | list() | tuple():
            _check_size(len(left) + len(right))
        case "%", str(), _:
            _check_arguments("%", left)


def _check_arguments(name: str, *arguments: Any) -> None:
    """What of a call makes much out of little: widths, texts put in the place of others, texts joined."""
    for argument in arguments:
        if isinstance(argument, int) and abs(argument) > MAX_NUMBER:
            raise OverflowError(f"it calls {name} with the number {argument if abs(argument) < 10**20 else '...'}")
    texts = [argument for argument in arguments if isinstance(argument, str)]
    match name, texts:
        case "%", [form] if "*" in form:
            raise OverflowError("it asks for a text of a width that is not written")
        case "replace", [text, old, new, *_]:
            _check_size(len(text) + text.count(old) * len(new))
        case "join", _:
            items = [item for argument in arguments if isinstance(argument, list | tuple) for item in argument]
            _check_size(sum(len(str(item)) for item in items) + len(items) * max(map(len, texts), default=0))
        case "format" | "%" | "format_map", [form, *_] if _WIDTH.search(form):
            raise OverflowError("it asks for a text of such a width")
        case _:
            pass


def _checked(result: Any) -> Any:
    if isinstance(result, str | list | tuple | dict):
        _check_size(len(result))
    return result


def _check_size(size: int) -> None:
    if size > MAX_LETTERS:
        raise OverflowError(f"it makes a text or a list of more than {MAX_LETTERS:,}")


def _check_bits(bits: int) -> None:
    if bits > MAX_BITS:
        raise OverflowError(f"it makes a number of more than {MAX_BITS:,} bits")


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As transformers has it: jinja's own writes `<` and `'` otherwise."""
    if isinstance(indent, int):
        indent = min(indent, 100)
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _strftime_now(form: str) -> str:
    clock = _CLOCK.get()
    if clock is None:
        return datetime.now().strftime(form)
    clock.was_read = True
    return clock.now.strftime(form)
