"""What the settings of data refuse."""

from pathlib import Path

import pytest

from plumbob.configs.load_run import load_run
from plumbob.configs.resume_rules import changes, may_change
from plumbob.configs.runs import SftRun
from plumbob.core.errors import UserError

SFT = ["policy.model=m", "data.demonstrations=d"]


@pytest.mark.parametrize(("template", "times"), [("Question:", 0), ("{prompt} {prompt}", 2), ("{ prompt }", 0)])
def test_a_prompt_template_has_the_prompt_once(template: str, times: int) -> None:
    with pytest.raises(UserError, match=rf"data\.prompt_template.*has {{prompt}} {times} times.*stands for the prompt"):
        load_run("sft", [*SFT, f"data.prompt_template='{template}'"])


def test_other_braces_of_a_prompt_template_are_its_own() -> None:
    run = load_run("sft", [*SFT, 'data.prompt_template=\'{"q": "{prompt}"}\''])
    assert run.data.prompt_template == '{"q": "{prompt}"}'  # type: ignore[union-attr]


def test_one_file_or_several_with_their_weights(tmp_path: Path) -> None:
    several = "data.mixture={b.jsonl: 1, a.jsonl: 3.5}"
    run = load_run("sft", ["policy.model=m", several])
    assert isinstance(run, SftRun) and list(run.data.weights.items()) == [("a.jsonl", 3.5), ("b.jsonl", 1)]
    assert load_run("sft", SFT).data.weights == {"d": 1.0}  # type: ignore[union-attr]
    file = tmp_path / "sft.yaml"
    file.write_text("kind: sft\npolicy: {model: m}\ndata:\n  mixture:\n    a.jsonl: 3\n    b/*.parquet: 1\n")
    assert load_run(str(file)).data.weights == {"a.jsonl": 3, "b/*.parquet": 1}  # type: ignore[union-attr]
    for overrides, message in (
        ([*SFT, several], r"^data\.demonstrations names one file and data\.mixture several .*: give one of them$"),
        (["policy.model=m"], r"^data\.demonstrations is missing: give data\.demonstrations=FILE, or data\.mixture="),
        (["policy.model=m", "data.mixture={a.jsonl: 0}"], r"data\.mixture\.a\.jsonl: expected a number greater than 0"),
        (["policy.model=m", "data.mixture={a.jsonl: lots}"], r"data\.mixture\.a\.jsonl: expected a number, found"),
        (["policy.model=m", "data.mixture=[a.jsonl]"], r"data\.mixture: expected a group of settings, found the list"),
    ):
        with pytest.raises(UserError, match=message):
            load_run("sft", overrides)


def test_a_mixture_does_not_change_when_a_run_resumes() -> None:
    assert not may_change(SftRun, "data.mixture./data/a.jsonl")
    assert changes({"data": {"mixture": {"/a": 1}}}, {"data": {"mixture": {"/a": 2}}}) == {"data.mixture./a": [1, 2]}
