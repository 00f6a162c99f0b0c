"""The time of whole runs, on a machine whose rates are given."""

import numpy as np
import pytest

from plumbob.configs.base import Dtype
from plumbob.configs.load_run import load_run
from plumbob.configs.settings.training import SftSettings
from plumbob.data.epoch_order import EpochBatches
from plumbob.driver.input_sizes.learner_rows import LearnerRows
from plumbob.driver.input_sizes.token_lengths import InputTokens, TokenLengths
from plumbob.driver.planning.durations.expected_time import LEARNER_S, RAY_S, VLLM_S, expected_time
from plumbob.driver.planning.durations.machine_rates import ComputeRates, MachineRates
from plumbob.driver.planning.durations.offline_stages import OfflineWork, offline_time
from plumbob.driver.planning.durations.response_lengths import ExpectedResponses, ResponseLengths
from plumbob.driver.planning.durations.run_time import RunTime, StageTime, in_words
from plumbob.driver.stages.stage import InputSizes
from plumbob.models.sizes.config_sizes import ModelSizes
from tests.unit.driver.planning.durations.test_work_costs import LEARNER


class FixedRates(MachineRates):
    """A machine with two cores that multiplies so many a second."""

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s

    @property
    def num_threads(self) -> int:
        return 2

    def computing(self, sizes: ModelSizes, dtype: Dtype, num_threads: int) -> ComputeRates:
        return ComputeRates(self._per_s, self._per_s)

    def reading(self, num_threads: int) -> float:
        return 1e12


def part(name: str, *lengths: int) -> TokenLengths:
    return TokenLengths(name, None, None, np.array(lengths, dtype=np.int64))


PAIRS = InputTokens("data.pairs", 3, 0, (part("prompt", 10, 20, 30), part("response", 4, 6, 8)), num_heldout=2)
PROMPTS = InputTokens("data.prompts", 2, 0, (part("prompt", 12, 14),), num_heldout=5)


def rows_of(number: int, length: int, batch_size: int) -> LearnerRows:
    return LearnerRows(length, np.full(number, length), EpochBatches(number, batch_size, 1, seed=0))


def toy_sizes() -> InputSizes:
    numbers = {"pretrain": (64, 32), "pretrain-encoder": (64, 64), "sft": (64, 32), "reward": (64, 32), "dpo": (64, 64)}
    return InputSizes((PAIRS, PROMPTS), {stage: rows_of(num, 20, batch) for stage, (num, batch) in numbers.items()})


def test_rows_are_learnt_and_held_out_ones_measured() -> None:
    settings = SftSettings(batch_size=4, evaluate_first=True, evaluate_every=2)
    work = OfflineWork(settings, sequences=2, predicted_share=0.25, num_references=1, num_heldout=3)
    found = offline_time("dpo", rows_of(10, 8, 4), work, LEARNER, start_s=5.0).parts
    # 3 steps of 4 rows of 2 sequences of 8 tokens, a quarter of them predicted.
    assert found["learn"] == pytest.approx(LEARNER.learn_s(192, 8, 48) + LEARNER.steps_s(3))
    assert found["data"] == pytest.approx(LEARNER.forward_s(192, 8, 48))
    # Before the first step, after the second and after the last, by policy and reference.
    assert found["evaluate"] == pytest.approx(3 * 2 * LEARNER.forward_s(48, 8, 12))
    assert found["start"] == 5.0


def test_responses_are_as_long_as_those_of_the_data() -> None:
    run = load_run("toy")
    known = ResponseLengths((PAIRS, PROMPTS), run.rollout)  # type: ignore[union-attr]
    assert known.expected == ExpectedResponses(prompt=13.0, mean=6.0, longest=8)
    assert known.response_share == 6 / (6 + 20)
    assert known.sentence == "sampled responses are taken to have 6 tokens, as those of data.pairs have on average"
    # Cut at the limit; and without any that long.
    short = load_run("toy", ["rollout.max_tokens=5"])
    assert ResponseLengths((PAIRS,), short.rollout).expected == ExpectedResponses(0.0, 5.0, 5)  # type: ignore[union-attr]
    assert ResponseLengths((PROMPTS,), short.rollout).expected == ExpectedResponses(13.0, 5, 5)  # type: ignore[union-attr]


def times(found: RunTime) -> dict[str, float]:
    return {stage.stage: stage.total_s for stage in found.stages}


def test_a_pipeline_has_each_stage_and_starts_workers_once() -> None:
    fast, slow = (expected_time(load_run("toy"), toy_sizes(), FixedRates(per_s)) for per_s in (1e18, 1e9))
    names = ["ray and the driver", "pretrain", "pretrain-encoder", "sft", "reward", "ppo", "dpo", "eval"]
    assert list(times(fast)) == list(times(slow)) == names
    # Where products cost nothing, starts are what is left, and steps.
    assert times(fast)["ray and the driver"] == RAY_S
    assert LEARNER_S < times(fast)["pretrain"] < LEARNER_S + 1
    assert VLLM_S < times(fast)["reward"] < VLLM_S + 5
    assert all(times(slow)[name] > times(fast)[name] for name in names[1:])
    assert fast.total_s == pytest.approx(sum(times(fast).values()))


@pytest.mark.parametrize(
    ("override", "why"),
    [
        ("cluster.address=auto", "what the hosts of cluster.address=auto compute is not measured here"),
        ("learner.num_gpus=1", "what a GPU computes is not measured, and nothing was measured on one yet"),
    ],
)
def test_of_what_is_not_measured_here_nothing_is_made_up(override: str, why: str) -> None:
    found = expected_time(load_run("toy", [override]), toy_sizes(), FixedRates(1e9))
    assert found.total_s is None and found.as_dict()["seconds"] is None
    assert found.lines() == [f"how long it takes is not known: {why}"]


def test_seconds_have_two_digits_that_count() -> None:
    words = {0.44: "0.4 s", 9.7: "9.7 s", 47.3: "47 s", 112: "110 s", 259: "4.3 min", 3700: "62 min", 9000: "2.5 h"}
    assert {seconds: in_words(seconds) for seconds in words} == words
    assert in_words(3 * 86400) == "3 days"


def test_lines_have_each_stage_with_its_larger_parts() -> None:
    found = RunTime(
        (StageTime("sft", {"start": 20.0, "learn": 40.0, "evaluate": 0.1}), StageTime("x", {"a": 1.0})), ("s",)
    )
    assert found.lines() == [
        "about 61 s on this machine, an estimate",
        "  sft: 60 s (start 20 s, learn 40 s)",
        "  x: 1.0 s",
        "s",
    ]
