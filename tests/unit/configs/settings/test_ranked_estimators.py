"""Estimators that rank a group of responses, as settings: what they need, what they leave unread, what is refused."""

import pytest

from plumbob.configs.load_run import load_run
from plumbob.configs.runs import OnlineRun
from plumbob.configs.settings.algorithms import BestOfN, Gae, OnlineDpo, algorithm_of, critic_of
from plumbob.configs.settings.offline_objectives import DpoLoss, IpoLoss
from plumbob.configs.settings.training import OnlineSettings
from plumbob.core.errors import UserError

GIVEN = ["policy.model=sft", "reward.model=reward", "data.prompts=prompts.jsonl"]


def loaded(preset: str, *overrides: str) -> OnlineRun:
    run = load_run(preset, [*GIVEN, *overrides])
    assert isinstance(run, OnlineRun)
    return run


def test_they_are_chosen_by_their_kind_and_name_the_stage() -> None:
    raft, pairs = (
        loaded("raft"),
        loaded("online-dpo", "online.estimator.loss.kind=ipo", "online.estimator.loss.tau=0.3"),
    )
    assert (raft.online.estimator, raft.stage) == (BestOfN(), "best-of-n")
    assert (pairs.online.estimator, pairs.stage) == (OnlineDpo(loss=IpoLoss(tau=0.3)), "online-dpo")
    assert loaded("online-dpo").online.estimator == OnlineDpo(loss=DpoLoss(beta=0.1))
    assert [critic_of(each) for each in (BestOfN(), OnlineDpo())] == [None, None]
    assert algorithm_of(Gae()) == "ppo"
    assert loaded("rloo", "online.estimator.kind=online-dpo").stage == "online-dpo"


def test_a_group_is_one_row_of_an_update() -> None:
    # 16 prompts of 8 responses in updates of 64: 8 groups each.
    online = loaded("raft").online
    assert (online.samples_per_step, online.rows_per_update, online.updates_per_step) == (128, 8, 2)
    assert OnlineSettings(minibatch_size=32).rows_per_update == 32


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["online.samples_per_prompt=1", "online.minibatch_size=32"],
            "compares the responses to one prompt, but online.samples_per_prompt=1",
        ),
        (
            ["online.samples_per_prompt=6", "online.minibatch_size=8"],
            "learns from whole groups of online.samples_per_prompt=6 responses, into which online.minibatch_size=8 "
            "cannot be cut: make it a multiple of 6",
        ),
        (
            ["learner.num_workers=32"],
            "online.minibatch_size=64 is 16 groups of online.samples_per_prompt=4, which cannot be shared equally by "
            "learner.num_workers=32: make it a multiple of 128",
        ),
        (
            ["online.kl.place=loss", "online.kl.estimate=k3"],
            "online.estimator.kind=online-dpo with online.kl.place=loss: it learns from responses that their reward",
        ),
        (
            ["online.policy_loss.kind=cispo"],
            "online.policy_loss: not read by online.estimator.kind=online-dpo, whose loss of",
        ),
        (["online.policy_loss.clip_range=0.1"], "online.policy_loss: not read by"),
        (
            ["online.loss_mean=response", "online.importance.kind=none"],
            "online.loss_mean, online.importance: not read by",
        ),
        (
            ["online.estimator.loss.kind=orpo", "online.estimator.loss.likelihood=sequence"],
            "set online.estimator.loss.likelihood=response",
        ),
        (["online.estimator.beta=0.2"], "online.estimator.beta: unknown key; did you mean online.estimator.loss.beta?"),
        (["online.estimator.loss.kind=kto"], "online.estimator.loss.kind: expected one of 'dpo', 'conservative-dpo'"),
    ],
)
def test_setting_errors_of_online_dpo(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        loaded("online-dpo", *overrides)
    (line,) = str(caught.value).splitlines()
    assert message in line


def test_the_best_is_learnt_by_any_surrogate_and_with_kl_in_the_reward_alone() -> None:
    surrogate = loaded("raft", "online.policy_loss.kind=cispo", "online.loss_mean=response", "online.max_staleness=1")
    assert surrogate.online.policy_loss.kind == "cispo"
    with pytest.raises(UserError, match=r"online\.estimator\.kind=best-of-n with online\.kl\.place=loss"):
        loaded("raft", "online.kl.place=loss", "online.kl.estimate=k2")
