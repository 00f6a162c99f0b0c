"""What the settings of data refuse."""

import pytest

from plumbob.configs.load_run import load_run
from plumbob.core.errors import UserError

SFT = ["policy.model=m", "data.demonstrations=d"]


@pytest.mark.parametrize(("template", "times"), [("Question:", 0), ("{prompt} {prompt}", 2), ("{ prompt }", 0)])
def test_a_prompt_template_has_the_prompt_once(template: str, times: int) -> None:
    with pytest.raises(UserError, match=rf"data\.prompt_template.*has {{prompt}} {times} times.*stands for the prompt"):
        load_run("sft", [*SFT, f"data.prompt_template='{template}'"])


def test_other_braces_of_a_prompt_template_are_its_own() -> None:
    run = load_run("sft", [*SFT, 'data.prompt_template=\'{"q": "{prompt}"}\''])
    assert run.data.prompt_template == '{"q": "{prompt}"}'  # type: ignore[union-attr]
