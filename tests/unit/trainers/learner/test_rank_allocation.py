"""AdaLoRA's ranks against PEFT's own allocator, and the schedule by hand."""

import pytest
import torch
from peft import AdaLoraConfig, get_peft_model
from torch import Tensor, nn

from plumbob.configs.settings.tuning.adapters import AdaLoraTuning
from plumbob.trainers.algorithms.rank_allocation import RankAllocation, RankSchedule

CPU = torch.device("cpu")


def test_the_schedule_falls_with_the_cube_of_the_steps_to_go() -> None:
    # 10 steps: 1 without a choice, the last 3 with 2 ranks a module; between, 2 modules fall from 2 x 10 to 2 x 2 over
    # 6 steps, of which 5/6, 4/6 ... are to go: 16 (5/6)^3 + 4 = 13.26, 16 (4/6)^3 + 4 = 8.74, 6, 4.59, 4.07, 4.
    tuning = AdaLoraTuning(rank=2, initial_rank=10, initial_share=0.1, final_share=0.3)
    schedule = RankSchedule(tuning, num_modules=2)
    assert [schedule.num_left(step, 10) for step in range(1, 11)] == [None, 13, 8, 6, 4, 4, 4, 4, 4, 4]
    assert schedule.last_choice(10) == 7
    rarely = RankSchedule(tuning.model_copy(update={"every": 3}), num_modules=2)
    assert [rarely.num_left(step, 10) for step in range(1, 8)] == [None, None, 8, None, None, 4, 4]
    # Of a single step both shares are none: it ends with the ranks of the end.
    assert schedule.num_left(1, 1) == 4


class TwoLayers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.down(torch.tanh(self.up(x)))
        return found


def parameters_of(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: one for name, one in model.named_parameters() if ".lora_" in name}


@pytest.mark.parametrize("every", [1, 2])
def test_the_ranks_are_those_that_pefts_allocator_leaves(every: int) -> None:
    num_steps = 12
    tuning = AdaLoraTuning(rank=2, initial_rank=5, initial_share=0.25, final_share=0.25, every=every)
    torch.manual_seed(0)
    config = AdaLoraConfig(
        init_r=5, target_r=2, tinit=3, tfinal=3, deltaT=every, total_step=num_steps, target_modules=["up", "down"]
    )
    model = get_peft_model(TwoLayers(), config)
    parameters = parameters_of(model)
    own = RankAllocation(tuning, parameters)
    optimizer = torch.optim.AdamW(list(parameters.values()), lr=0.05)
    x, y = torch.randn(16, 6), torch.randn(16, 3)
    num_left = []
    for step in range(1, num_steps + 1):
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        gradients = {name: one.grad.clone() for name, one in parameters.items()}
        optimizer.step()
        weights = {name: one.detach().clone() for name, one in parameters.items()}
        if step == 6:  # A learner that was resumed here continues as this one.
            kept = [own.stored(name) for name in parameters]
            own = RankAllocation(tuning, parameters)
            own.restore({name: tensor for one in kept for name, tensor in one.items()}, CPU)
        found = own.after_step(step, num_steps, weights, gradients)
        model.base_model.update_and_allocate(step)
        expected = {name: one.detach() for name, one in parameters.items() if ".lora_E." in name}
        assert all(torch.equal(found.get(name, weights[name]), one) for name, one in expected.items()), step
        num_left.append(sum(int((one != 0).sum()) for one in expected.values()))
    assert (num_left[2], num_left[-1]) == (10, 4)
    if every == 1:  # Between two choices what was dropped may grow again.
        assert num_left[2:] == sorted(num_left[2:], reverse=True) and len(set(num_left)) > 3
    # Those of the end are in a checkpoint, and the scores that chose them are not.
    factors = next(name for name in parameters if ".lora_E." in name)
    assert own.stored(factors).keys() == {f"left.{factors}"}


def test_of_equal_scores_no_more_are_dropped_than_there_are_to_be() -> None:
    names = ["m.lora_A.policy", "m.lora_B.policy", "m.lora_E.policy"]
    allocation = RankAllocation(AdaLoraTuning(rank=2, initial_rank=3, initial_share=0, final_share=0), names)
    ones = dict(zip(names, (torch.ones(3, 4), torch.ones(5, 3), torch.ones(3, 1)), strict=True))
    assert allocation.after_step(1, 1, ones, ones)["m.lora_E.policy"].flatten().tolist() == [1, 1, 0]
