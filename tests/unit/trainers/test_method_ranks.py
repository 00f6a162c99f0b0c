"""A method's gradients on several ranks, whatever they share, are those of one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.learner_ranks import Ranks
from tests.support.method_walk import first_moments, resumes_where_it_began
from tests.support.tiny_policy import write_policy

LORA = {"kind": "lora", "rank": 3, "alpha": 6.0}
METHODS: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "pissa": (LORA | {"init": "pissa"}, (0, 2, 3)),
    "adalora": ({"kind": "adalora", "rank": 3}, (0, 1, 2)),
    "dora": (LORA | {"use_dora": True}, (2,)),
    "ia3": ({"kind": "ia3"}, (2,)),
    "vera": ({"kind": "vera", "rank": 5}, (2,)),
    "bottleneck": ({"kind": "bottleneck", "width": 5}, (2, 3)),
    "prompt-tuning": ({"kind": "prompt-tuning", "num_virtual_tokens": 3}, (0, 2)),
    "p-tuning": ({"kind": "p-tuning", "num_virtual_tokens": 3, "hidden_size": 8, "encoder": "lstm"}, (2,)),
    "prefix-tuning": ({"kind": "prefix-tuning", "num_virtual_tokens": 3, "init": "gaussian"}, (2,)),
}
"""Name -> settings, and the ZeRO stages that take it."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_policy(tmp_path_factory.mktemp("policy"))


@pytest.mark.parametrize("method", METHODS)
def test_gradients_do_not_depend_on_the_ranks(one_rank: Ranks, two_ranks: Ranks, base: str, method: str) -> None:
    tuning, stages = METHODS[method]
    (expected,) = one_rank.run(first_moments, "sft", tuning, base, 0)
    largest = max(float(np.abs(moment).max()) for moment in expected.values())
    assert largest > 1e-4
    for stage in stages:
        for found in two_ranks.run(first_moments, "sft", tuning, base, stage):
            assert found.keys() == expected.keys()
            for name, moment in expected.items():
                np.testing.assert_allclose(found[name], moment, rtol=1e-4, atol=1e-5 * largest, err_msg=name)


def test_activations_that_are_computed_anew_change_nothing(one_rank: Ranks, base: str) -> None:
    """Behind a layer that the backward computes again."""
    tuning = {"kind": "bottleneck", "width": 5}
    expected, found = (
        one_rank.run(first_moments, "dpo", tuning, base, 0, checkpointing)[0] for checkpointing in (False, True)
    )
    assert found.keys() == expected.keys()
    assert max(float(np.abs(moment).max()) for moment in expected.values()) > 1e-4
    for name, moment in expected.items():
        np.testing.assert_allclose(found[name], moment, rtol=1e-5, atol=1e-9, err_msg=name)


def test_where_an_adapter_began_is_the_checkpoints(one_rank: Ranks, base: str, tmp_path: Path) -> None:
    assert one_rank.run(resumes_where_it_began, LORA | {"init": "pissa"}, base, tmp_path) == [True]
