"""Which settings are files, models and changeable: by hand for every kind of run, against the schema's types."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_origin

import pytest

from plumbob.configs.base import InputFile, IsFile, IsFunction, IsModel, MayChange, ModelName, Settings
from plumbob.configs.paths import with_absolute_paths
from plumbob.configs.runs import RUN_KINDS, Run
from plumbob.configs.schema import (
    element_groups_of,
    groups_of,
    is_marked,
    marked_keys,
    marked_texts,
    types_of,
    with_marked_texts,
)
from plumbob.core.errors import UserError

RETAINED, REPLAYED = "retention.text", "replay.text"
FILES = {
    "pretrain": {"data.text", "data.heldout_text"},
    "pretrain-encoder": {"data.text", "data.heldout_text"},
    "sft": {"data.demonstrations", "data.heldout_demonstrations", "data.mixture", RETAINED, REPLAYED},
    "reward": {f"data.{side}{name}" for side in ("", "heldout_") for name in ("pairs", "rankings", "scores")},
    "dpo": {"data.pairs", "data.heldout_pairs", "data.mixture", RETAINED},
    "kto": {"data.labelled", "data.heldout_labelled", "data.mixture", RETAINED},
    "online": {"data.prompts", "data.heldout_prompts", "data.mixture", RETAINED, REPLAYED},
    "eval": {"data.prompts", "data.pairs", "perplexity.text"},
    "pipeline": {"data.pairs", "data.heldout_pairs", "data.demonstrations", "data.prompts", "data.text"},
}
for kind in FILES.keys() - {"eval"}:
    FILES[kind].add("data.checks.benchmarks")
for kind in ("online", "pipeline"):
    FILES[kind] |= {"bias.texts", "bias.terms"}
for kind in ("reward", "pipeline"):
    FILES[kind].add("reward_training.mitigation.terms")
MODELS_OF_REWARD = {"reward.model", "reward.ensemble", "reward.parts.model"}
MODELS = {
    "pretrain": {"policy.model"},
    "pretrain-encoder": {"reward.model"},
    "sft": {"policy.model"},
    "reward": {"reward.model", "calibration.policy"},
    "dpo": {"policy.model"},
    "kto": {"policy.model"},
    "online": {
        *{"policy.model", "teachers.model", *MODELS_OF_REWARD},
        *{"gold_reward.model", "gold_reward.ensemble", "gold_reward.parts.model"},
    },
    "eval": {"policy.model", "policy.baseline", "policy.also", *MODELS_OF_REWARD},
    "pipeline": {"policy.model", *MODELS_OF_REWARD},
}

WORKERS = {"num_workers", "num_threads", "num_cpus", "num_gpus", "memory_gib", "placement"}
RANKS = {f"learner.{name}" for name in WORKERS | {"micro_batch_size"}}
LEARNER = RANKS | {
    *("learner.zero_stage", "learner.gradient_checkpointing"),
    *("learner.offload_optimizer", "learner.offload_params", "learner.offload_reference"),
}
ENGINE = {f"rollout.engine.{name}" for name in ("kv_cache_gib", "gpu_memory_fraction", "max_num_seqs", "enforce_eager")}
ROLLOUT = {f"rollout.{name}" for name in WORKERS | {"tensor_parallel", "adapter", "autoscale"}} | ENGINE
SERVICE = {f"parts.{name}" for name in ("url", "token_env", "timeout_s", "retries", "max_in_flight")}
REWARD, GOLD = ({f"{group}.{name}" for name in WORKERS | SERVICE} for group in ("reward", "gold_reward"))


def kept(*stages: str) -> set[str]:
    return {f"{stage}.{name}" for stage in stages for name in ("save_every", "keep_checkpoints")}


CHANGEABLE = {
    "pretrain": {"cluster", "energy", "sinks"} | LEARNER | kept("pretrain"),
    "pretrain-encoder": {"cluster", "energy", "sinks"} | LEARNER | kept("pretrain"),
    "sft": {"cluster", "energy", "sinks"} | LEARNER | kept("sft"),
    "reward": {"cluster", "energy", "sinks"} | LEARNER | ROLLOUT | kept("reward_training"),
    "dpo": {"cluster", "energy", "sinks"} | LEARNER | kept("dpo"),
    "kto": {"cluster", "energy", "sinks"} | LEARNER | kept("kto"),
    "online": {"cluster", "energy", "sinks"} | LEARNER | ROLLOUT | REWARD | GOLD | {"online.keep_checkpoints"},
    "eval": {"cluster", "energy"} | RANKS | ROLLOUT | REWARD,
    "pipeline": {"cluster", "energy", "sinks"}
    | (LEARNER | ROLLOUT | REWARD)
    | kept("pretrain", "pretrain_encoder", "sft", "reward_training", "dpo")
    | {"online.keep_checkpoints"},
}

PLAIN_TEXT = {"name", "storage.path", "cluster.address", "cluster.kuberay.queue", "energy.country"}
"""Texts that are no input: what is made, where, a network address, a queue of Kubernetes, and a country."""

COLUMNS = {"online": {"teachers_by"}}
"""Texts that name a column of an input, by the kind of run."""


@pytest.mark.parametrize("kind", RUN_KINDS)
@pytest.mark.parametrize(("expected", "mark"), [(FILES, IsFile), (MODELS, IsModel), (CHANGEABLE, MayChange)])
def test_what_a_setting_is_stands_in_its_type(kind: str, expected: dict[str, set[str]], mark: type) -> None:
    found = marked_keys(RUN_KINDS[kind], mark)
    assert set(found) == expected[kind]
    assert len(found) == len(set(found))


def texts_without_mark(model: type[Settings], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        if str in types_of(field.annotation) and not any(
            is_marked(field, mark) for mark in (IsFile, IsModel, IsFunction)
        ):
            yield f"{prefix}{name}"
        for group in groups_of(field.annotation):
            yield from texts_without_mark(group, f"{prefix}{name}.")


@pytest.mark.parametrize("kind", RUN_KINDS)
def test_any_other_text_is_known_to_be_no_input(kind: str) -> None:
    """A new setting that names a file or a model is `InputFile` or `ModelName`; else it is added to those here."""
    keys = set(texts_without_mark(RUN_KINDS[kind]))
    # What stands around a prompt, wherever files are read; what a soft prompt begins at; a column that names tasks; a
    # file that is written.
    others = (".prompt_template", ".init_text", ".task_column", ".responses_file")
    found = {key for key in keys if not key.endswith(others)}
    assert found == PLAIN_TEXT | COLUMNS.get(kind, set())


def filled(model: type[Settings], prefix: str = "") -> Any:
    """The settings, unchecked, with a relative path of its own in all that is a file or a model."""
    values: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        key, inner = f"{prefix}{name}", groups_of(field.annotation)
        if is_marked(field, IsFile) or is_marked(field, IsModel):
            kinds = {get_origin(one) for one in types_of(field.annotation)}
            two = (f"one-{key}", f"two-{key}")
            values[name] = dict.fromkeys(two, 1.0) if dict in kinds else two if tuple in kinds else two[0]
        elif parts := element_groups_of(field.annotation):
            values[name] = tuple(filled(part, f"{key}.{number}.") for number, part in enumerate(parts))
        elif inner:
            values[name] = filled(inner[0], f"{key}.")
        elif field.is_required():
            values[name] = 1
    return model.model_construct(**values)


@pytest.mark.parametrize("kind", RUN_KINDS)
def test_all_files_and_models_of_every_run_become_absolute(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run: Run = filled(RUN_KINDS[kind])
    for _, name in marked_texts(run, IsModel):
        Path(name).mkdir()
    whole = with_absolute_paths(run)
    for mark, expected in ((IsFile, FILES), (IsModel, MODELS)):
        found = list(marked_texts(whole, mark))
        assert {re.sub(r"\.\d+\.", ".", key) for key, _ in found} == expected[kind]
        assert [path for _, path in found] == [str(tmp_path / name) for _, name in marked_texts(run, mark)]
    ensembles = [key for key, _ in marked_texts(whole, IsModel) if key.endswith("ensemble")]
    assert len(ensembles) == 2 * len(set(ensembles))


def groups_below(model: type[Settings]) -> Iterator[type[Settings]]:
    for field in model.model_fields.values():
        for group in groups_of(field.annotation):
            yield group
            yield from groups_below(group)


def test_a_group_of_settings_is_called_settings() -> None:
    """Or it is a variant of a union, which has a `kind` and is called after what it chooses."""
    found = {group for model in RUN_KINDS.values() for group in groups_below(model)}
    assert len(found) > 50
    assert {group.__name__ for group in found if "kind" not in group.model_fields and not is_settings(group)} == set()


def is_settings(group: type[Settings]) -> bool:
    return group.__name__.endswith("Settings")


def test_only_marked_texts_change() -> None:
    class Inner(Settings):
        file: InputFile | None = None
        plain: str = "p"

    class Outer(Settings):
        model: ModelName | Inner
        models: tuple[ModelName, ...] = ()
        files: dict[InputFile, float] = {}  # noqa: RUF012 - pydantic copies it
        inner: Inner | None = None

    outer = Outer(model=Inner(file="f"), models=("a", "b"), inner=Inner())
    assert list(marked_texts(outer, IsModel)) == [("models", "a"), ("models", "b")]
    assert list(marked_texts(outer, IsFile)) == [("model.file", "f")]
    assert with_marked_texts(outer, IsModel, str.upper) == Outer(
        model=Inner(file="f"), models=("A", "B"), inner=Inner()
    )
    assert with_marked_texts(outer, IsFile, str.upper).model == Inner(file="F")
    assert with_marked_texts(Outer(model="m"), IsModel, str.upper) == Outer(model="M")
    mixed = Outer(model="m", files={"a": 1, "b": 2})
    assert list(marked_texts(mixed, IsFile)) == [("files", "a"), ("files", "b")]
    assert with_marked_texts(mixed, IsFile, str.upper).files == {"A": 1, "B": 2}
    with pytest.raises(UserError, match="files: two of a, b are the same: give it once"):
        with_marked_texts(mixed, IsFile, lambda _: "c")
    assert with_marked_texts(outer, MayChange, str.upper) is outer
