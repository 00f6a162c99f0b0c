"""Estimators that rank a group of responses, as settings: what they need, what they leave unread, what is refused."""

import pytest

from plumbob.configs.load_run import load_run
from plumbob.configs.runs import PpoRun
from plumbob.configs.settings.algorithms import BestOfN, Gae, OnlineDpo, algorithm_of, critic_of
from plumbob.configs.settings.offline_objectives import DpoLoss, IpoLoss
from plumbob.configs.settings.training import PpoSettings
from plumbob.core.errors import UserError

GIVEN = ["policy.model=sft", "reward.model=reward", "data.prompts=prompts.jsonl"]


def loaded(preset: str, *overrides: str) -> PpoRun:
    run = load_run(preset, [*GIVEN, *overrides])
    assert isinstance(run, PpoRun)
    return run


def test_they_are_chosen_by_their_kind_and_name_the_stage() -> None:
    raft, pairs = loaded("raft"), loaded("online-dpo", "ppo.estimator.loss.kind=ipo", "ppo.estimator.loss.tau=0.3")
    assert (raft.ppo.estimator, raft.stage) == (BestOfN(), "best-of-n")
    assert (pairs.ppo.estimator, pairs.stage) == (OnlineDpo(loss=IpoLoss(tau=0.3)), "online-dpo")
    assert loaded("online-dpo").ppo.estimator == OnlineDpo(loss=DpoLoss(beta=0.1))
    assert [critic_of(each) for each in (BestOfN(), OnlineDpo())] == [None, None]
    assert algorithm_of(Gae()) == "ppo"
    assert loaded("rloo", "ppo.estimator.kind=online-dpo").stage == "online-dpo"


def test_a_group_is_one_row_of_an_update() -> None:
    # 16 prompts of 8 responses in updates of 64: 8 groups each.
    ppo = loaded("raft").ppo
    assert (ppo.samples_per_step, ppo.rows_per_update, ppo.updates_per_step) == (128, 8, 2)
    assert PpoSettings(minibatch_size=32).rows_per_update == 32


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["ppo.samples_per_prompt=1", "ppo.minibatch_size=32"],
            "compares the responses to one prompt, but ppo.samples_per_prompt=1",
        ),
        (
            ["ppo.samples_per_prompt=6", "ppo.minibatch_size=8"],
            "learns from whole groups of ppo.samples_per_prompt=6 responses, into which ppo.minibatch_size=8 cannot be "
            "cut: make it a multiple of 6",
        ),
        (
            ["learner.num_workers=32"],
            "ppo.minibatch_size=64 is 16 groups of ppo.samples_per_prompt=4, which cannot be shared equally by "
            "learner.num_workers=32: make it a multiple of 128",
        ),
        (
            ["ppo.kl.place=loss", "ppo.kl.estimate=k3"],
            "ppo.estimator.kind=online-dpo with ppo.kl.place=loss: it learns from responses that their reward has",
        ),
        (["ppo.policy_loss.kind=cispo"], "ppo.policy_loss: not read by ppo.estimator.kind=online-dpo, whose loss of"),
        (["ppo.policy_loss.clip_range=0.1"], "ppo.policy_loss: not read by"),
        (["ppo.loss_mean=response", "ppo.importance.kind=none"], "ppo.loss_mean, ppo.importance: not read by"),
        (
            ["ppo.estimator.loss.kind=orpo", "ppo.estimator.loss.likelihood=sequence"],
            "set ppo.estimator.loss.likelihood=response",
        ),
        (["ppo.estimator.beta=0.2"], "ppo.estimator.beta: unknown key; did you mean ppo.estimator.loss.beta?"),
        (["ppo.estimator.loss.kind=kto"], "ppo.estimator.loss.kind: expected one of 'dpo', 'conservative-dpo'"),
    ],
)
def test_setting_errors_of_online_dpo(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        loaded("online-dpo", *overrides)
    (line,) = str(caught.value).splitlines()
    assert message in line


def test_the_best_is_learnt_by_any_surrogate_and_with_kl_in_the_reward_alone() -> None:
    surrogate = loaded("raft", "ppo.policy_loss.kind=cispo", "ppo.loss_mean=response", "ppo.max_staleness=1")
    assert surrogate.ppo.policy_loss.kind == "cispo"
    with pytest.raises(UserError, match=r"ppo\.estimator\.kind=best-of-n with ppo\.kl\.place=loss"):
        loaded("raft", "ppo.kl.place=loss", "ppo.kl.estimate=k2")
