"""A worker on a host that lacks what the driver's has opens nothing: packages, the run's storage, the models."""

import json
import multiprocessing
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from plumbob.cluster.workers.learner_worker import LearnerWorker
from plumbob.cluster.workers.rollout_worker import RolloutWorker
from plumbob.cluster.workers.same_versions import installed
from plumbob.cluster.workers.scorer_worker import ScorerWorker
from plumbob.cluster.workers.shared_storage import StorageProbe, check_folders, check_shared, check_sources
from plumbob.configs.load_run import load_run
from plumbob.configs.runs import EvalRun, OnlineRun, RewardRun, SftRun
from plumbob.configs.settings.data import DemonstrationDataSettings, EvalDataSettings, FeedbackDataSettings
from plumbob.configs.settings.models import (
    EvaluatedPolicySettings,
    NewBertSettings,
    PolicySettings,
    RewardEncoderSettings,
)
from plumbob.configs.settings.rewards import ScorerSettings
from plumbob.configs.settings.workers import TransformersEngine
from plumbob.core.errors import UserError
from plumbob.core.programs.function_source import digest_of_source
from plumbob.models.adapter import CONFIG_FILE
from plumbob.rollout.samplers.sampler import SamplerSpec
from plumbob.trainers.build import models_of
from plumbob.trainers.learner.engine import Rank
from tests.support.folder_names import names
from tests.support.full_disk import fill, small_disk
from tests.support.host_requirements import cannot
from tests.support.opened_models import policy_ref

SPEC = SamplerSpec(policy_ref("/gone/base"), "rollout-3", TransformersEngine(), 1.0, 4, 0)
SFT = SftRun(data=DemonstrationDataSettings(demonstrations="/d"), policy=PolicySettings(model="/gone/policy"))


def refusals(probe: Path, said: Path) -> None:
    """What workers of each kind refuse with whose models are not on this host."""
    asked = (
        (RolloutWorker, (SPEC,)),
        (ScorerWorker, (ScorerSettings(model="a/b", ensemble=("/gone/c",)).reward,)),
        (LearnerWorker, SFT),
    )
    for kind, what in asked:
        worker: Any = kind(probe.with_name("worker-1.log"), 1, installed(), probe)
        with pytest.raises(UserError) as refused:
            worker.build(what) if kind is LearnerWorker else worker.open(*what)
        with said.open("a") as file:
            print(refused.value, file=file)


def test_other_packages(tmp_path: Path) -> None:
    worker = RolloutWorker(tmp_path / "rollout-3.log", 1, installed() | {"transformers": "5.0.0"}, tmp_path / "none")
    with pytest.raises(UserError, match=r"worker rollout-3 on [0-9.]+ has transformers .*, the driver has .* 5\.0\.0"):
        worker.open(SPEC)


@pytest.mark.parametrize("kind", [RolloutWorker, ScorerWorker, LearnerWorker])
def test_a_host_that_does_not_see_the_drivers_probe(tmp_path: Path, kind: type[Any]) -> None:
    """Neither one without the folder nor one that has a folder of its own under that path; none is made there."""
    (tmp_path / "own").mkdir()
    for logs in (tmp_path / "none" / "logs", tmp_path / "own"):
        worker = kind(logs / "worker-1.log", 1, installed(), logs / ".driver-00")
        begin = worker.join if kind is LearnerWorker else worker.open
        what = {
            RolloutWorker: (SPEC,),
            ScorerWorker: (ScorerSettings(model="m").reward,),
            LearnerWorker: (Rank(0, 1, "h:1"),),
        }[kind]
        with pytest.raises(UserError) as refused:
            begin(*what)
        said = str(refused.value)
        assert said.startswith("worker worker-1 on ")
        assert said.endswith(
            f" cannot use {logs} as the driver does: .driver-00: No such file or directory; set storage.path to a "
            f"folder on storage that every host can read and write"
        )
    assert names(tmp_path) == ["own"] and names(tmp_path / "own") == []


def test_models_that_the_host_has_not(tmp_path: Path) -> None:
    """In a process of its own: what a worker prints goes to its log."""
    probe, said = StorageProbe(tmp_path).write(), tmp_path / "said"
    process = multiprocessing.get_context("fork").Process(target=refusals, args=(probe, said))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    lines = said.read_text().splitlines()
    assert all(line.startswith("worker worker-1 on ") for line in lines)
    what = "which the driver's host has: [Errno 2] No such file or directory"
    assert [line.partition(" cannot read the model ")[2] for line in lines] == [
        f"/gone/{name}, {what}: '/gone/{name}'; put it where every host can read it" for name in ("base", "c", "policy")
    ]


def write_model(folder: Path, name: str = "config.json", base: Path | None = None) -> Path:
    folder.mkdir()
    (folder / name).write_text(json.dumps({"base_model_name_or_path": None if base is None else str(base)}))
    return folder


def as_nobody(models: Sequence[Path], said: Path) -> None:
    """In a process of its own, as a user who owns nothing: which of the models a worker is refused with, and why."""
    os.setuid(65534)
    with said.open("a") as file:
        for model in models:
            try:
                check_folders("learner-0", "10.0.0.7", (None, "team/hub", str(model)))
            except UserError as error:
                print(error, file=file)


def test_models_that_the_host_has_and_cannot_read() -> None:
    if os.geteuid() != 0:
        cannot("acting as another user needs root")
    with tempfile.TemporaryDirectory() as made:
        outer, said = Path(made), Path(made) / "said"
        readable, unlisted = write_model(outer / "readable"), write_model(outer / "unlisted")
        unread, empty = write_model(outer / "unread"), outer / "empty"
        empty.mkdir()  # As where a file system is not mounted.
        good = write_model(outer / "good", CONFIG_FILE, readable)
        on_unread = write_model(outer / "adapter", CONFIG_FILE, unread)
        said.touch()
        for path, mode in ((outer, 0o755), (said, 0o666), (unlisted, 0o711), (unread / "config.json", 0o600)):
            path.chmod(mode)
        models = (readable, good, unlisted, unread, on_unread, empty)
        process = multiprocessing.get_context("fork").Process(target=as_nobody, args=(models, said))
        process.start()
        process.join(60)
        assert process.exitcode == 0
        denied, missing = "[Errno 13] Permission denied", "[Errno 2] No such file or directory"
        assert said.read_text().splitlines() == [
            f"worker learner-0 on 10.0.0.7 cannot read the model {model}, which the driver's host has: {reason}: "
            f"'{path}'; put it where every host can read it"
            for model, reason, path in (
                (unlisted, denied, unlisted),
                (unread, denied, unread / "config.json"),
                (unread, denied, unread / "config.json"),
                (empty, missing, empty / "config.json"),
            )
        ]


def test_a_base_that_is_named_relative_to_its_adapter(tmp_path: Path) -> None:
    adapter = write_model(tmp_path / "adapter", CONFIG_FILE, Path("../base"))
    (tmp_path / "base").mkdir()
    with pytest.raises(UserError, match=rf"cannot read the model {adapter}/\.\./base, which the driver's host has"):
        check_folders("learner-0", "10.0.0.7", (str(adapter),))
    (tmp_path / "base" / "config.json").write_text("{}")
    check_folders("learner-0", "10.0.0.7", (str(adapter),))


def test_the_models_that_a_learner_loads() -> None:
    assert models_of(SFT) == ("/gone/policy",)
    evaluated = EvaluatedPolicySettings(model="/a", baseline="/b")
    assert models_of(
        EvalRun(data=EvalDataSettings(prompts="/p"), policy=evaluated, reward=ScorerSettings(model="/c"))
    ) == ("/a", "/b")
    teachers = "teachers=[{model: /large, name: a}, {model: /larger, name: b}]"
    distilled = load_run("distill", ["policy.model=/small", "data.prompts=/p", teachers, "teachers_by=which"])
    assert isinstance(distilled, OnlineRun) and models_of(distilled) == ("/small", "/large", "/larger")
    pairs = FeedbackDataSettings(pairs="/p")
    assert models_of(RewardRun(data=pairs, reward=RewardEncoderSettings(model="/encoder"))) == ("/encoder",)
    assert models_of(RewardRun(data=pairs, reward=RewardEncoderSettings(model=NewBertSettings()))) == ()


def test_a_probe_is_the_drivers_own_and_goes_with_it(tmp_path: Path) -> None:
    first, second = StorageProbe(tmp_path / "logs"), StorageProbe(tmp_path / "logs")
    assert names(tmp_path) == []  # Nothing is written before it is asked for.
    assert first.write() == first.write() != second.write()
    first.remove()
    assert names(tmp_path / "logs") == [second.write().name]


def test_a_full_disk_is_no_user_error() -> None:
    with small_disk("64k") as disk:
        probe = StorageProbe(disk).write()
        fill(disk)
        with pytest.raises(OSError, match="No space left on device") as full:
            probe.write_bytes(bytes(100_000))
        with pytest.raises(OSError, match="No space left on device"):
            check_shared("rollout-0", "10.0.0.1", full.value)


def test_a_reward_function_that_a_host_lacks_or_has_another_of(tmp_path: Path) -> None:
    file = tmp_path / "my_reward.py"
    file.write_text("def score(prompt, response): return 1.0")
    function = f"{file}:score"
    sources = {function: digest_of_source(function)}
    check_sources("scorer-1", "10.0.0.2", sources)
    file.write_text("def score(prompt, response): return 2.0")
    with pytest.raises(UserError) as refused:
        check_sources("scorer-1", "10.0.0.2", sources)
    assert str(refused.value) == (
        f"worker scorer-1 on 10.0.0.2: function={function} has another source than on the driver's host; put the same "
        f"on every host, or the file on storage that all of them read"
    )
    file.unlink()
    with pytest.raises(UserError) as refused:
        check_sources("scorer-1", "10.0.0.2", sources)
    assert str(refused.value) == (
        f"worker scorer-1 on 10.0.0.2 has not what the driver's host has: function={function}: there is no such file "
        f"on this host; put it where every host can read it"
    )
