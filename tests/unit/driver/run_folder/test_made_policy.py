"""Which policy RUN_OR_FOLDER means, where it is none that can be looked at."""

import pytest

from plumbob.core.errors import UserError
from plumbob.driver.run_folder.made_policy import find_policy


@pytest.mark.parametrize("text", ["~nosuchuser/policy", f"{'x' * 300}/model", "x" * 300])
def test_a_path_that_cannot_be_is_told_in_one_message(text: str) -> None:
    with pytest.raises(UserError, match=r"^[~\w/.]+: cannot be looked (at|for): "):
        find_policy(text)


def test_a_name_on_a_hub_stays() -> None:
    assert find_policy("no-such-team/model") == "no-such-team/model"
