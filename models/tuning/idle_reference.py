"""A reference that is a model of its own, in main memory while nobody asks it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from plumbob.models.policy import PolicyModel


class IdleReference:
    """Takes the reference of a policy to main memory, and back to the policy's device while it is needed.

    Args:
        policy: one whose own weights are trained, on its device.
    """

    def __init__(self, policy: PolicyModel) -> None:
        self._reference = policy.role_models["reference"]
        self._device = next(policy.causal_lm.parameters()).device
        self._reference.to(torch.device("cpu"))

    @contextmanager
    def present(self) -> Iterator[None]:
        """Where the policy is, until the block ends. It is frozen, and has no graph to lose."""
        self._reference.to(self._device)
        try:
            yield
        finally:
            self._reference.to(torch.device("cpu"))


def idle_reference(policy: torch.nn.Module) -> IdleReference | None:
    """None where the policy's own base is the reference, or it has none."""
    is_own = isinstance(policy, PolicyModel) and "reference" in policy.role_models
    return IdleReference(policy) if is_own else None  # type: ignore[arg-type]
