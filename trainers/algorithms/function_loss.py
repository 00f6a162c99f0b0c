"""A loss on pairs that the user brings as a function: loaded, checked before a run starts, called (`function_loss`)."""

import sys
from collections.abc import Callable
from contextlib import redirect_stdout

import torch
from torch import Tensor

from plumbob.core.errors import RunFailed, UserError
from plumbob.core.programs.function_source import source_file
from plumbob.core.programs.users_code import Refused, load_function, users_lines

PairLoss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""log pi of the chosen and of the rejected responses, then both under pi_ref, each [B] -> losses [B]."""

KEY = "loss.function"
SAMPLES = (
    (-4.0, -6.5, -5.0, -6.0),
    (-12.0, -3.0, -11.0, -3.5),
    (-7.25, -7.0, -7.25, -7.0),
)
"""Pairs that a function is tried on: one that is preferred as it should be, one that is not, one that has not moved."""

RELATIVE, ABSOLUTE = 1e-9, 1e-9
"""How far a row's loss alone may be from its loss among others, in float64."""

_loaded: dict[str, PairLoss] = {}


def function_loss(function: str, logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """The losses of the pairs, [B].

    Args:
        function: as `load_loss` was given it.
        logprobs: log pi of each whole response, [B, 2], the chosen one in column 0.
        ref_logprobs: the same under pi_ref.

    Raises:
        RunFailed: it raised, or gave no tensor [B].
    """
    call = _loaded.get(function) or load_loss(function)
    try:
        losses = call(logprobs[:, 0], logprobs[:, 1], ref_logprobs[:, 0], ref_logprobs[:, 1])
    except Exception as error:
        lines = "".join(f"\n  {line}" for line in users_lines(error, __file__))
        raise RunFailed(f"{KEY}={function} raised {type(error).__name__}: {error}{lines}") from error
    if not isinstance(losses, Tensor):
        raise RunFailed(f"{KEY}={function} gave a {type(losses).__name__}; expected a tensor of {len(logprobs)} losses")
    if losses.shape != logprobs.shape[:1]:
        raise RunFailed(
            f"{KEY}={function} gave a tensor of shape {list(losses.shape)}; expected the losses of the pairs, one by "
            f"one: [{len(logprobs)}]"
        )
    return losses


def load_loss(function: str) -> PairLoss:
    """Import it from its source as that is now, for this process; what it prints goes to stderr.

    Raises:
        UserError: there is no such function on this host, or its import raises.
    """
    file, (module, _, name) = source_file(function, KEY), function.rpartition(":")
    try:
        with redirect_stdout(sys.stderr):
            found = load_function(str(file) if module.endswith(".py") else module, name)
    except Refused as error:
        raise UserError(f"{KEY}={function}: {error}") from error
    except Exception as error:
        lines = "".join(f"\n  {line}" for line in users_lines(error, __file__))
        raise UserError(f"{KEY}={function}: cannot be imported: {error}{lines}") from error
    _loaded[function] = found
    return found


def check_loss(function: str) -> None:
    """Try it on a few pairs, in this process.

    Raises:
        UserError: it cannot be imported, raises, gives no finite losses [B], gives a pair another loss alone than among
            others, or does not depend on the policy.
    """
    load_loss(function)
    pairs = torch.tensor(SAMPLES, dtype=torch.float64)
    logprobs, ref_logprobs = pairs[:, :2].clone().requires_grad_(), pairs[:, 2:]
    try:
        losses = function_loss(function, logprobs, ref_logprobs)
        alone = torch.cat(
            [function_loss(function, logprobs[i : i + 1], ref_logprobs[i : i + 1]) for i in range(len(pairs))]
        )
    except RunFailed as error:
        raise UserError(str(error)) from error
    given = f"the pairs {[list(pair) for pair in SAMPLES]}"
    if not losses.isfinite().all():
        raise UserError(f"{KEY}={function}: of {given} it gave {losses.tolist()}; expected finite losses")
    if not torch.allclose(losses, alone, rtol=RELATIVE, atol=ABSOLUTE):
        raise UserError(
            f"{KEY}={function}: of {given} it gave {losses.tolist()}, and of each alone {alone.tolist()}; a pair's "
            f"loss must not depend on which others are computed with it: return the losses, and no mean or sum of them"
        )
    gradient = torch.autograd.grad(losses.sum(), logprobs, allow_unused=True)[0] if losses.requires_grad else None
    if gradient is None or not gradient.isfinite().all() or not gradient.any():
        raise UserError(
            f"{KEY}={function}: nothing would be learnt: its gradient by log pi of {given} is "
            f"{'none' if gradient is None else gradient.tolist()}; compute with the tensors that it is given"
        )
