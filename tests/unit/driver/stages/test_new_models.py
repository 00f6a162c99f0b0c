"""Models made before a stage's learners start: named from then on, and left alone where one is named already."""

from pathlib import Path

from transformers import AutoConfig

from plumbob.configs.settings.models import (
    NewBertSettings,
    NewLlamaSettings,
    PretrainedPolicySettings,
    RewardEncoderSettings,
)
from plumbob.driver.stages.new_models import create_encoder, create_policy

TEXTS = ["the car has four doors", "the car is red"]


def test_a_new_policy_is_made_and_named(tmp_path: Path) -> None:
    spec = NewLlamaSettings(vocab_size=300, hidden_size=32, num_layers=1, num_heads=1, intermediate_size=32)
    policy = PretrainedPolicySettings(model=spec, dtype="bfloat16")
    made = create_policy(policy, TEXTS, tmp_path / "new", seed=0)
    assert (made.existing_ref.name, made.existing_ref.dtype) == (str(tmp_path / "new"), "bfloat16")
    assert AutoConfig.from_pretrained(tmp_path / "new").hidden_size == 32
    assert create_policy(made, TEXTS, tmp_path / "other", seed=0) == made and not (tmp_path / "other").exists()


def test_a_new_encoder_is_made_and_named(tmp_path: Path) -> None:
    spec = NewBertSettings(vocab_size=60, hidden_size=16, num_layers=1, num_heads=2, intermediate_size=16)
    made = create_encoder(RewardEncoderSettings(model=spec, max_tokens=40), TEXTS, tmp_path / "new", seed=0)
    assert str(made.existing_encoder) == f"reward.model={tmp_path / 'new'}" and made.max_tokens == 40
    # Eight wide: what an attention kernel of the sampler asks of heads is no matter of an encoder's.
    assert AutoConfig.from_pretrained(tmp_path / "new").num_attention_heads == 2
    assert create_encoder(made, TEXTS, tmp_path / "other", seed=0) == made and not (tmp_path / "other").exists()
