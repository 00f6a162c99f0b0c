"""What an evaluation measures of policies: against a baseline, beside one another, on rows with rules."""

import hashlib
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from peft import IA3Config

from plumbob.cluster.resources import resource_needs
from plumbob.configs.runs import EvalRun
from plumbob.configs.settings.data import EvalDataSettings, PerplexitySettings
from plumbob.configs.settings.models import EvaluatedPolicySettings
from plumbob.configs.settings.rewards import ScorerSettings
from plumbob.configs.settings.rules.reward_rules import ExactRule
from plumbob.configs.settings.training import PolicyEvaluationSettings
from plumbob.configs.settings.workers import RolloutSettings, TransformersEngine
from plumbob.core.errors import UserError
from plumbob.driver.stages.evaluating.evaluation import run_eval
from plumbob.driver.stages.evaluating.evaluation_input import prepare_eval
from plumbob.models.adapter import save_adapter
from plumbob.reward.scorer import Score, ScoreRequest
from tests.support.libraries import write_adapter, write_other_base
from tests.support.published_adapters import of_config
from tests.support.small_evaluation import FakeSession, beside, evaluation


def test_a_full_model_without_a_baseline_is_sampled_once(tmp_path: Path, uncalibrated: str, policy: str) -> None:
    run = evaluation(tmp_path, uncalibrated, policy)
    session: Any = FakeSession()
    metrics = run_eval(run, prepare_eval(run), session).metrics
    assert session.rollouts.done == ["base", "sample"] and session.num_learner_groups == 0
    assert [need.role for need in resource_needs(run)] == ["rollout", "scorer"]
    # Two tokens a response, the EOS among them; nothing is compared.
    assert metrics == {"reward": 0.0, "answer_tokens": 2.0, "missing_eos_share": 0.0, "baseline": None}


def test_an_adapter_is_compared_with_its_base(tmp_path: Path, uncalibrated: str, policy: str, adapter: str) -> None:
    run = evaluation(tmp_path, uncalibrated, adapter)
    session: Any = FakeSession()
    metrics = run_eval(run, prepare_eval(run), session).metrics
    assert session.rollouts.done == ["base", "sample", "adapter", "sample"] and session.num_learner_groups == 1
    assert [need.role for need in resource_needs(run)] == ["learner", "rollout", "scorer"]
    assert (metrics["baseline"], metrics["kl"], metrics["win_rate"]) == (policy, 0.0, 0.5)


def test_a_baseline_is_what_was_asked_for(tmp_path: Path, uncalibrated: str, policy: str, adapter: str) -> None:
    run = evaluation(tmp_path, uncalibrated, policy, adapter)
    session: Any = FakeSession()
    assert run_eval(run, prepare_eval(run), session).metrics["baseline"] == adapter
    assert session.rollouts.done == ["adapter", "sample", "base", "sample"] and session.num_learner_groups == 1


def test_adapters_on_one_base_are_held_at_once(tmp_path: Path, uncalibrated: str, policy: str, adapter: str) -> None:
    """Five of them, where a sampler holds four; each is told by its folder's name."""
    others = [str(write_adapter(tmp_path / f"other-{seed}", policy, seed)) for seed in range(4)]
    run = beside(evaluation(tmp_path, uncalibrated, adapter), *others)
    session: Any = FakeSession()
    result = run_eval(run, prepare_eval(run), session)
    assert session.rollouts.done == ["base", "sample", "hold 4", "sample", "hold 1", "sample"]
    assert session.num_learner_groups == 1 and result.metrics["baseline"] == policy
    # Of six whose responses score the same each wins half of all prompts, and of itself nothing is said.
    rates = result.metrics["win_rates"]
    assert list(rates) == ["baseline", Path(adapter).name, "other-0", "other-1", "other-2", "other-3"]
    assert rates["other-0"]["baseline"] == {"win_rate": 0.5, "ci95": [0.5, 0.5]} and len(rates["other-0"]) == 5
    assert result.policies is not None
    assert list(result.policies) == [Path(adapter).name, "other-0", "other-1", "other-2", "other-3"]
    assert all(one["kl"] == 0.0 and one["num_prompts"] == 2 for one in result.policies.values())


def test_what_cannot_be_held_with_the_policy_is_measured_apart(
    tmp_path: Path, uncalibrated: str, policy: str, adapter: str
) -> None:
    run = evaluation(tmp_path, uncalibrated, adapter)
    other_base = write_other_base(policy, tmp_path / "base")
    on_other = str(write_adapter(tmp_path / "on-other", str(other_base)))
    scaled = str(tmp_path / "scaled")
    factors = IA3Config(target_modules=["k_proj"], feedforward_modules=[], task_type="CAUSAL_LM")
    save_adapter(of_config(policy, factors, 1), Path(scaled))
    talks = write_adapter(tmp_path / "talks", policy)
    shutil.copy(Path(policy) / "tokenizer.json", talks)
    (talks / "tokenizer_config.json").write_text('{"eos_token": "<pad>", "pad_token": "<pad>"}')
    for also, message in {
        (str(talks),): rf"^policy\.also={talks}: has another tokenizer than policy\.model=",
        (adapter,): rf"^policy\.also: {adapter} is given twice",
    }.items():
        with pytest.raises(UserError, match=message):
            prepare_eval(beside(run, *also))
    # A full model, an adapter of another kind, and one on another base have the engine to themselves.
    found = prepare_eval(beside(run, policy, on_other, scaled)).policy
    assert found is not None and found.held == {Path(adapter).name}
    assert list(found.beside) == [Path(adapter).name, Path(policy).name, "on-other", "scaled"]
    other = str(write_adapter(tmp_path / "other", policy, 2))
    merged = beside(run, other).model_copy(update={"rollout": RolloutSettings(adapter="merged")})
    with pytest.raises(UserError, match=r"^policy\.also has an engine hold several adapters at once"):
        prepare_eval(merged)


def test_a_policy_called_as_the_baseline_does_not_take_its_place(
    tmp_path: Path, uncalibrated: str, policy: str, adapter: str
) -> None:
    class BaselineScores(FakeSession):
        """The baseline, sampled first, earns 1 a response, and every policy 3."""

        num_policies = 0

        def score(self, requests: list[ScoreRequest]) -> list[Score]:
            self.num_policies += 1
            return [Score(1.0 if self.num_policies == 1 else 3.0, {"raw": 0.0}) for _ in requests]

    named = str(write_adapter(tmp_path / "runs" / "baseline" / "policy", policy, seed=2))
    session: Any = BaselineScores()
    run = beside(evaluation(tmp_path, uncalibrated, adapter), named)
    result = run_eval(run, prepare_eval(run), session)
    assert result.policies is not None and list(result.policies) == [adapter, named]
    assert [result.policies[one]["reward_gain"] for one in (adapter, named)] == [2.0, 2.0]
    rates = result.metrics["win_rates"]
    assert list(rates) == ["baseline", adapter, named] and rates["baseline"][named]["win_rate"] == 0.0


def write_hub_copy(cache: Path, name: str, folder: str) -> Path:
    """The folder as the hub's cache keeps a model's files; where these are."""
    place = cache / f"models--{name.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("1" * 40)
    return Path(shutil.copytree(folder, place / "snapshots" / ("1" * 40)))


def test_tokenizers_of_hub_names_are_compared_as_they_are_loaded(
    tmp_path: Path, uncalibrated: str, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two models of a hub whose files differ in one merge alone, and a third that tokenizes as the first does."""
    for constants in ("huggingface_hub.constants", "transformers.utils.hub.constants"):
        monkeypatch.setattr(f"{constants}.HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(f"{constants}.HF_HUB_OFFLINE", True)
    names = ("team/first", "team/second", "team/third")
    _, second, third = (write_hub_copy(tmp_path / "cache", name, policy) for name in names)
    content = json.loads((second / "tokenizer.json").read_text())
    content["model"]["merges"].pop()
    (second / "tokenizer.json").write_text(json.dumps(content))
    settings = json.loads((third / "tokenizer_config.json").read_text())
    (third / "tokenizer_config.json").write_text(json.dumps({**settings, "model_max_length": 99}))
    run = evaluation(tmp_path, uncalibrated, names[0])
    with pytest.raises(UserError, match=r"^policy\.also=team/second: has another tokenizer than policy\.model=team/fi"):
        prepare_eval(beside(run, names[1]))
    found = prepare_eval(beside(run, names[2])).policy
    assert found is not None and list(found.beside) == ["first", "third"]


def test_full_models_are_measured_one_after_another(tmp_path: Path, uncalibrated: str, policy: str) -> None:
    other = str(write_other_base(policy, tmp_path / "other"))
    run = beside(evaluation(tmp_path, uncalibrated, policy), other)
    session: Any = FakeSession()
    result = run_eval(run, prepare_eval(run), session)
    assert session.rollouts.done == ["base", "sample", "base", "sample"] and session.num_learner_groups == 0
    assert result.policies is not None and list(result.policies) == [Path(policy).name, "other"]
    assert result.metrics["win_rates"]["other"].keys() == {Path(policy).name} and result.metrics["baseline"] is None


def test_pass_at_k_perplexity_and_a_table(tmp_path: Path, uncalibrated: str, policy: str, adapter: str) -> None:
    class RightOrWrong(FakeSession):
        """Of four responses to each prompt, two are right to the first and none to the second; 2 nats for each token of
        a text, of which every block's first is not predicted."""

        def score(self, requests: list[ScoreRequest]) -> list[Score]:
            return [Score(float(row in (0, 2)), {"raw": 0.5}) for row in range(len(requests))]

        def compute(self, batch: Any, role: str, function: Any) -> NDArray[np.float32]:
            if hasattr(batch, "loss_mask"):
                return np.asarray(-2.0 * (batch.loss_mask.sum(1) - 1), np.float32)
            return super().compute(batch, role, function)

    (tmp_path / "text.txt").write_text("the car has four doors\n" * 40)
    run = evaluation(tmp_path, uncalibrated, adapter)
    table = tmp_path / "responses.parquet"
    asked = PolicyEvaluationSettings(samples_per_prompt=4, pass_at=(1, 2), responses_file=str(table))
    text = PerplexitySettings(text=str(tmp_path / "text.txt"), block_tokens=16, max_blocks=3)
    run = run.model_copy(update={"evaluation": asked, "perplexity": text})
    session: Any = RightOrWrong()
    metrics = run_eval(run, prepare_eval(run), session).metrics
    # One of one: 2/4 and 0. One of two: 1 - C(2,2)/C(4,2) = 5/6, and 0.
    assert (metrics["pass_at_1"], metrics["pass_at_2"]) == (0.25, pytest.approx(5 / 12))
    # Over two prompts: mean +- 1.96 |a - b| / 2, cut to what a chance can be.
    assert metrics["pass_at_1_ci95"] == [0.0, pytest.approx(0.25 + 1.959964 * 0.25)]
    assert metrics["perplexity"] == metrics["baseline_perplexity"] == pytest.approx(math.exp(2))
    # One for the KL, and one for each whose perplexity is measured.
    assert session.num_learner_groups == 3
    rows = pq.read_table(table).to_pylist()
    assert metrics["responses_digest"] == hashlib.sha256(table.read_bytes()).hexdigest()
    assert [row["policy"] for row in rows] == ["baseline"] * 8 + ["policy"] * 8
    assert [row["is_right"] for row in rows[:4]] == [True, False, True, False]
    first = rows[0]
    assert (first["response"], first["score"], first["parts"], first["kl"]) == ("yes", 1.0, [("raw", 0.5)], 0.0)
    assert (first["num_tokens"], first["finish_reason"], first["sample_index"]) == (2, "stop", 0)
    nowhere = run.model_copy(
        update={"evaluation": asked.model_copy(update={"responses_file": str(tmp_path / "no" / "x")})}
    )
    with pytest.raises(UserError, match=r"^evaluation\.responses_file=.*: there is no folder"):
        prepare_eval(nowhere)


def test_one_prompt_compares_no_policies(tmp_path: Path, uncalibrated: str, policy: str, adapter: str) -> None:
    """It describes one by itself alone, and is refused before anything is sampled."""
    one = {"evaluation": PolicyEvaluationSettings(num_prompts=1)}
    alone, with_base = (evaluation(tmp_path, uncalibrated, name).model_copy(update=one) for name in (policy, adapter))
    for run in (with_base, beside(alone, adapter)):
        with pytest.raises(UserError, match=r"one prompt is asked, .* evaluation\.num_prompts=2 or more"):
            prepare_eval(run)
    found = prepare_eval(alone).policy
    assert found is not None and len(found.prompts) == 1


def test_pass_at_k_needs_as_many_responses() -> None:
    with pytest.raises(ValueError, match=r"evaluation\.pass_at=8 .* evaluation\.samples_per_prompt=8 at least"):
        PolicyEvaluationSettings(samples_per_prompt=4, pass_at=(1, 8))


def test_a_baseline_that_is_no_policy_is_named(tmp_path: Path, uncalibrated: str, policy: str) -> None:
    run = evaluation(tmp_path, uncalibrated, policy, uncalibrated)
    with pytest.raises(UserError, match=r"^policy\.baseline=.*BertForSequenceClassification is not a causal language"):
        prepare_eval(run)


def test_a_policy_is_measured_by_rules_on_rows(tmp_path: Path, policy: str) -> None:
    asked = tmp_path / "prompts.jsonl"
    run = EvalRun(
        data=EvalDataSettings(prompts=str(asked)),
        policy=EvaluatedPolicySettings(model=policy),
        reward=ScorerSettings(parts=(ExactRule(),)),
        rollout=RolloutSettings(engine=TransformersEngine()),
    )
    asked.write_text('{"prompt": "Q", "answer": "Yes"}\n{"prompt": "Why", "answer": "no"}\n')
    found = prepare_eval(run).policy
    assert found is not None and {prompt.row["answer"] for prompt in found.prompts} == {"Yes", "no"}
    asked.write_text('{"prompt": "Q", "answer": "Yes"}\n{"prompt": "Why"}\n')
    with pytest.raises(UserError, match=r"to 1 of 2 prompts, such as 'Why': the part exact needs the column 'answer'"):
        prepare_eval(run)
