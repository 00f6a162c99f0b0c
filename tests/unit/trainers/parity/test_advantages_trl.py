"""The same losses and gradients as TRL's GRPO and RLOO, run by TRL's own code on the same tensors.

TRL computes its losses in methods of its trainers: they are called with a stand-in for the trainer that has the
settings a loss reads and returns the log-probs given. Its advantages stand in the middle of a method that generates
responses, so of them only the standard deviation is TRL's.
"""

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from plumbob.configs.settings.algorithms import Cispo, Clipped, FixedKl, Grpo, Gspo, Rloo
from plumbob.configs.settings.training import OnlineSettings
from plumbob.trainers.algorithms.advantages import estimate
from plumbob.trainers.online.experience import Experience, LossKl
from plumbob.trainers.online.objective import policy_loss_sum, total_weight
from plumbob.trainers.online.row_masks import loss_weights

grpo_trainer = pytest.importorskip("trl.trainer.grpo_trainer")
rloo_trainer = pytest.importorskip("trl.trainer.rloo_trainer")

NUM_PROMPT, NUM_RESPONSE = 2, 5
LENGTHS = torch.tensor([5, 1, 3, 2, 4, 5])
MASK = torch.arange(NUM_RESPONSE) < LENGTHS[:, None]
BETA = 0.3


def drawn() -> dict[str, Tensor]:
    """Log-probs before and after some updates, of the reference, advantages of responses, ratios to the sampler."""
    generator = torch.Generator().manual_seed(3)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    old = -2 + draw(6, NUM_RESPONSE)
    return {
        "old": old,
        "logprobs": old + 0.4 * draw(6, NUM_RESPONSE),
        "reference": old + 0.7 * draw(6, NUM_RESPONSE),
        "advantages": draw(6),
        "importance": draw(6, NUM_RESPONSE).exp().clamp(max=2.0),
    }


def trl_loss(trainer: Any, numbers: dict[str, Tensor], **changes: Any) -> tuple[Tensor, Tensor]:
    """TRL's loss, and its gradient at the log-probs."""
    logprobs = numbers["logprobs"].clone().requires_grad_()
    settings = {
        "aux_loss_enabled": False,
        "top_entropy_quantile": 1.0,
        "off_policy_mask_threshold": None,
        "importance_sampling_level": "token",
        "beta": 0.0,
        "loss_type": "grpo",
        "epsilon_low": 0.2,
        "epsilon_high": 0.2,
        "use_vllm": False,
        "vllm_importance_sampling_correction": False,
        "max_completion_length": NUM_RESPONSE,
        "current_gradient_accumulation_steps": 1,
        "_entropy_bonus_enabled": False,
        "_metrics": defaultdict(lambda: defaultdict(list)),
        "model": SimpleNamespace(training=True),
        "args": SimpleNamespace(use_bias_correction_kl=False, delta=None, steps_per_generation=1),
        "accelerator": SimpleNamespace(num_processes=1, gather=lambda x: x, reduce=lambda x, reduction: x),
        "_get_per_token_logps_and_entropies": lambda *_, **__: (logprobs, torch.zeros_like(logprobs), None),
    }
    inputs = {
        "prompt_ids": torch.ones(6, NUM_PROMPT, dtype=torch.long),
        "prompt_mask": torch.ones(6, NUM_PROMPT, dtype=torch.long),
        "completion_ids": torch.ones(6, NUM_RESPONSE, dtype=torch.long),
        "completion_mask": MASK.long(),
        "advantages": numbers["advantages"],
        "old_per_token_logps": numbers["old"],
        "old_logps": torch.where(MASK, numbers["old"], 0.0).sum(dim=1),
        "ref_per_token_logps": numbers["reference"],
        "importance_sampling_ratio": numbers["importance"],
        "num_items_in_batch": MASK.sum(),
    }
    loss = trainer._compute_loss(SimpleNamespace(**(settings | changes)), None, inputs)
    loss.backward()
    assert logprobs.grad is not None
    return loss.detach(), logprobs.grad


def our_loss(
    numbers: dict[str, Tensor], online: OnlineSettings, importance: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The same by this project's policy pass: the sum over the batch, divided by its count."""
    logprobs = numbers["logprobs"].clone().requires_grad_()
    batch = Experience(
        input_ids=torch.ones(6, NUM_RESPONSE, dtype=torch.long),
        attention_mask=MASK,
        action_mask=MASK,
        old_logprobs=numbers["old"],
        advantages=torch.where(MASK, numbers["advantages"][:, None], 0.0),
        loss_weights=loss_weights(MASK, online.loss_mean),
        importance_weights=MASK.float() if importance is None else importance,
        critic=None,
        kl=LossKl(numbers["reference"], BETA) if online.kl.place == "loss" else None,
    )
    loss = policy_loss_sum(online, 1.0, lambda *_: logprobs, batch).loss / total_weight(batch)
    loss.backward()
    assert logprobs.grad is not None
    return loss.detach(), logprobs.grad


def check_equal(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


K3_IN_LOSS = FixedKl(place="loss", estimate="k3", coefficient=BETA)


def test_grpo_as_published() -> None:
    # The mean over responses of their tokens' mean, k3 in the loss.
    theirs = trl_loss(grpo_trainer.GRPOTrainer, drawn(), beta=BETA)
    check_equal(our_loss(drawn(), OnlineSettings(estimator=Grpo(), loss_mean="response", kl=K3_IN_LOSS)), theirs)


@pytest.mark.parametrize("loss_type", ["bnpo", "dapo"])
def test_the_mean_over_tokens(loss_type: str) -> None:
    # Over the batch (bnpo) or the whole step (dapo), which here are the same.
    theirs = trl_loss(grpo_trainer.GRPOTrainer, drawn(), beta=BETA, loss_type=loss_type)
    check_equal(our_loss(drawn(), OnlineSettings(loss_mean="token", kl=K3_IN_LOSS)), theirs)


def test_dr_grpo_up_to_its_constant() -> None:
    # TRL divides the sum by the rows and the longest response allowed, 6 x 5, we by the 20 tokens.
    loss, gradient = our_loss(drawn(), OnlineSettings(loss_mean="token"))
    share = int(MASK.sum()) / (6 * NUM_RESPONSE)
    theirs = trl_loss(grpo_trainer.GRPOTrainer, drawn(), loss_type="dr_grpo")
    check_equal((loss * share, gradient * share), theirs)


def test_the_dual_clip_is_their_delta() -> None:
    numbers = drawn() | {"logprobs": drawn()["old"] + 1.5}  # Ratios of 4.5.
    arguments = SimpleNamespace(use_bias_correction_kl=False, delta=3.0, steps_per_generation=1)
    theirs = trl_loss(grpo_trainer.GRPOTrainer, numbers, loss_type="bnpo", args=arguments)
    check_equal(our_loss(numbers, OnlineSettings(policy_loss=Clipped(dual_clip=3.0))), theirs)


def test_clip_higher() -> None:
    theirs = trl_loss(grpo_trainer.GRPOTrainer, drawn(), loss_type="bnpo", epsilon_high=0.28)
    check_equal(our_loss(drawn(), OnlineSettings(policy_loss=Clipped(clip_range_high=0.28))), theirs)


def test_gspo() -> None:
    # With ranges between which some of the six responses are.
    theirs = trl_loss(
        grpo_trainer.GRPOTrainer,
        drawn(),
        beta=BETA,
        importance_sampling_level="sequence",
        epsilon_low=0.1,
        epsilon_high=0.2,
    )
    gspo = Gspo(clip_range=0.1, clip_range_high=0.2)
    ours = OnlineSettings(estimator=Grpo(), loss_mean="response", kl=K3_IN_LOSS, policy_loss=gspo)
    check_equal(our_loss(drawn(), ours), theirs)
    by_token = OnlineSettings(estimator=Grpo(), loss_mean="token", kl=K3_IN_LOSS, policy_loss=gspo)
    assert (our_loss(drawn(), by_token)[1] - theirs[1]).abs().max() > 0.01


def test_cispo() -> None:
    theirs = trl_loss(grpo_trainer.GRPOTrainer, drawn(), loss_type="cispo", epsilon_high=1.2)
    check_equal(our_loss(drawn(), OnlineSettings(policy_loss=Cispo(cap=1.2))), theirs)


def test_the_correction_for_the_sampler() -> None:
    # Without KL: theirs is not weighted with the correction, ours is.
    numbers = drawn()
    theirs = trl_loss(
        grpo_trainer.GRPOTrainer, numbers, loss_type="bnpo", use_vllm=True, vllm_importance_sampling_correction=True
    )
    check_equal(our_loss(numbers, OnlineSettings(), numbers["importance"]), theirs)


def test_rloo_has_the_same_gradient_where_the_update_begins() -> None:
    # TRL clips the whole response's ratio and takes the mean over responses, we clip each token's and take the mean
    # over tokens: at pi = pi_old both are REINFORCE, ours with 6 / 20 of the slope.
    numbers = drawn() | {"logprobs": drawn()["old"]}
    _, theirs = trl_loss(rloo_trainer.RLOOTrainer, numbers)
    _, ours = our_loss(numbers, OnlineSettings(estimator=Rloo()))
    torch.testing.assert_close(ours * int(MASK.sum()) / 6, theirs, rtol=1e-5, atol=1e-7)


def test_grpo_divides_by_their_standard_deviation() -> None:
    rewards = torch.tensor([1.0, -0.5, 2.0, 0.25, 3.0, 3.5])
    groups = torch.tensor([0, 0, 0, 1, 1, 1])
    found, _ = estimate(Grpo(std_eps=1e-4), rewards[:, None], None, torch.ones(6, 1, dtype=torch.bool), groups)
    grouped = rewards.view(2, 3)
    std = grpo_trainer.nanstd(grouped, dim=1, keepdim=True)
    torch.testing.assert_close(found.view(2, 3), (grouped - grouped.mean(dim=1, keepdim=True)) / (std + 1e-4))
