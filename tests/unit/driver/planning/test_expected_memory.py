"""What workers are expected to take, from the settings of a run and the files of its models."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import AutoModelForSequenceClassification

from plumbob.cluster.admission import what_cannot_be
from plumbob.cluster.resources import Host, ResourceAmount, resource_needs, settings_that_hold, total_bytes, widest
from plumbob.configs.load_run import load_run
from plumbob.driver.input_sizes.learner_rows import LearnerRows
from plumbob.driver.planning.expected_memory import expected_memory
from plumbob.driver.planning.expected_programs import BEGUN, CHECKED, FORKED
from plumbob.models.adapter import save_adapter
from plumbob.models.sizes.memory import GIB, VLLM_FLOOR, MemoryEstimate
from tests.support.tiny_policy import make_adapter, write_policy
from tests.support.tiny_scorer import write_scorer
from tests.unit.reward.test_decoder_scorer import write_decoder

BLOCK = 2 * 128 * 128 + 2 * 128 * 64 + 3 * 128 * 256 + 2 * 128
"""Of the tiny policy, whose hidden size is 128, with 4 heads and 2 for keys and values; it has two, and a norm."""

ADAPTER = 4 * 2 * (2 * (128 + 128) + 2 * (128 + 64) + 3 * (128 + 256))
"""Of rank 4 on all linear layers."""

LORA = 8 * 128 + 4 * 256
"""What a block keeps of one token beside LoRA; where its weights are trained 2 x 128 more."""

IN_AUTOCAST = 4 * 2 * 128 + 2 * (4 * 128 + 3 * 256) + 2 * (5 * 128 + 256)
"""Bytes of the same, and of both blocks' matrices in bfloat16:"""
ROUNDED = 2 * 2 * (BLOCK - 2 * 128)

TEACHER = 7 * 128 + 2 * 64 + 4 * 256
"""What one layer of a forward alone has."""


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_policy(tmp_path_factory.mktemp("models") / "policy")


def num_parameters(policy: str) -> int:
    """With untied embeddings of as many tokens as its config says."""
    vocabulary = json.loads((Path(policy) / "config.json").read_text())["vocab_size"]
    return 2 * vocabulary * 128 + 2 * BLOCK + 128


def learner_of(preset: str, *overrides: str, longest: int | None = None) -> MemoryEstimate:
    run = load_run(preset, overrides)
    return widest(expected_memory(run, rows(run.stage, longest)))["learner"]


def rows(stage: str, longest: int | None) -> dict[str, LearnerRows]:
    """Of a stage whose longest row is known."""
    return {} if longest is None else {stage: LearnerRows(longest)}


def test_all_weights_or_an_adapter_are_trained(policy: str) -> None:
    given = (f"policy.model={policy}", "data.demonstrations=d", "learner.micro_batch_size=3")
    number = num_parameters(policy)
    whole = learner_of("sft", *given, "policy.tuning.kind=full", "learner.autocast=false", longest=20)
    assert (whole.weights, whole.optimizer) == (4 * number, 8 * number)  # One rank keeps no copy.
    assert whole.activations == pytest.approx(1.5 * 4 * 3 * 20 * 2 * (LORA + 2 * 128), abs=1)
    given = (*given, "policy.tuning.rank=4")
    adapter = learner_of("sft", *given, longest=20)
    assert (adapter.weights, adapter.optimizer) == (4 * (number + ADAPTER), 8 * ADAPTER)
    # Shared by two, and at most as long as the settings allow: a prompt and a response of 30 tokens each.
    limits = ("data.max_prompt_tokens=30", "data.max_response_tokens=30", "learner.num_workers=2", "sft.batch_size=6")
    shared = learner_of("sft", *given, *limits, "learner.autocast=false")
    assert (shared.optimizer, shared.activations) == (6 * ADAPTER, pytest.approx(1.5 * 4 * 3 * 60 * 2 * LORA, abs=1))


def test_every_role_of_an_adapter_has_weights_of_its_own(policy: str, tmp_path: Path) -> None:
    save_adapter(make_adapter(policy, version=0, seed=0, rank=4), tmp_path / "adapter")
    scorer = write_scorer(tmp_path / "scorer")
    number = num_parameters(policy)
    pairs = learner_of("dpo", f"policy.model={tmp_path}/adapter", "data.pairs=p", longest=20)
    # The reference is a frozen copy; chosen and rejected go through together.
    assert (pairs.weights, pairs.optimizer) == (4 * (number + 2 * ADAPTER), 8 * ADAPTER)
    assert pairs.activations == pytest.approx(1.5 * 8 * 2 * 20 * 2 * IN_AUTOCAST + ROUNDED, abs=1)
    given = (f"policy.model={tmp_path}/adapter", f"reward.model={scorer}", "data.prompts=p", "rollout.chunk_size=8")
    given = (*given, "rollout.engine.kv_cache_gib=0.5")
    found = expected_memory(load_run("ppo", given), rows("ppo", 20))["ppo"]
    # The critic is a third, which learns too.
    assert found["learner"].weights == 4 * (number + 3 * ADAPTER)
    assert found["learner"].optimizer == 8 * 2 * ADAPTER
    # Of a step's responses each as long as the longest; of two ranks each has half.
    assert found["learner"].experience == 166 * 64 * 20
    halved = expected_memory(load_run("ppo", [*given, "learner.num_workers=2"]), rows("ppo", 20))["ppo"]["learner"]
    assert halved.experience == 166 * 32 * 20
    assert found["rollout"].cache == 2**29 and found["rollout"].framework == VLLM_FLOOR
    # Merged, a second base is kept, from which each version is made; unmerged, two versions.
    assert found["rollout"].weights == 4 * 2 * number
    unmerged = expected_memory(load_run("ppo", [*given, "rollout.adapter=lora"]), rows("ppo", 20))["ppo"]["rollout"]
    assert unmerged.weights == 4 * (number + 2 * ADAPTER)
    assert set(found) == {"learner", "rollout", "scorer"}


def test_every_role_of_trained_weights_is_a_model_of_its_own(policy: str, tmp_path: Path) -> None:
    scorer, number = write_scorer(tmp_path / "scorer"), num_parameters(policy)
    vocabulary = json.loads((Path(policy) / "config.json").read_text())["vocab_size"]
    full, head = "policy.tuning.kind=full", vocabulary * 128
    pairs = (f"policy.model={policy}", "data.pairs=p", full)
    # A frozen reference beside the policy; none where the loss has none.
    assert learner_of("dpo", *pairs).weights == 4 * 2 * number
    alone = learner_of("dpo", *pairs, "dpo.loss.kind=simpo")
    assert (alone.weights, alone.optimizer) == (4 * number, 8 * number)
    given = (f"policy.model={policy}", "data.prompts=p", f"reward.model={scorer}", full)
    found = expected_memory(load_run("ppo", given))["ppo"]
    # The critic is a third, of which all but the head is trained.
    assert found["learner"].weights == 4 * 3 * number
    assert found["learner"].optimizer == 8 * (2 * number - head)
    # The version that is sampled from, and the next.
    assert found["rollout"].weights == 4 * 3 * number
    shared = expected_memory(load_run("ppo", [*given, "policy.tuning.critic=head"]))["ppo"]["learner"]
    assert (shared.weights, shared.optimizer) == (4 * 2 * number, 8 * number)
    # Five norms of 128, twice.
    norms = [*given[:3], "policy.tuning.kind=selective", "policy.tuning.norms=true"]
    some = expected_memory(load_run("ppo", norms))["ppo"]
    assert (some["learner"].weights, some["learner"].optimizer) == (4 * 3 * number, 8 * 2 * 5 * 128)
    assert some["rollout"].weights == 4 * (number + 2 * 5 * 128)


def test_a_base_in_4_bits(policy: str) -> None:
    given = (f"policy.model={policy}", "data.pairs=p", "policy.tuning.rank=4", "learner.autocast=false")
    quantised = ("policy.quantization.kind=nf4", "policy.quantization.double_quantization=false")
    whole, base = learner_of("dpo", *given, longest=20), learner_of("dpo", *given, *quantised, longest=20)
    # All linear layers of the two blocks: 4.5 bits instead of 32. Norms, embeddings, head and the adapter stay.
    linear = 2 * (BLOCK - 2 * 128)
    assert whole.weights - base.weights == linear * (4 - 4.5 / 8)
    # PEFT's own layers keep more than those that are fused with whole ones.
    assert base.optimizer == whole.optimizer and base.activations / whole.activations == pytest.approx(2.16 / 1.5)


def test_teachers_are_held_beside_the_policy(policy: str, tmp_path: Path) -> None:
    save_adapter(make_adapter(policy, version=0, seed=0, rank=4), tmp_path / "adapter")
    number = num_parameters(policy)
    given = (f"policy.model={policy}", "data.prompts=p", "policy.tuning.rank=4", "learner.autocast=false")
    given = (*given, "learner.micro_batch_size=2")
    half = f"teachers=[{{model: {policy}, name: a, dtype: bfloat16}}, {{model: {tmp_path}/adapter, name: b}}]"
    alone = expected_memory(load_run("distill", [*given, f"teachers=[{{model: {policy}}}]"]), rows("distillation", 20))[
        "distillation"
    ]
    found = expected_memory(load_run("distill", [*given, half, "teachers_by=x"]), rows("distillation", 20))[
        "distillation"
    ]
    # No critic, and no scorer. The policy's base with its adapter, and frozen: in two bytes each, and in four.
    assert set(found) == {"learner", "rollout"}
    assert alone["learner"].weights == 4 * (number + ADAPTER) + 4 * number
    assert found["learner"].weights == 4 * (number + ADAPTER) + 2 * number + 4 * (number + ADAPTER)
    assert found["learner"].optimizer == 8 * ADAPTER
    # One layer of a teacher at a time, in float32 the widest.
    assert found["learner"].activations == alone["learner"].activations
    policys = 1.5 * 4 * 2 * 20 * 2 * LORA
    assert alone["learner"].activations == pytest.approx(policys + 1.3 * 4 * 2 * 20 * TEACHER, abs=2)
    # In 4.5 bits the linear layers of its blocks.
    bits = f"teachers=[{{model: {policy}, quantization: {{kind: nf4, double_quantization: false}}}}]"
    few = expected_memory(load_run("distill", [*given, bits]), rows("distillation", 20))["distillation"]
    assert alone["learner"].weights - few["learner"].weights == 2 * (BLOCK - 2 * 128) * (4 - 4.5 / 8)
    # ZeRO-3 divides them too.
    divided = ("learner.num_workers=2", "learner.zero_stage=3", "online.minibatch_size=32")
    shared = expected_memory(
        load_run("distill", [*given, f"teachers=[{{model: {policy}}}]", *divided]), rows("distillation", 20)
    )
    assert shared["distillation"]["learner"].weights == alone["learner"].weights // 2


PARTS = """[
    {kind: model, model: DECODER, batch_size: 4, max_tokens: 64}, {kind: length, max: 9}, {kind: math},
    {kind: function, function: FILE:score, memory_gib: 1.5}, {kind: code, memory_gib: 0.5, max_processes: 3},
    {kind: llm-judge, url: 'http://127.0.0.1:1', model: m, rubric: r}
]"""


def test_a_scorer_holds_the_models_of_its_parts_and_has_their_programs_beside_it(policy: str, tmp_path: Path) -> None:
    decoder, function = write_decoder(tmp_path / "decoder", None), tmp_path / "mine.py"
    function.write_text("def score(prompt, response): return 0.0")
    number = AutoModelForSequenceClassification.from_pretrained(decoder).num_parameters()
    parts = PARTS.replace("DECODER", str(decoder)).replace("FILE", str(function)).replace("\n", " ")
    given = (f"policy.model={policy}", "data.prompts=p", f"reward.parts={parts}", "rollout.chunk_size=8")
    found = expected_memory(load_run("rloo", given))["rloo"]
    scorer = found["scorer"]
    # 7 x 32 numbers of the hidden size, keys and values as wide, 4 x 64; of 4 texts of 64 tokens, not of 32 of 256.
    assert scorer.weights == 4 * number
    assert scorer.activations == pytest.approx(1.3 * 4 * 4 * 64 * (9 * 32 + 4 * 64), abs=1)
    # The function's process, two sandboxes of two responses each, and the one in which math-verify is.
    assert scorer.programs == 5 * BEGUN + CHECKED
    assert scorer.beyond == int(1.5 * GIB) - BEGUN + 2 * 3 * GIB // 2 - 4 * BEGUN
    assert scorer.total == scorer.weights + scorer.activations + scorer.framework + scorer.programs
    assert found["rollout"].programs == 0
    world = ("rollout.environment.source=x.y:World", "rollout.environment.memory_gib=0.25")
    acted = expected_memory(load_run("rloo", [*given[:2], "reward.parts=[{kind: environment}]", *given[3:], *world]))
    rollout = acted["rloo"]["rollout"]
    # One process imports it, and is forked for each of eight episodes.
    assert rollout.programs == BEGUN + 8 * FORKED and rollout.beyond == 2 * GIB - rollout.programs
    assert rollout.total - rollout.programs == found["rollout"].total


def test_models_that_are_yet_to_be_made(policy: str) -> None:
    alone, all_of_them = {"learner"}, {"learner", "rollout", "scorer"}
    assert {stage: set(roles) for stage, roles in expected_memory(load_run("toy")).items()} == {
        "pretrain": alone, "pretrain-encoder": alone, "sft": alone,
        "reward": {"learner", "rollout"}, "ppo": all_of_them, "dpo": all_of_them,
    }  # fmt: skip
    halved = expected_memory(load_run("toy", ["policy.dtype=bfloat16", "rollout.adapter=lora"]))
    full = expected_memory(load_run("toy", ["rollout.adapter=lora"]))
    for stage in ("pretrain", "sft", "ppo", "dpo"):
        assert 2 * halved[stage]["learner"].weights == full[stage]["learner"].weights
    assert 2 * halved["ppo"]["rollout"].weights == full["ppo"]["rollout"].weights
    vast = learner_of(
        "pretrain", "data.text=t", "policy.model.hidden_size=4096", "policy.model.num_layers=32",
        "policy.model.num_heads=32", "policy.model.intermediate_size=11008", "policy.model.vocab_size=32000",
    )  # fmt: skip
    # Llama-2's 7 B with shared embeddings: 32 x (4 x 4096^2 + 3 x 4096 x 11008 + 2 x 4096) + 32001 x 4096.
    number = 32 * (4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096) + 32_001 * 4096
    assert vast.certain == 12 * number


def test_a_pipeline_takes_what_its_widest_stage_does() -> None:
    """A model of 2.06 B that is pre-trained whole, before any of the rollout workers is there."""
    model = [
        "policy.model.hidden_size=2048", "policy.model.num_layers=40", "policy.model.intermediate_size=5632",
        "policy.model.num_heads=16", "rollout.num_workers=5", "rollout.adapter=lora",
    ]  # fmt: skip
    saving = ["learner.micro_batch_size=1", "learner.autocast=true", "learner.gradient_checkpointing=true"]
    run = load_run("toy", [*model, *saving])
    expected, needs = expected_memory(run), resource_needs(run)
    host = Host("10.0.0.1", "n1", ResourceAmount(8, 0, 64.0))
    # 40 x (4 x 2048^2 + 3 x 2048 x 5632 + 2 x 2048) + 1025 x 2048 + 2048 parameters, each with two moments.
    number = 40 * (4 * 2048**2 + 3 * 2048 * 5632 + 2 * 2048) + 1025 * 2048 + 2048
    assert expected["pretrain"]["learner"].certain == pytest.approx(12 * number, rel=0.001)
    assert what_cannot_be(needs, expected, (host,)) is None
    assert total_bytes(needs, expected) < 64 * GIB
    # With a large micro-batch a stage with adapters is the widest, and pre-training takes as much for certain.
    wide = expected_memory(load_run("toy", model))
    assert widest(wide)["learner"].total > wide["pretrain"]["learner"].total
    refused = what_cannot_be(needs, wide, (replace(host, free=ResourceAmount(8, 0, 20.0)),))
    assert str(refused).startswith("stage pretrain: one worker of role learner takes 23 GiB for its weights")


def test_the_toy_preset_asks_for_what_it_takes() -> None:
    """So that its plan warns of nothing."""
    run = load_run("toy")
    assert settings_that_hold(resource_needs(run), expected_memory(run)) == []


def test_of_what_cannot_be_told_nothing_is(tmp_path: Path) -> None:
    assert expected_memory(load_run("dpo", [f"policy.model={tmp_path}/none", "data.pairs=p"])) == {}
