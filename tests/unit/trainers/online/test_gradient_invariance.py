"""What an update's gradient may not depend on: micro-batches, padding, order of rows, ranks and ZeRO stage."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from plumbob.configs.settings.algorithms import Cispo, Distillation, FixedKl, Grpo, Gspo
from plumbob.configs.settings.training import OnlineSettings
from plumbob.models.policy import PolicyModel
from plumbob.trainers.learner.learner_protocol import UpdatePlan
from plumbob.trainers.online.experience import learns_whole_kl
from tests.support.learner_ranks import (
    PPO,
    LearnerCase,
    Ranks,
    numpy_state,
    padded,
    ragged_experience,
    tiny_learner,
    write_tiny_llama,
)

NUM_ROWS = 6
PLAN = UpdatePlan(minibatch_size=NUM_ROWS, num_epochs=1, learning_rate_scale=1.0, seed=0)
NO_CLIP = 1e6
"""What is clipped to one norm hides a factor that the whole gradient has."""
OBJECTIVES = {
    "critic, mean over tokens": PPO.model_copy(update={"max_grad_norm": NO_CLIP}),
    "no critic, mean over responses, k3 in the loss": OnlineSettings(
        learning_rate=1e-3,
        max_grad_norm=NO_CLIP,
        estimator=Grpo(),
        loss_mean="response",
        kl=FixedKl(place="loss", estimate="k3"),
    ),
    "one ratio a response": OnlineSettings(
        learning_rate=1e-3,
        max_grad_norm=NO_CLIP,
        estimator=Grpo(),
        loss_mean="response",
        policy_loss=Gspo(clip_range=0.3, clip_range_high=0.5),
    ),
    "weighted log-probs": OnlineSettings(
        learning_rate=1e-3, max_grad_norm=NO_CLIP, estimator=Grpo(), policy_loss=Cispo(cap=1.2)
    ),
    "the whole KL to two teachers": OnlineSettings(
        learning_rate=1e-3, max_grad_norm=NO_CLIP, estimator=Distillation(), kl=FixedKl(coefficient=0.0)
    ),
}
Gradient = dict[str, np.ndarray]


def gradient(
    case: LearnerCase, online: OnlineSettings, order: list[int], num_padding: int, on_left: bool = False
) -> Gradient:
    """Ten times Adam's first moment after one step: the gradient, whole on every rank, of six of the ragged rows."""
    teachers = (case.folder, case.folder.parent / "teacher") if learns_whole_kl(online.estimator) else ()
    learner = tiny_learner(replace(case, teachers=teachers), online)
    batch = padded(ragged_experience(online).rows(np.array(order)), num_padding, on_left)
    learner.update(batch, PLAN)
    return {name: 10 * value for name, value in numpy_state(learner).items() if name.startswith("exp_avg.")}


@pytest.fixture(scope="module", autouse=True)
def teacher(llama: Path) -> None:
    """Beside the policy's own base, which is the other one."""
    write_tiny_llama(llama.parent / "teacher", seed=1)


@pytest.fixture(scope="module")
def expected(one_rank: Ranks, llama: Path) -> dict[str, Gradient]:
    """One rank, ZeRO 0, all rows at once, without further padding."""
    rows = list(range(NUM_ROWS))
    return {name: one_rank.run(gradient, LearnerCase(llama), online, rows, 0)[0] for name, online in OBJECTIVES.items()}


@pytest.mark.parametrize("name", OBJECTIVES)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_the_gradient_is_the_batchs_own(
    one_rank: Ranks,
    two_ranks: Ranks,
    three_ranks: Ranks,
    llama: Path,
    expected: dict[str, Gradient],
    name: str,
    data: st.DataObject,
) -> None:
    ranks = data.draw(st.sampled_from([one_rank, two_ranks, three_ranks]))
    case = LearnerCase(
        llama, zero_stage=data.draw(st.integers(0, 3)), micro_batch_size=data.draw(st.integers(1, NUM_ROWS))
    )
    order, num_padding = data.draw(st.permutations(range(NUM_ROWS))), data.draw(st.integers(0, 4))
    for found in ranks.run(gradient, case, OBJECTIVES[name], order, num_padding, data.draw(st.booleans())):
        assert found.keys() == expected[name].keys()
        for parameter, tensor in expected[name].items():
            # float32 sums of some hundred terms in another order: about 1e-6 of the tensor's largest element.
            bound = 2e-5 * float(np.abs(tensor).max())
            assert np.abs(found[parameter] - tensor).max() <= bound, parameter


def test_without_a_critic_nothing_of_one_is_built(expected: dict[str, Gradient]) -> None:
    with_critic, *others = (expected[name] for name in OBJECTIVES)
    value = {name for name in with_critic if ".value." in name or "value_head" in name}
    for without in others:
        assert value and without.keys() == with_critic.keys() - value
        assert all(np.abs(tensor).max() > 1e-5 for tensor in without.values())


@pytest.fixture(scope="module")
def model(llama: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(llama).eval()


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_log_probs_are_those_of_transformers_own_loss(model: Any, data: st.DataObject) -> None:
    # transformers' loss is the mean of -log p over the labels; -100 leaves a token out.
    lengths = data.draw(st.lists(st.integers(2, 9), min_size=1, max_size=4))
    width = max(lengths) + data.draw(st.integers(0, 3))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    ids = torch.randint(1, 40, (len(lengths), width), generator=generator)
    attention = torch.arange(width) < torch.tensor(lengths)[:, None]
    starts = torch.tensor([data.draw(st.integers(1, length - 1)) for length in lengths])
    actions = attention & (torch.arange(width) >= starts[:, None])
    with torch.no_grad():
        loss = model(input_ids=ids, attention_mask=attention.long(), labels=ids.masked_fill(~actions, -100)).loss
        policy = PolicyModel(model, {"policy": None})
        with policy.role("policy"):
            found = policy(ids, attention, actions, 1.0)
    assert -found.sum().item() / int(actions.sum()) == pytest.approx(loss.item(), rel=1e-5)
