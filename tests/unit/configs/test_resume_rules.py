"""What may change when a run resumes, and what is kept on file about it."""

import json
from pathlib import Path

import pytest

from plumbob.configs.load_run import load_run
from plumbob.configs.resolved_copy import read_resolved, write_resolved
from plumbob.configs.resume_rules import changes, flat, may_change
from plumbob.configs.runs import OnlineRun
from plumbob.core.errors import UserError

PPO = ["policy.model=sft", "reward.model=rm", "data.prompts=prompts.jsonl", "gold_reward.model=rm2", "name=mine"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_resolved(load_run("ppo", PPO), tmp_path / "mine")
    return tmp_path / "mine"


def refused(folder: Path, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        read_resolved(folder, overrides)
    return str(caught.value)


def test_what_may_change_is_where_and_how_fast() -> None:
    settings = flat(load_run("ppo", [*PPO, "rollout.autoscale.max_workers=4"]).model_dump(mode="json"))
    may = {key for key in settings if may_change(OnlineRun, key)} - {"sinks"}
    shared = {"num_workers", "num_threads", "num_cpus", "num_gpus", "memory_gib", "placement"}
    for role in ("learner", "rollout", "reward", "gold_reward"):
        assert {key for key in may if key.startswith(f"{role}.") and key.split(".")[1] in shared} == {
            f"{role}.{name}" for name in shared
        }
    others = {key for key in may if key.split(".")[1] not in shared}
    assert {key for key in others if not key.startswith(("cluster.", "energy.", "rollout.autoscale."))} == {
        *("learner.zero_stage", "learner.micro_batch_size", "learner.gradient_checkpointing"),
        *("learner.offload_optimizer", "learner.offload_params", "learner.offload_reference"),
        *("rollout.engine.kv_cache_gib", "rollout.engine.gpu_memory_fraction", "rollout.engine.max_num_seqs"),
        *("rollout.engine.enforce_eager", "rollout.tensor_parallel", "rollout.adapter", "online.keep_checkpoints"),
    }


def test_settings_that_may_change_do(folder: Path) -> None:
    overrides = ["rollout.num_workers=2", "learner.zero_stage=3", "rollout.autoscale.max_workers=4", "cluster.wait_s=9"]
    run = read_resolved(folder, overrides)
    assert isinstance(run, OnlineRun) and run.rollout.autoscale is not None
    assert (run.rollout.num_workers, run.learner.zero_stage, run.rollout.autoscale.max_workers) == (2, 3, 4)
    assert run.cluster.wait_s == 9.0
    # What is given as it is, is no change.
    assert read_resolved(folder, ["seed=0", "policy.model=sft"]) == read_resolved(folder)


@pytest.mark.parametrize(
    "override",
    [
        "online.learning_rate=1e-3",
        "seed=7",
        "policy.model=other",
        "learner.autocast=true",
        "learner.optimizer=adamw_8bit",
    ],
)
def test_settings_that_would_change_the_result_are_refused(folder: Path, override: str) -> None:
    message = refused(folder, override, "rollout.num_workers=2")
    assert message.startswith(f"{override.partition('=')[0]}: cannot change when a run resumes, as that would change")
    assert message.endswith(
        "These may change: cluster, energy, sinks; learner.(num_workers, num_threads, num_cpus, num_gpus, memory_gib, "
        "placement, micro_batch_size, zero_stage, gradient_checkpointing, offload_optimizer, offload_params, "
        "offload_reference); "
        "reward.(num_workers, num_threads, num_cpus, num_gpus, memory_gib, placement); "
        "reward.parts.(url, token_env, max_in_flight, timeout_s, retries); "
        "gold_reward.(num_workers, num_threads, num_cpus, num_gpus, memory_gib, placement); "
        "gold_reward.parts.(url, token_env, max_in_flight, timeout_s, retries); "
        "rollout.(num_workers, num_threads, num_cpus, num_gpus, memory_gib, "
        "placement, adapter, tensor_parallel, autoscale); rollout.engine.(kv_cache_gib, gpu_memory_fraction, "
        "max_num_seqs, enforce_eager); online.(keep_checkpoints)"
    )
    # Another engine samples otherwise.
    assert refused(folder, "rollout.engine.kind=transformers").startswith("rollout.engine.kind")


def test_setting_errors_are_told_as_for_a_new_run(folder: Path) -> None:
    assert refused(folder, "rollout.num_wrokers=2") == (
        "command line: rollout.num_wrokers: unknown key; did you mean rollout.num_workers?"
    )
    assert "expected a whole number" in refused(folder, "learner.num_workers=two")
    assert "cannot be shared equally by learner.num_workers=3" in refused(folder, "learner.num_workers=3")
    assert refused(folder, "rollout.num_workers").startswith("rollout.num_workers: expected KEY=VALUE")


def test_what_a_run_began_with_stays_on_file(folder: Path) -> None:
    path = folder / "resolved.json"
    began = json.loads(path.read_text())
    began["packages"]["torch"] = "2.0.0"
    path.write_text(json.dumps(began))
    write_resolved(read_resolved(folder, ["rollout.num_workers=2", "rollout.autoscale.max_workers=4"]), folder)
    write_resolved(read_resolved(folder), folder)
    content = json.loads(path.read_text())
    assert content["packages"] == began["packages"] and "resumed" not in began
    first, second = content["resumed"]
    assert first["changed"] == {
        "rollout.num_workers": [1, 2],
        "rollout.autoscale.min_workers": [None, 1],
        "rollout.autoscale.max_workers": [None, 4],
        "rollout.autoscale.margin": [None, 0.2],
        "rollout.autoscale.patience": [None, 3],
    }
    assert second["changed"] == {}
    for entry in (first, second):
        assert entry["packages"]["torch"] != "2.0.0" and entry["time"].startswith("20") and "git_commit" in entry
    # A change stays for the next resume.
    assert content["config"]["rollout"]["num_workers"] == 2
    assert [file.name for file in folder.iterdir()] == ["resolved.json"]


def test_changes_are_by_dotted_key() -> None:
    before = {"a": {"b": 1, "c": [1]}, "d": None}
    assert changes(before, {"a": {"b": 2, "c": [1]}, "d": {"e": 3}}) == {"a.b": [1, 2], "d.e": [None, 3]}
    assert changes(before, before) == {}
