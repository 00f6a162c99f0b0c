"""Rollouts as padded tensors."""

from dataclasses import replace

import pytest
import torch

from plumbob.trainers.online.trajectories import collate_rollouts
from tests.support.ragged_batches import ragged, rollout


def test_collated_tensors():
    found = collate_rollouts(ragged(), pad_id=0)
    assert found.input_ids.tolist() == [[5, 6, 7, 2, 0], [5, 9, 3, 4, 9], [5, 6, 7, 0, 0]]
    assert found.attention_mask.int().tolist() == [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
    assert found.action_mask.int().tolist() == [[0, 0, 1, 1, 0], [0, 1, 0, 0, 1], [0, 0, 0, 0, 0]]
    assert found.sampler_logprobs.tolist() == [[0, 0, -1, -1, 0], [0, -1.5, 0, 0, -2], [0] * 5]
    assert found.versions.tolist() == [[-1, -1, 3, 3, -1], [-1, 3, -1, -1, 3], [-1] * 5]
    assert found.ends_with_eos.tolist() == [True, False, False]
    assert found.groups.tolist() == [0, 0, 1]
    dtypes = [getattr(found, name).dtype for name in ("input_ids", "sampler_logprobs", "versions", "action_mask")]
    assert dtypes == [torch.int64, torch.float32, torch.int32, torch.bool]


def test_a_pad_token_that_is_also_eos_does_not_hide_a_real_eos():
    found = collate_rollouts(ragged(), pad_id=2)
    assert found.attention_mask[0].tolist() == [True, True, True, True, False]


def test_what_cannot_be_collated():
    whole = ragged()[0]
    with pytest.raises(ValueError, match="no rollouts"):
        collate_rollouts([], pad_id=0)
    with pytest.raises(ValueError, match=r"rollout 1 .*partial"):
        collate_rollouts([whole, replace(whole, finish_reason="partial")], pad_id=0)
    with pytest.raises(ValueError, match=r"differ in length: \[1, 2\]"):
        collate_rollouts([replace(whole, logprobs=whole.logprobs[:1])], pad_id=0)
    with pytest.raises(ValueError, match="empty prompt"):
        collate_rollouts([rollout([], [7, 2], [-1.0, -1.0], [True, True], "stop")], pad_id=0)
