"""Preference losses and KTO as settings: kinds, their own keys, and what cannot be."""

import pytest

from plumbob.configs.load_run import load_run
from plumbob.configs.runs import DpoRun, KtoRun, OnlineRun, Run
from plumbob.configs.settings.algorithms import ALGORITHMS, Cispo, Clipped, Gae, Grpo, Gspo, critic_of
from plumbob.configs.settings.offline_objectives import (
    REFERENCE_FREE,
    DpoLoss,
    IpoLoss,
    OrpoLoss,
    SimpoLoss,
    reads_prompt,
)
from plumbob.core.errors import UserError

DPO = ["policy.model=sft", "data.pairs=pairs.jsonl"]
PPO = ["policy.model=sft", "reward.model=reward", "data.prompts=prompts.jsonl"]
KTO = ["policy.model=sft", "data.labelled=labelled.jsonl"]


def test_an_online_stage_is_called_after_its_estimator_but_for_ppo() -> None:
    others = {"grpo", "dr-grpo", "rloo", "reinforce++", "reinforce++-baseline", "best-of-n", "online-dpo"}
    assert {"ppo", "distillation", *others} == ALGORITHMS


def loaded(preset: str, *overrides: str) -> Run:
    return load_run(preset, overrides)


def setting_error(preset: str, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        load_run(preset, overrides)
    (line,) = str(caught.value).splitlines()
    return line


def test_a_loss_is_chosen_by_its_kind() -> None:
    ipo = loaded("dpo", *DPO, "dpo.loss.kind=ipo", "dpo.loss.per_token=true", "dpo.loss.tau=0.2")
    assert isinstance(ipo, DpoRun) and ipo.dpo.loss == IpoLoss(tau=0.2, per_token=True)
    orpo, simpo = (loaded("dpo", *DPO, f"dpo.loss.kind={kind}") for kind in ("orpo", "simpo"))
    assert isinstance(orpo, DpoRun) and orpo.dpo.loss == OrpoLoss(weight=0.1, likelihood="response")
    of_sequences = loaded("dpo", *DPO, "dpo.loss.kind=orpo", "dpo.loss.likelihood=sequence")
    assert isinstance(of_sequences, DpoRun) and of_sequences.dpo.loss == OrpoLoss(likelihood="sequence")
    assert isinstance(simpo, DpoRun) and simpo.dpo.loss == SimpoLoss(beta=2.0, margin=1.0)
    assert isinstance(orpo.dpo.loss, REFERENCE_FREE) and not isinstance(ipo.dpo.loss, REFERENCE_FREE)
    assert [reads_prompt(loss) for loss in (orpo.dpo.loss, of_sequences.dpo.loss, DpoLoss())] == [False, True, False]


def test_a_surrogate_is_chosen_by_its_kind() -> None:
    run = loaded("grpo", *PPO, "online.policy_loss.kind=gspo")
    assert isinstance(run, OnlineRun) and run.online.policy_loss == Gspo(clip_range=3e-4, clip_range_high=4e-4)
    run = loaded("ppo", *PPO, "online.policy_loss.kind=cispo", "online.policy_loss.cap=3")
    assert isinstance(run, OnlineRun) and run.online.policy_loss == Cispo(cap=3.0)
    line = setting_error("ppo", *PPO, "online.policy_loss.kind=cispo", "online.policy_loss.clip_range=0.2")
    assert "not a key of online.policy_loss.kind=cispo" in line


def test_the_upper_clip_range_is_the_lower_one_unless_it_is_set() -> None:
    assert [Clipped(clip_range=0.1).high, Clipped(clip_range=0.1, clip_range_high=0.3).high] == [0.1, 0.3]


def test_gae_alone_trains_a_critic() -> None:
    assert critic_of(Gae(value_learning_rate=0.5)) == Gae(value_learning_rate=0.5)
    assert critic_of(Grpo()) is None


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["dpo.loss.kind=kto"], "dpo.loss.kind: expected one of 'dpo', 'conservative-dpo', 'robust-dpo', 'ipo'"),
        (["dpo.loss.kind=orpo", "dpo.loss.beta=0.1"], "not a key of dpo.loss.kind=orpo; it belongs to dpo.loss.kind="),
        (
            ["dpo.loss.kind=orpo", "dpo.loss.likelihood=prompt"],
            "dpo.loss.likelihood: expected one of 'response' or 'sequence'",
        ),
        (["dpo.loss.likelihood=sequence"], "not a key of dpo.loss.kind=dpo; it belongs to dpo.loss.kind=orpo"),
        (["dpo.loss.kind=robust-dpo", "dpo.loss.flip_rate=0.5"], "expected a number less than 0.5, found 0.5"),
        (["dpo.beta=0.1"], "dpo.beta: unknown key; did you mean dpo.loss.beta?"),
    ],
)
def test_setting_errors_of_a_loss(overrides: list[str], message: str) -> None:
    assert message in setting_error("dpo", *DPO, *overrides)


def test_kto_and_what_it_refuses() -> None:
    run = loaded("kto", *KTO, "kto.undesirable_weight=1.5")
    assert isinstance(run, KtoRun) and (run.kto.beta, run.kto.undesirable_weight) == (0.1, 1.5)
    # The KL is estimated from prompts with another record's response: one record has no other.
    assert "kto.batch_size: expected a number that is at least 2, found 1" in setting_error(
        "kto", *KTO, "kto.batch_size=1"
    )
    assert "kto.batch_size=32 cannot be shared equally" in setting_error("kto", *KTO, "learner.num_workers=3")
    assert "policy.tuning.dropout=0.1: PPO, DPO and KTO" in setting_error("kto", *KTO, "policy.tuning.dropout=0.1")
