"""What a setting that names a model may point at, and what a wrong one is told."""

import json
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from transformers import AutoConfig, AutoModelForMaskedLM, AutoTokenizer, BertConfig, MPNetConfig, RobertaConfig

from plumbob.configs.settings.models import EvaluatedPolicySettings, ModelRef, NewBertSettings
from plumbob.core.errors import UserError
from plumbob.models.adapter import save_adapter
from plumbob.models.files import finite_weights
from plumbob.models.from_scratch import build_bert
from plumbob.models.loading import OpenedPolicy, load_causal_lm, open_base, open_baseline, open_model, open_policy
from plumbob.models.resolution import ModelSource, resolve_model
from tests.support.opened_models import opened_policy, policy_ref
from tests.support.tiny_policy import make_adapter, write_policy


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_policy(tmp_path_factory.mktemp("policy"))


@pytest.fixture
def adapter_folder(folder: str, tmp_path: Path) -> Path:
    save_adapter(make_adapter(folder, 0, seed=1), tmp_path / "adapter")
    return tmp_path / "adapter"


def edit(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({name: value for name, value in (content | changes).items() if value is not None}))


def test_a_model_folder_a_hub_name_and_an_adapter(folder: str, adapter_folder: Path) -> None:
    assert resolve_model(policy_ref(folder)) == ModelSource(folder, None)
    assert resolve_model(policy_ref("some-team/some-model")) == ModelSource("some-team/some-model", None)
    assert resolve_model(policy_ref(str(adapter_folder))) == ModelSource(folder, adapter_folder)


@pytest.mark.parametrize("model", ["/no/such/folder", "./missing", "~/missing-model-folder", "runs/toy/sft/policy"])
def test_a_missing_folder_is_not_taken_for_a_hub_name(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"policy\.model=.*: no such folder"):
        resolve_model(policy_ref(model))


@pytest.mark.parametrize("model", ["score.py:main", "a b", "team/name@v1", "-x"])
def test_what_is_no_hub_name_is_not_asked_for(model: str) -> None:
    with pytest.raises(UserError, match=r"there is no such folder, and it is no hub name, which is NAME or TEAM/NAME"):
        resolve_model(policy_ref(model))


def test_a_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_text("")
    with pytest.raises(UserError, match=r"model\.gguf: is a file; a model is a folder with config\.json"):
        resolve_model(policy_ref(str(tmp_path / "model.gguf")))


def test_a_folder_with_neither_model_nor_adapter(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"neither config\.json \(a model\) nor adapter_config\.json"):
        resolve_model(policy_ref(str(tmp_path)))


def test_an_adapter_names_its_base(adapter_folder: Path) -> None:
    config = adapter_folder / "adapter_config.json"
    edit(config, base_model_name_or_path="/gone/away")
    with pytest.raises(UserError, match=r"base_model_name_or_path of .*=/gone/away: no such folder"):
        resolve_model(policy_ref(str(adapter_folder)))
    edit(config, base_model_name_or_path=None)
    with pytest.raises(UserError, match=r"adapter_config\.json: base_model_name_or_path is missing"):
        resolve_model(policy_ref(str(adapter_folder)))


@pytest.mark.parametrize(
    ("named", "place"),
    [
        ("../model", "home/model"),
        ("base", "home/adapter/base"),
        ("model", "home/model"),
        ("./work-model", "work-model"),
    ],
)
def test_a_relative_base_is_looked_for_beside_the_adapter_first(
    folder: str, adapter_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str, place: str
) -> None:
    home, work = tmp_path / "there" / "home", tmp_path / "there"
    shutil.copytree(adapter_folder, home / "adapter")
    shutil.copytree(folder, work / place)
    edit(home / "adapter" / "adapter_config.json", base_model_name_or_path=named)
    # The working folder has one of the same name, which comes last.
    monkeypatch.chdir(work)
    if place != "work-model":
        shutil.copytree(folder, (work / named).resolve(), dirs_exist_ok=True)
    expected = ModelSource(str((work / place).resolve()), home / "adapter")
    assert resolve_model(policy_ref(home / "adapter")) == expected
    # By a relative name of the adapter too.
    assert resolve_model(policy_ref("home/adapter")).base == expected.base


def test_a_base_that_is_nowhere_is_told_where_it_was_looked_for(adapter_folder: Path, tmp_path: Path) -> None:
    edit(adapter_folder / "adapter_config.json", base_model_name_or_path="../out/models/base")
    with pytest.raises(UserError) as refused:
        resolve_model(policy_ref(adapter_folder))
    assert str(refused.value) == (
        f"base_model_name_or_path of {adapter_folder}=../out/models/base: no such folder as "
        f"{adapter_folder}/../out/models/base, {tmp_path}/../out/models/base, {Path.cwd()}/../out/models/base; write "
        f"the base model's folder into base_model_name_or_path of {adapter_folder}/adapter_config.json"
    )


def test_a_hub_name_of_a_base_stays_one(adapter_folder: Path) -> None:
    edit(adapter_folder / "adapter_config.json", base_model_name_or_path="some-team/some-model")
    assert resolve_model(policy_ref(adapter_folder)) == ModelSource("some-team/some-model", adapter_folder)


def test_an_adapter_on_an_adapter(folder: str, adapter_folder: Path, tmp_path: Path) -> None:
    """PEFT stacks them; with one alone the model would be another."""
    save_adapter(make_adapter(folder, 0, seed=2), tmp_path / "second")
    for base in (adapter_folder, tmp_path / "second"):
        edit(tmp_path / "second" / "adapter_config.json", base_model_name_or_path=str(base))
        with pytest.raises(UserError, match=rf"second: was trained on {base}, which is an adapter itself; merge"):
            resolve_model(policy_ref(tmp_path / "second"))


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        ({"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, "bitsandbytes"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, "gptq"),
    ],
)
def test_quantised_weights(folder: str, adapter_folder: Path, tmp_path: Path, stored: Any, said: str) -> None:
    shutil.copytree(folder, tmp_path / "base")
    edit(tmp_path / "base" / "config.json", quantization_config=stored)
    reason = rf"base: its config\.json says that its weights are quantised \({said}\).*give the model that it was made"
    for opening in (open_policy, open_model):
        with pytest.raises(UserError, match=rf"^policy\.model=.*{reason}.*a folder of its own$"):
            opening(policy_ref(tmp_path / "base"))
    edit(adapter_folder / "adapter_config.json", base_model_name_or_path=str(tmp_path / "base"))
    with pytest.raises(
        UserError, match=rf"{reason}.*write that into base_model_name_or_path of .*adapter_config\.json"
    ):
        open_policy(policy_ref(adapter_folder))


def test_a_corrupt_adapter(adapter_folder: Path) -> None:
    (adapter_folder / "adapter_config.json").write_text('{"base_model')
    with pytest.raises(UserError, match=r"adapter_config\.json: cannot be read"):
        resolve_model(policy_ref(str(adapter_folder)))
    (adapter_folder / "adapter_model.safetensors").unlink()
    with pytest.raises(UserError, match=r"adapter_model\.safetensors: is missing"):
        resolve_model(policy_ref(str(adapter_folder)))


def test_a_hub_name_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    wanted = r"policy\.model=no-team/none: cannot be read as a model: .*; give a folder, or a name on the hub"
    with pytest.raises(UserError, match=wanted):
        open_policy(policy_ref("no-team/none"))


def test_weights_that_are_not_whole(folder: str, adapter_folder: Path, tmp_path: Path) -> None:
    weights = adapter_folder / "adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(b"cut")
    with pytest.raises(UserError, match=r"policy\.model=.*adapter: adapter_model\.safetensors is damaged"):
        resolve_model(policy_ref(str(adapter_folder)))
    weights.write_bytes(whole)
    base = tmp_path / "base"
    shutil.copytree(folder, base)
    (base / "model.safetensors").write_bytes(b"cut")
    edit(adapter_folder / "adapter_config.json", base_model_name_or_path=str(base))
    for model in (base, adapter_folder):
        with pytest.raises(UserError, match=rf"{base}: model\.safetensors is damaged"):
            resolve_model(policy_ref(str(model)))


def test_what_a_look_at_a_large_file_passes_over_is_refused_when_it_is_loaded(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_causal_lm(open_policy(policy_ref(folder)))
    model.model.layers[1].mlp.up_proj.weight.data[-1, -1] = torch.nan
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path)
    monkeypatch.setattr(finite_weights, "MAX_READ", 0)
    opened = open_policy(policy_ref(str(tmp_path)))
    with pytest.raises(UserError, match=rf"^policy\.model={tmp_path}: model\.layers\.1\.mlp\.up_proj\.weight has numb"):
        load_causal_lm(opened)


def test_the_tokenizer_is_the_adapters_where_it_has_one(folder: str, adapter_folder: Path) -> None:
    assert ModelSource(folder, adapter_folder).tokenizer_folder == folder
    AutoTokenizer.from_pretrained(folder).save_pretrained(adapter_folder)
    assert ModelSource(folder, adapter_folder).tokenizer_folder == str(adapter_folder)


def test_the_context_is_the_models(folder: str) -> None:
    assert open_model(policy_ref(folder)).num_positions == 256


def test_the_context_has_other_names_too(folder: str, tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text('{"model_type": "bloom", "seq_length": 77}')
    assert opened_policy(tmp_path).num_positions == 77
    config.write_text('{"model_type": "bloom"}')
    with pytest.raises(UserError, match=r"does not say how many positions .*max_position_embeddings"):
        _ = opened_policy(tmp_path).num_positions


TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 9}


@pytest.mark.parametrize(("config", "positions"), [(RobertaConfig, 20 - 2), (MPNetConfig, 20 - 2), (BertConfig, 20)])
def test_encoders_that_keep_positions_for_padding(config: Any, positions: int, tmp_path: Path) -> None:
    """RoBERTa's first token has position 2: one more than the padding token's id, which is 1."""
    made = config(max_position_embeddings=20, pad_token_id=1, **TINY)
    model = AutoModelForMaskedLM.from_config(made).eval()
    model.save_pretrained(tmp_path)
    assert open_model(policy_ref(tmp_path)).num_positions == positions
    model(input_ids=torch.full((1, positions), 5))
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, positions + 1), 5))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"peft_type": "LOHA"}, r"policy\.model=.*peft_type LOHA, .*merge_and_unload"),
        ({"r": None}, r"adapter_config\.json: r is null, and must be a whole number from 1 to 65,536"),
    ],
)
def test_an_adapter_that_is_no_lora(adapter_folder: Path, change: dict[str, Any], message: str) -> None:
    edit(adapter_folder / "adapter_config.json", **change)
    with pytest.raises(UserError, match=message):
        resolve_model(policy_ref(str(adapter_folder)))


def test_an_encoder_is_no_policy(tmp_path: Path) -> None:
    spec = NewBertSettings(vocab_size=64, hidden_size=32, num_layers=1, num_heads=1, intermediate_size=32)
    build_bert(spec, ["some words to learn letters from"], tmp_path, seed=0)
    with pytest.raises(UserError, match=r"BertForMaskedLM is not a causal language model"):
        open_policy(policy_ref(tmp_path))


def test_a_config_or_weights_that_cannot_be_read(folder: str, tmp_path: Path) -> None:
    write_policy(tmp_path)
    opened = open_policy(policy_ref(tmp_path))
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="the weights cannot be loaded"):
        load_causal_lm(opened)
    (tmp_path / "config.json").write_text('{"model_type": "no-such-architecture"}')
    with pytest.raises(UserError, match="cannot be read as a model"):
        opened_policy(tmp_path)


def test_a_model_is_read_once(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open_policy(policy_ref(folder))
    assert (opened.num_positions, opened.tokenizer.eos_token_id) == (256, 1)
    for auto in (AutoConfig, AutoTokenizer):
        monkeypatch.setattr(auto, "from_pretrained", lambda *_, **__: pytest.fail("it was read again"))
    assert (opened.num_positions, opened.tokenizer.eos_token_id) == (256, 1)
    load_causal_lm(opened)


def test_dropout_is_switched_off_in_the_model_alone(folder: str) -> None:
    """What was opened stays as it was read: others are made from it."""
    opened = open_policy(policy_ref(folder))
    opened.config.attention_dropout = 0.5
    assert load_causal_lm(opened, with_dropout=False).config.attention_dropout == 0.0
    assert opened.config.attention_dropout == 0.5


@pytest.mark.parametrize("setting", ["policy.model", "policy.baseline", "calibration.policy"])
def test_an_error_names_the_setting_that_named_the_model(folder: str, tmp_path: Path, setting: str) -> None:
    shutil.copytree(folder, tmp_path / "model")
    ref = ModelRef(str(tmp_path / "model"), setting)
    opened = open_policy(ref)
    (tmp_path / "model" / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(UserError, match=rf"^{setting}=.*model: the weights cannot be loaded"):
        load_causal_lm(opened)
    with pytest.raises(UserError, match=rf"^{setting}=.*model: model\.safetensors is damaged"):
        open_policy(ref)
    (tmp_path / "model" / "config.json").write_text('{"model_type": "bert", "architectures": ["BertForMaskedLM"]}')
    with pytest.raises(UserError, match=rf"^{setting}=.*model: BertForMaskedLM is not a causal language model"):
        open_base(ref, ModelSource(ref.name, None))


def test_two_settings_that_name_one_model_name_the_same(folder: str) -> None:
    assert ModelRef(folder, "policy.model") == ModelRef(folder, "policy.baseline")
    assert ModelRef(folder, "policy.model") != ModelRef(folder, "policy.model", dtype="bfloat16")


def test_what_an_evaluated_policy_is_compared_with(folder: str, adapter_folder: Path) -> None:
    def baseline(model: str | Path, asked: str | None = None) -> OpenedPolicy | None:
        return open_baseline(EvaluatedPolicySettings(model=str(model), baseline=asked))

    assert baseline(folder) is None
    own, asked = baseline(adapter_folder), baseline(folder, str(adapter_folder))
    assert own is not None and own.source == ModelSource(folder, None)
    assert asked is not None and asked.source == ModelSource(folder, adapter_folder)
    assert asked.ref.setting == "policy.baseline"
