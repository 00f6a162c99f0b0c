"""What learners take, measured in as many processes as there are ranks, beside what the plan expects of each."""

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from tests.support.learner_memory import measure
from tests.support.tiny_policy import write_policy

WITHIN = 0.15


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Llama of 33 M parameters."""
    folder = tmp_path_factory.mktemp("policy")
    torch.manual_seed(0)
    sizes = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 6, "num_attention_heads": 8}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=8000, max_position_embeddings=512, **sizes))
    assert model.num_parameters() == 33_364_480
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(write_policy(folder / "tokens")).save_pretrained(folder)
    return str(folder)


@pytest.mark.slow
@pytest.mark.parametrize(("zero_stage", "num_ranks"), [(2, 2), (3, 2), (2, 1)])
def test_a_rank_takes_what_is_expected(policy: str, zero_stage: int, num_ranks: int) -> None:
    given = ["policy.tuning.kind=full", f"learner.zero_stage={zero_stage}", f"learner.num_workers={num_ranks}"]
    expected, taken = measure(policy, 1, 32, given)
    assert len(taken) == num_ranks
    assert expected == pytest.approx(max(taken), rel=WITHIN), taken
