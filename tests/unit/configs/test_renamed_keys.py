"""A setting by its old name is told the new one; the folder of a run that was begun with it is still read."""

import json
from pathlib import Path
from typing import Any

import pytest

from plumbob.configs.load_run import load_run
from plumbob.configs.renamed_keys import RENAMED, JoinedSwitch, MovedKey, RenamedValue, with_new_names
from plumbob.configs.resolved_copy import read_resolved, write_resolved
from plumbob.configs.runs import RUN_KINDS, DpoRun, OnlineRun, PipelineRun, SftRun
from plumbob.configs.schema import groups_of
from plumbob.configs.settings.algorithms import Clipped
from plumbob.core.errors import UserError

PPO = ["policy.model=sft", "reward.model=rm", "data.prompts=prompts.jsonl", "name=mine"]
DPO = ["policy.model=sft", "data.pairs=pairs.jsonl", "name=mine", "dpo.loss.kind=orpo"]
SFT = ["policy.model=sft", "data.demonstrations=d.jsonl", "name=mine"]


def refusal(config: str, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        load_run(config, overrides)
    return str(caught.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            ["sft", *SFT, "data.max_answer_tokens=9"],
            "data.max_answer_tokens: it is called data.max_response_tokens now",
        ),
        (["grpo", *PPO, "ppo.kl.coefficient=0.1"], "ppo: it is called online now"),
        (["ppo", *PPO, "kind=ppo"], "kind: ppo is called online now"),
        (["ppo", *PPO, "online.clip_range=0.1"], "online.clip_range: it is called online.policy_loss.clip_range now"),
        (["ppo", *PPO, "online.dual_clip=3"], "online.dual_clip: it is called online.policy_loss.dual_clip now"),
        (["ppo", *PPO, "judge.model=gold"], "judge: it is called gold_reward now"),
        (["ppo", *PPO, "online.loss_mean=answer"], "online.loss_mean: answer is called response now"),
        (["dpo", *DPO, "dpo.loss.likelihood=answer"], "dpo.loss.likelihood: answer is called response now"),
        (
            ["ppo", *PPO, "rollout.keep_partial=true", "rollout.partial_tokens=9"],
            "rollout.keep_partial: rollout.partial_tokens alone says this now: null for false, a number for true",
        ),
    ],
)
def test_an_old_name_gets_one_message(given: list[str], message: str) -> None:
    assert refusal(*given) == f"command line: {message}"


def test_an_old_name_in_a_file_is_told_with_its_line_beside_other_errors(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("kind: sft\ndata:\n  demonstrations: d\n  max_answer_tokens: 0\npolicy: {model: base}\nseed: x\n")
    assert refusal(str(file)).splitlines() == [
        f"{file}, line 4: data.max_answer_tokens: it is called data.max_response_tokens now",
        f"{file}, line 6: seed: expected a whole number, found the text 'x'",
        f"{file}: data.max_response_tokens: expected a number greater than 0, found 0",
    ]


def as_before(folder: Path, given: list[str], older: dict[str, dict[str, Any]], *newer: str) -> None:
    """The folder of a run that was begun when settings had their old names, without those of `newer`."""
    write_resolved(load_run(given[0], given[1:]), folder)
    content = json.loads((folder / "resolved.json").read_text())
    if "ppo" in older:
        content["config"]["ppo"] = content["config"].pop("online")
        content["config"]["kind"] = content["config"]["kind"].replace("online", "ppo")
    for group, values in older.items():
        content["config"][group] |= values
    for key in newer:
        group, name = key.split(".")
        del content["config"][group][name]
    (folder / "resolved.json").write_text(json.dumps(content))


def test_a_run_that_began_with_old_names_resumes(tmp_path: Path) -> None:
    as_before(tmp_path / "sft", ["sft", *SFT], {"data": {"max_answer_tokens": 77}}, "data.max_response_tokens")
    sft = read_resolved(tmp_path / "sft", ["sft.save_every=3"])
    assert isinstance(sft, SftRun) and sft.data.max_response_tokens == 77
    # What is on file of the resume is what has changed, not what is called something else.
    write_resolved(sft, tmp_path / "sft")
    content = json.loads((tmp_path / "sft/resolved.json").read_text())
    assert content["resumed"][0]["changed"] == {"sft.save_every": [200, 3]}
    assert (
        content["config"]["data"]["max_response_tokens"] == 77 and "max_answer_tokens" not in content["config"]["data"]
    )

    for is_partial, tokens in ((False, None), (True, 33)):
        rollout = {"keep_partial": is_partial, "partial_tokens": 33}
        old = {"loss_mean": "answer", "clip_range": 0.3, "dual_clip": 2.0 if is_partial else None}
        as_before(tmp_path / f"ppo{is_partial}", ["ppo", *PPO], {"rollout": rollout, "ppo": old}, "ppo.policy_loss")
        online = read_resolved(tmp_path / f"ppo{is_partial}", ["rollout.num_workers=2"])
        assert isinstance(online, OnlineRun)
        assert (online.rollout.partial_tokens, online.online.loss_mean) == (tokens, "response")
        assert online.online.policy_loss == Clipped(clip_range=0.3, dual_clip=old["dual_clip"])

    as_before(
        tmp_path / "dpo", ["dpo", *DPO], {"dpo": {"loss": {"kind": "orpo", "weight": 0.1, "likelihood": "answer"}}}
    )
    dpo = read_resolved(tmp_path / "dpo")
    assert isinstance(dpo, DpoRun) and dpo.dpo.loss.kind == "orpo" and dpo.dpo.loss.likelihood == "response"

    older = {"data": {"max_answer_tokens": 77}, "ppo": {"loss_mean": "token"}}
    as_before(tmp_path / "toy", ["toy", "name=mine"], older, "data.max_response_tokens")
    toy = read_resolved(tmp_path / "toy")
    assert isinstance(toy, PipelineRun) and (toy.data.max_response_tokens, toy.online.loss_mean) == (77, "token")


def test_a_run_that_began_with_a_judge_has_its_gold_reward(tmp_path: Path) -> None:
    write_resolved(load_run("ppo", [*PPO, "gold_reward.model=gold"]), tmp_path)
    content = json.loads((tmp_path / "resolved.json").read_text())
    content["config"]["judge"] = content["config"].pop("gold_reward")
    (tmp_path / "resolved.json").write_text(json.dumps(content))
    found = read_resolved(tmp_path)
    assert isinstance(found, OnlineRun) and found.gold_reward is not None and found.gold_reward.model == "gold"


def test_overrides_of_a_resume_have_the_new_names(tmp_path: Path) -> None:
    write_resolved(load_run("ppo", PPO), tmp_path)
    with pytest.raises(UserError, match=r"^command line: rollout\.keep_partial: rollout\.partial_tokens alone"):
        read_resolved(tmp_path, ["rollout.keep_partial=false"])


def test_new_names_are_put_into_a_copy() -> None:
    values = {"data": {"max_answer_tokens": 7}, "rollout": {"keep_partial": True, "partial_tokens": 5}, "seed": 1}
    assert with_new_names(values) == {"data": {"max_response_tokens": 7}, "rollout": {"partial_tokens": 5}, "seed": 1}
    assert values["data"] == {"max_answer_tokens": 7}
    odd = {"data": 3, "rollout": None, "online": {"loss_mean": 5}}
    assert with_new_names(odd) == odd


def known(key: str) -> bool:
    """Whether some kind of run has the key."""
    candidates: list[Any] = list(RUN_KINDS.values())
    for name in key.split("."):
        fields = [group.model_fields[name] for group in candidates if name in group.model_fields]
        candidates = [group for field in fields for group in groups_of(field.annotation)]
    return bool(fields)


def test_new_names_are_known_and_old_ones_are_not() -> None:
    for renamed in RENAMED:
        match renamed:
            case MovedKey() | JoinedSwitch():
                assert known(renamed.new_name) and not known(renamed.key)
            case RenamedValue():
                assert known(renamed.key)
