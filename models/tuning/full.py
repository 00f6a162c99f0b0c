"""Training all weights as a tuning method."""

from typing import TYPE_CHECKING

from plumbob.configs.settings.models import NewLlamaSettings
from plumbob.models.adapter import ModelRole
from plumbob.models.loading import OpenedPolicy, check_full
from plumbob.models.tuning.adapter_support import AdapterSupport

if TYPE_CHECKING:
    from plumbob.models.policy import PolicyModel


class FullMethod:
    """Every weight is trained; there is no second role on the same base."""

    def check(self, opened: OpenedPolicy, setting: str, roles: tuple[ModelRole, ...], support: AdapterSupport) -> None:
        check_full(opened, setting)

    def check_new(self, spec: NewLlamaSettings, setting: str, support: AdapterSupport) -> None: ...

    def policy(self, opened: OpenedPolicy, roles: tuple[ModelRole, ...], seed: int) -> "PolicyModel":
        assert roles == ("policy",), "a fully trained base is nothing but the policy"
        from plumbob.models.tuning.roles import full_policy

        return full_policy(opened)
