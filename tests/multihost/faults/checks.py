"""What a run must have left, whatever happened to it."""

from collections import Counter
from pathlib import Path

from models.adapters import WEIGHTS_FILE
from tests.small_run import Left

LARGEST_GAP = 1e-4
"""Nats between the sampler's and the learner's log-prob of a token, in float32, where both hold one version."""


def check_complete(left: Left, num_prompts: int, samples_per_prompt: int) -> None:
    """Every prompt of the run was learnt from once, each group whole."""
    answers = Counter((row.position, row.sample_index) for _, row in left.journal)
    wanted = {(position, index) for position in range(num_prompts) for index in range(samples_per_prompt)}
    assert set(answers) == wanted, f"lost {wanted - set(answers)}, foreign {set(answers) - wanted}"
    assert set(answers.values()) == {1}, f"doubled {[key for key, count in answers.items() if count > 1]}"


def check_published(left: Left, max_staleness: int) -> None:
    """Each version that was sampled from was the learner's own, and none older than allowed."""
    for line in left.metrics:
        metrics = line["metrics"]
        assert metrics["staleness_max"] <= max_staleness, line
        if metrics["staleness_max"] == 0:
            assert metrics["sampler_gap_max"] < LARGEST_GAP, line


def check_equal(left: Left, undisturbed: Left) -> None:
    """The same figures at every step, and the same bytes at the end."""
    assert left.untimed == undisturbed.untimed
    ours, theirs = ((Path(each.policy) / WEIGHTS_FILE).read_bytes() for each in (left, undisturbed))
    assert ours == theirs, "the policies differ"
