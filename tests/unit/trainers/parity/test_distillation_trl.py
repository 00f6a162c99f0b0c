"""The same KL from a teacher, and the same gradient, as TRL's GKD on the same logits."""

import pytest
import torch

from plumbob.models.forward.vocabulary import Vocabulary

gkd_trainer = pytest.importorskip("trl.experimental.gkd.gkd_trainer")

TEMPERATURE = 0.7


def test_the_whole_kl_is_gkds_at_its_beta_of_one() -> None:
    # The logits are the states: the head is the identity. One state of six has a label that is left out.
    generator = torch.Generator().manual_seed(2)
    ours, its = (torch.randn(6, 9, generator=generator) for _ in range(2))
    labels = torch.tensor([[1, 2, -100, 3, 4, 5]])
    head = torch.nn.Linear(9, 9, bias=False)
    head.weight.data.copy_(torch.eye(9))
    theirs = ours.clone().requires_grad_()
    loss = gkd_trainer.GKDTrainer.generalized_jsd_loss(
        theirs[None], its[None], labels, beta=1.0, temperature=TEMPERATURE, reduction="sum"
    )
    loss.backward()
    for frozen in (True, False):
        head.weight.requires_grad_(not frozen)
        vocabulary = Vocabulary(head, 1.0, None, 9)
        states = ours.clone().requires_grad_()
        kl = vocabulary.reverse_kl(states, vocabulary, its, TEMPERATURE)[labels[0] != -100].sum()
        kl.backward()
        torch.testing.assert_close(kl, loss, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(states.grad, theirs.grad, rtol=1e-4, atol=1e-6)
