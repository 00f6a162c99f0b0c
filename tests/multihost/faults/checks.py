"""What a run must have left, whatever happened to it."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plumbob.models.adapter import WEIGHTS_FILE
from plumbob.trainers.learner.checkpoint import STATE_FILE, read_checkpoint
from tests.multihost.faults.policies import gaps
from tests.multihost.faults.stepped_run import SteppedRun
from tests.support.small_run import Left

LARGEST_GAP = 1e-4
"""Nats between the sampler's and the learner's log-prob of a token, in float32, where both hold one version."""


@dataclass(frozen=True)
class Undisturbed:
    """A run that nothing happened to.

    Attributes:
        files: step -> the files of its checkpoint, each with its size and digest.
    """

    left: Left
    files: Mapping[int, Mapping[str, Any]]


def follow(run: SteppedRun, num_steps: int) -> Undisturbed:
    """Lead a run to its end and look at each of its checkpoints before they are thrown away."""
    left = Left(run.folder)
    files = {}
    for step in range(1, num_steps + 1):
        run.run_past(step)
        files[step] = newest_files(left, step)
    run.run_to_end()
    return Undisturbed(left, files)


def newest_files(left: Left, step: int) -> Mapping[str, Any]:
    """Of the newest checkpoint, which must be whole and that of the step."""
    newest = read_checkpoint(left.last_checkpoint)
    assert newest.step == step, f"{newest.folder} where that of step {step} ought to be"
    files: Mapping[str, Any] = json.loads((newest.folder / STATE_FILE).read_text())["files"]
    return files


def check_complete(left: Left, num_prompts: int, samples_per_prompt: int) -> None:
    """Every prompt so far was learnt from once, each group whole."""
    responses = Counter((row.position, row.sample_index) for _, row in left.journal)
    wanted = {(position, index) for position in range(num_prompts) for index in range(samples_per_prompt)}
    assert set(responses) == wanted, f"lost {wanted - set(responses)}, foreign {set(responses) - wanted}"
    assert set(responses.values()) == {1}, f"doubled {[key for key, count in responses.items() if count > 1]}"


def check_published(left: Left, max_staleness: int, said: Sequence[str]) -> None:
    """Sampler and learner agree on the tokens of the learner's own version, and no token is older than allowed."""
    for line in left.metrics:
        assert line["metrics"]["staleness_max"] <= max_staleness, line
        assert line["metrics"]["sampler_gap_fresh"] < LARGEST_GAP, line
    assert not [message for message in said if "sampler and learner disagree" in message], said


def check_sampled(left: Left, step: int) -> None:
    """To the versions that they bear the step's responses are as likely, by plain transformers, as to the sampler.

    Of responses that are older than the learner's version no figure of the run's own says so.
    """
    for version, gap in gaps(left, step).items():
        assert gap < LARGEST_GAP, f"step {step}: {gap:.2g} nats between version {version} and what sampled as it"


def check_equal(left: Left, step: int, undisturbed: Undisturbed) -> None:
    """The same figures at every step so far, and the same bytes in the newest checkpoint, which has the policy."""
    check_same_lines(left.untimed, undisturbed.left.untimed[:step])
    assert newest_files(left, step) == undisturbed.files[step], f"the checkpoints of step {step} differ"


def check_same_lines(ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]]) -> None:
    assert [line["step"] for line in ours] == [line["step"] for line in theirs]
    for line, other in zip(ours, theirs, strict=True):
        assert line == other, f"{line} where it ought to be {other}"


def check_same_policy(left: Left, undisturbed: Left) -> None:
    """The same bytes at the end."""
    ours, theirs = ((Path(each.policy) / WEIGHTS_FILE).read_bytes() for each in (left, undisturbed))
    assert ours == theirs, "the policies differ"
