"""Tiny models that are evaluated."""

import pytest

from plumbob.configs.settings.models import REWARD_MODEL, ModelRef, NewBertSettings
from plumbob.models.adapter import save_adapter
from plumbob.models.from_scratch import build_bert
from plumbob.reward.reward_models.bert_model import new_reward_model
from tests.support.tiny_policy import make_adapter, write_policy


@pytest.fixture(scope="module")
def uncalibrated(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A reward model without a calibration, as any tool may have trained it."""
    encoder, folder = tmp_path_factory.mktemp("encoder"), tmp_path_factory.mktemp("raw")
    sizes = {"hidden_size": 32, "num_heads": 1, "num_layers": 1, "intermediate_size": 32, "vocab_size": 60}
    build_bert(NewBertSettings(max_positions=256, **sizes), ["good bad"], encoder, seed=0)
    made = new_reward_model(ModelRef(str(encoder), REWARD_MODEL))
    made.model.save_pretrained(folder)
    made.tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_policy(tmp_path_factory.mktemp("policy"))


@pytest.fixture(scope="module")
def adapter(policy: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("adapter")
    save_adapter(make_adapter(policy, 0, seed=1), folder)
    return str(folder)
