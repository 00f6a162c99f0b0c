"""What an evaluation measured stands in the entries of a library's adapters, once for each that it measured."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from plumbob.configs.runs import EvalRun
from plumbob.configs.settings.models import ModelRef
from plumbob.data.prompts import EncodedPrompt
from plumbob.driver.measures.library_scores import note_scores
from plumbob.models.library.adapter_library import AdapterLibrary
from plumbob.models.library.adding import add_adapter
from plumbob.models.library.library_entry import ENTRY_FILE, TrainingFacts
from plumbob.models.loading import OpenedPolicy, open_policy
from tests.support.libraries import write_adapter
from tests.support.tiny_policy import write_policy

GIVEN = {"policy": {"model": "unread"}, "reward": {"model": "judge"}}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_policy(tmp_path_factory.mktemp("base"))


def opened(folder: Path) -> OpenedPolicy:
    return open_policy(ModelRef(str(folder), "policy.model"))


def test_scores_are_noted_in_the_place_of_the_same_evaluations(base: str, tmp_path: Path) -> None:
    library = AdapterLibrary(tmp_path / "adapters")
    add_adapter(library, write_adapter(tmp_path / "made", base), "sums", None, TrainingFacts())
    place = library.folder_of("sums")
    alone = tmp_path / "alone"
    shutil.copytree(place, alone, ignore=shutil.ignore_patterns(ENTRY_FILE))
    run = EvalRun.model_validate({**GIVEN, "data": {"prompts": "asked.jsonl"}})
    prompts = tuple(EncodedPrompt(text, text, np.zeros(1, np.int32)) for text in ("1 + 1", "2 + 2"))

    policies = {"sums": opened(place), "alone": opened(alone), "base": opened(Path(base))}

    def note(reward: float, asked: tuple[EncodedPrompt, ...] = prompts) -> tuple[str, ...]:
        found = {"reward": reward, "reward_gain_ci95": [0.0, 1.0], "num_prompts": 2, "win_rate": 0.75}
        return note_scores(run, asked, base, {name: (policy, found) for name, policy in policies.items()})

    assert note(0.5) == (f"sums: its scores are in the library's entry, {place}",)
    assert not (alone / ENTRY_FILE).exists()
    note(0.25, prompts[:1])
    note(1.5)
    second, first = library.entry("sums").evaluations
    assert (first.scores, second.scores) == (
        {"reward": 1.5, "win_rate": 0.75},
        {"reward": 0.25, "win_rate": 0.75},
    )
    assert (first.prompts.file, first.baseline) == ("asked.jsonl", base)
    assert first.prompts.digest != second.prompts.digest
    # A damaged entry takes nothing, and an evaluation does not end for it.
    (place / ENTRY_FILE).write_text("{")
    (told,) = note(2.0)
    assert told.startswith("sums: its scores are not in the library: ")
