import pytest

from plumbob.core.errors import UserError
from plumbob.data.length_checks import check_context, check_limits


def test_prompt_and_response_must_fit_the_context() -> None:
    check_context(longest_prompt=192, max_new_tokens=64, max_positions=256)
    with pytest.raises(UserError, match=r"193 tokens.*rollout\.max_tokens=64, together 257.*256 positions.* to 192"):
        check_context(longest_prompt=193, max_new_tokens=64, max_positions=256)
    with pytest.raises(UserError, match=r"positions: lower data\.max_response_tokens$"):
        check_context(longest_prompt=1, max_new_tokens=256, max_positions=256, response_key="data.max_response_tokens")


def test_settings_must_fit_together() -> None:
    check_limits({"a.x": 60, "b.y": 40}, 100, "c.z")
    with pytest.raises(UserError, match=r"a\.x=60 \+ b\.y=41 = 101 tokens do not fit the 100 positions of c\.z"):
        check_limits({"a.x": 60, "b.y": 41}, 100, "c.z")
    with pytest.raises(UserError, match=r"^a\.x=101 tokens do not fit"):
        check_limits({"a.x": 101}, 100, "c.z")
