"""Adapters of vectors that plain PEFT has trained, as a policy to begin with: carried to the digit, or refused."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from peft import IA3Config, PeftConfig, VeraConfig

from plumbob.configs.settings.models import AlignedPolicySettings
from plumbob.configs.settings.tuning.adapters import Ia3Tuning, LoraTuning, VeraTuning
from plumbob.configs.settings.workers import LearnerSettings, TransformersEngine, VllmEngine
from plumbob.core.errors import UserError
from plumbob.models.adapter import CONFIG_FILE
from plumbob.models.tuning.methods import PEFT_KINDS, check_served, open_tunable
from plumbob.rollout.samplers.open_sampler import support_of
from tests.support.carried_adapters import ROLES, check_carried, lora, trained_with_peft
from tests.support.opened_models import opened_policy
from tests.support.tiny_policy import write_policy


def ia3(**config: Any) -> IA3Config:
    asked = {"target_modules": ["k_proj", "v_proj", "down_proj"], "feedforward_modules": ["down_proj"]} | config
    return IA3Config(task_type="CAUSAL_LM", **asked)


def vera(**config: Any) -> VeraConfig:
    return VeraConfig(task_type="CAUSAL_LM", **({"r": 6, "target_modules": ["q_proj", "v_proj"]} | config))


CARRIED: tuple[tuple[PeftConfig, Any], ...] = (
    (ia3(), Ia3Tuning()),
    (ia3(feedforward_modules=[]), Ia3Tuning()),
    (ia3(target_modules="all-linear", feedforward_modules=[], exclude_modules=["o_proj"]), Ia3Tuning()),
    (ia3(modules_to_save=["lm_head"]), Ia3Tuning()),
    (ia3(init_ia3_weights=False), Ia3Tuning()),
    # The settings are of new adapters; what was given stays what it is.
    (ia3(), LoraTuning()),
    (vera(), VeraTuning()),
    (vera(target_modules="all-linear", vera_dropout=0.5, projection_prng_key=9), VeraTuning()),
    (vera(layers_to_transform=[1], layers_pattern="layers", d_initial=1.0), VeraTuning()),
    (vera(modules_to_save=["lm_head"], d_initial=0.5), VeraTuning()),
    (vera(init_weights=False), VeraTuning()),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_policy(tmp_path_factory.mktemp("policy"))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("number", range(len(CARRIED)))
def test_a_given_adapter_is_what_plain_peft_computes(folder: str, tmp_path: Path, number: int) -> None:
    config, tuning = CARRIED[number]
    check_carried(folder, tmp_path, config, tuning)


@pytest.mark.parametrize("kind", [IA3Config, VeraConfig])
def test_every_field_of_the_installed_peft_has_its_line(kind: Any) -> None:
    of_peft = {field.name for field in fields(kind)}
    table = PEFT_KINDS["IA3" if kind is IA3Config else "VERA"].fields
    assert of_peft - table.keys() == set(), "new in PEFT: say in vector_methods.py what becomes of it"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("config", "kind"), [(ia3(), "IA3"), (vera(), "VERA")])
def test_vllm_merges_it_or_is_refused(folder: str, tmp_path: Path, config: PeftConfig, kind: str) -> None:
    trained_with_peft(folder, tmp_path, config)
    opened = opened_policy(folder, tmp_path)
    for support in (support_of(VllmEngine(), "merged"), support_of(TransformersEngine())):
        check_served(opened, support, ROLES)
    wanted = (
        rf"trained with peft_type={kind}, which vLLM cannot carry; set rollout\.adapter=merged, or set "
        r"rollout\.engine\.kind=transformers, or merge it into its base"
    )
    with pytest.raises(UserError, match=wanted):
        check_served(opened, support_of(VllmEngine()))
    policy = AlignedPolicySettings(model=str(tmp_path))
    open_tunable(policy, ROLES, LearnerSettings(zero_stage=2))
    with pytest.raises(UserError, match=r"learner\.zero_stage=3: .* policy\.model=.* set learner\.zero_stage=2, or"):
        open_tunable(policy, ROLES, LearnerSettings(zero_stage=3))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("config", "changed", "wanted"),
    [
        (vera(), {"save_projection": False}, r"save_projection=false, which training cannot carry; save it again with"),
        (vera(), {"bias": "all"}, r"bias=all, which training cannot carry; merge it into its base first"),
        (ia3(), {"task_type": "SEQ_CLS"}, r"task_type=SEQ_CLS, which training cannot carry; give an adapter"),
        (vera(), {"r": 0}, r"r is 0, and must be a whole number from 1"),
        (
            vera(),
            {"peft_type": "LOHA"},
            r"peft_type LOHA, and only LORA, IA3, VERA, BOTTLENECK, PROMPT_TUNING, P_TUNING",
        ),
    ],
)
def test_what_nobody_can_carry(
    folder: str, tmp_path: Path, config: PeftConfig, changed: dict[str, Any], wanted: str
) -> None:
    trained_with_peft(folder, tmp_path, config)
    file = tmp_path / CONFIG_FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | changed))
    with pytest.raises(UserError, match=wanted):
        open_tunable(AlignedPolicySettings(model=str(tmp_path)), ROLES)


@pytest.mark.parametrize("tuning", [Ia3Tuning(), VeraTuning()], ids=lambda tuning: tuning.kind)
def test_a_given_adapter_is_not_made_another(folder: str, tmp_path: Path, tuning: Ia3Tuning | VeraTuning) -> None:
    trained_with_peft(folder, tmp_path, lora())
    wanted = (
        rf"^policy\.tuning\.kind={tuning.kind}: policy\.model=.* is an adapter of peft_type LORA, and is trained "
        r"further as what it is; leave policy\.tuning out, or give a full model$"
    )
    with pytest.raises(UserError, match=wanted):
        open_tunable(AlignedPolicySettings(model=str(tmp_path), tuning=tuning), ROLES)
