"""What an experience may not depend on: the order of rows, and the amount and side of padding."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plumbob.configs.settings.algorithms import (
    BestOfN,
    DrGrpo,
    Gae,
    Grpo,
    OnlineDpo,
    ReinforcePlusPlus,
    ReinforcePlusPlusBaseline,
    Rloo,
)
from plumbob.configs.settings.training import OnlineSettings
from plumbob.trainers.online.experience import LogprobsAndValues, make_experience
from plumbob.trainers.online.trajectories import Trajectories

NAN = float("nan")


def random_batch(draw, num_rows: int, width: int) -> tuple[Trajectories, torch.Tensor, LogprobsAndValues]:
    lengths = torch.tensor([draw(st.integers(1, width)) for _ in range(num_rows)])
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    attention_mask = torch.arange(width) < lengths[:, None]
    action_mask = attention_mask & (torch.rand(num_rows, width, generator=generator) < 0.7)
    action_mask[:, 0] = False
    numbers = lambda: torch.randn(num_rows, width, generator=generator)  # noqa: E731
    trajectories = Trajectories(
        torch.ones(num_rows, width, dtype=torch.long),
        attention_mask,
        action_mask,
        torch.where(action_mask, numbers(), 0.0),
        torch.where(action_mask, 3, -1).int(),
        torch.rand(num_rows, generator=generator) < 0.5,
        torch.randint(0, 2, (num_rows,), generator=generator),
        torch.where(action_mask, numbers(), 0.0),
    )
    return trajectories, torch.randn(num_rows, generator=generator), LogprobsAndValues(numbers(), numbers(), numbers())


def permuted(record, order):
    return type(record)(*(None if tensor is None else tensor[order] for tensor in vars(record).values()))


ESTIMATORS = [Gae(gamma=0.9), ReinforcePlusPlus(gamma=0.9), ReinforcePlusPlusBaseline(), Rloo(), Grpo(), DrGrpo()]
ESTIMATORS += [BestOfN(), OnlineDpo()]


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda estimator: estimator.kind)
@settings(max_examples=15, deadline=None)
@given(st.data())
def test_order_of_rows_and_amount_and_side_of_padding_change_nothing(estimator, data):
    num_rows, width, padding = data.draw(st.integers(1, 6)), data.draw(st.integers(2, 8)), data.draw(st.integers(0, 3))
    trajectories, scores, forward = random_batch(data.draw, num_rows, width)
    order = torch.tensor(data.draw(st.permutations(range(num_rows))))
    online = OnlineSettings(estimator=estimator, loss_mean=data.draw(st.sampled_from(["token", "response"])))

    turn_reward_scale = data.draw(st.sampled_from([0.0, 0.5]))

    columns = torch.arange(width + padding)
    on_left = data.draw(st.booleans())
    shifts = on_left * (width + padding - trajectories.attention_mask.sum(dim=1, keepdim=True))

    def padded(tensor: torch.Tensor, fill: float) -> torch.Tensor:
        if tensor.dim() == 1:
            return tensor
        wide = torch.nn.functional.pad(tensor, (0, padding), value=fill)
        return wide.gather(1, (columns - shifts) % len(columns))

    def turned_back(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.gather(1, (columns + shifts[order]) % len(columns))

    wide = Trajectories(*(padded(tensor, 0) for tensor in vars(trajectories).values()))
    assert forward.values is not None
    numbers = (forward.logprobs, forward.ref_logprobs, forward.values)
    wide_forward = LogprobsAndValues(*(padded(tensor, NAN) for tensor in numbers))
    narrow_result, narrow_stats, _ = make_experience(
        trajectories, scores, forward, online, 0.1, 3, 64, turn_reward_scale
    )
    wide_result, wide_stats, _ = make_experience(
        permuted(wide, order), scores[order], permuted(wide_forward, order), online, 0.1, 3, 64, turn_reward_scale
    )
    for name, expected in tensors(narrow_result).items():
        found = turned_back(tensors(wide_result)[name])
        torch.testing.assert_close(found[:, :width], expected[order], rtol=1e-4, atol=1e-5, msg=name)
        assert found[:, width:].abs().sum() == 0 if expected.is_floating_point() else True
    for name, expected in vars(narrow_stats).items():
        found = getattr(wide_stats, name)
        assert found is expected is None or found == pytest.approx(expected, rel=1e-4, abs=1e-5), name


def tensors(experience):
    """Every tensor [B, T] of an experience by name."""
    named = vars(experience) | (vars(experience.critic) if experience.critic else {})
    return {name: value for name, value in named.items() if isinstance(value, torch.Tensor)}
