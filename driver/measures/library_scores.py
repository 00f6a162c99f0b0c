"""What an evaluation measured of adapters of a library goes into their entries."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from plumbob.configs.runs import EvalRun
from plumbob.core.errors import UserError
from plumbob.data.prompts import EncodedPrompt
from plumbob.data.record_digest import digest_of
from plumbob.driver.measures.policy_metrics import Metrics
from plumbob.driver.run_folder.made_adapter import scores_of
from plumbob.models.library.library_entry import DataFile, Evaluation, LibraryEntry
from plumbob.models.loading import OpenedPolicy


def note_scores(
    run: EvalRun,
    prompts: tuple[EncodedPrompt, ...],
    baseline: str | None,
    measured: Mapping[str, tuple[OpenedPolicy, Metrics]],
) -> tuple[str, ...]:
    """Write them down, in the place of what the same evaluation measured before; a sentence about each adapter.

    Args:
        prompts: that were asked.
        baseline: what the policies were compared with.
        measured: name -> a policy and its metrics; one that is in no library is passed over.
    """
    asked = DataFile(file=run.data.prompts, digest=digest_of([prompt.text for prompt in prompts]))
    reward = run.reward.model or ", ".join(part.name for part in run.reward.weighted_parts)
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    notes = []
    for name, (opened, metrics) in measured.items():
        if opened.source.adapter is not None:
            found = Evaluation(prompts=asked, baseline=baseline, reward=reward, when=now, scores=scores_of(metrics))
            notes += _noted(name, opened.source.adapter, found)
    return tuple(notes)


def _noted(name: str, adapter: Path, found: Evaluation) -> list[str]:
    """What was measured is not lost with a library that cannot be written."""
    try:
        entry = LibraryEntry.read_beside(adapter)
        if entry is None:
            return []
        entry.with_evaluation(found).write(adapter)
    except (UserError, OSError) as error:
        return [f"{name}: its scores are not in the library: {error}"]
    return [f"{name}: its scores are in the library's entry, {adapter}"]
