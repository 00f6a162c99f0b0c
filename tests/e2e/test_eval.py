"""`plumbob eval --json`: figures of a reward model and of a policy, and nothing else on stdout."""

import json
import math
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from plumbob.configs.load_run import load_eval
from plumbob.configs.runs import EvalRun
from plumbob.console.cli import main
from plumbob.driver.run_folder.made_adapter import facts_of
from plumbob.driver.run_folder.made_policy import find_adapter
from plumbob.driver.stages.evaluating.evaluation import EVALUATION_STEP
from plumbob.driver.stages.evaluating.evaluation_input import prepare_eval
from plumbob.driver.stages.model_sampling import sampler_spec
from plumbob.models.adapter import load_adapter, save_adapter
from plumbob.models.library.adapter_library import AdapterLibrary
from plumbob.models.library.adding import add_adapter
from plumbob.reward.reward_models.bert_scorer import BertScorer
from plumbob.rollout.requests import sample_requests
from plumbob.rollout.rollout_records import Rollout
from plumbob.rollout.samplers.sampler import sample
from plumbob.rollout.samplers.transformers_sampler import TransformersSampler
from tests.support.plain_transformers import load_plain, plain_logprobs
from tests.support.score_requests import score_requests
from tests.support.small_run import ROLLOUT, TEMPERATURE, TRANSFORMERS, WORKERS, Left, Stages, settings
from tests.support.tiny_scorer import model_reward


def test_a_reward_model_on_pairs(
    capfd: pytest.CaptureFixture[str], stage: Stages, world: Path, reward_model: str
) -> None:
    path = world / "heldout_pairs.jsonl"
    reward = {"reward.model": reward_model, "reward.max_tokens": 64, "data.pairs": path}
    stage.close()
    capfd.readouterr()
    assert main(["eval", "--json", *settings(stage.cluster, {"name": "eval-pairs"}, reward)]) == 0
    figures = json.loads(capfd.readouterr().out)
    pairs = [json.loads(line) for line in path.read_text().splitlines()]
    scorer = BertScorer(model_reward(reward_model, 8, 64, is_calibrated=False))
    chosen, rejected = (scorer.raw_scores([(p["prompt"], p[side]) for p in pairs]) for side in ("chosen", "rejected"))
    assert figures["num_pairs"] == len(pairs) == 16
    assert figures["accuracy"] == sum(c > r for c, r in zip(chosen, rejected, strict=True)) / 16
    low, high = figures["accuracy_ci95"]
    assert low < figures["accuracy"] < high
    # Wilson's interval ends at the shares that lie 1.96 of their own standard deviations away.
    for share in (low, high):
        assert abs(figures["accuracy"] - share) == pytest.approx(1.959964 * math.sqrt(share * (1 - share) / 16))
    # Both orders of a pair, in ten bins of sigmoid(margin): how far each bin's mean is from what came true.
    off = defaultdict(float)
    for margin in np.subtract(chosen, rejected):
        for sign, came_true in ((1, 1), (-1, 0)):
            predicted = 1 / (1 + math.exp(-sign * margin))
            off[int(10 * predicted)] += predicted - came_true
    assert figures["calibration_error"] == pytest.approx(sum(map(abs, off.values())) / 32, abs=1e-5)
    mean_margin = (sum(chosen) - sum(rejected)) / 16
    assert figures["mean_margin"] == pytest.approx(mean_margin, abs=1e-5)


@pytest.fixture
def policy_settings(stage: Stages, world: Path, reward_model: str) -> list[str]:
    """7 prompts (an odd number, so that nobody wins half), sampled with transformers and a seed of its own."""
    asked = {"data.prompts": world / "heldout_prompts.jsonl", "evaluation.num_prompts": 7}
    reward = {"reward.model": reward_model}
    return settings(stage.cluster, WORKERS, {"name": "eval-policy"}, TRANSFORMERS, ROLLOUT, asked, reward)


@pytest.fixture(scope="module")
def tilted(sft_lora: Left, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The SFT adapter with its effect made eight times as large: another policy, by hand."""
    folder = tmp_path_factory.mktemp("tilted")
    adapter = load_adapter(Path(sft_lora.policy))
    tensors = {name: tensor * (8 if ".lora_B." in name else 1) for name, tensor in adapter.tensors.items()}
    save_adapter(replace(adapter, tensors=tensors), folder)
    return str(folder)


def answered(common: list[str], policy: str, reward_model: str) -> tuple[list[Rollout], NDArray[np.float64]]:
    """The responses that a policy gives in an evaluation, sampled here, and their scores."""
    run = load_eval([*common, f"policy.model={policy}"])
    assert isinstance(run, EvalRun)
    evaluated = prepare_eval(run).policy
    assert evaluated is not None
    sampler = TransformersSampler(sampler_spec(evaluated.opened, run.rollout))
    adapter = evaluated.opened.source.adapter
    if adapter is not None:
        sampler.load(load_adapter(adapter))
    rollouts = sample(sampler, sample_requests(evaluated.prompts, 1, EVALUATION_STEP, run.seed))
    scorer = BertScorer(model_reward(reward_model, 8, 64, is_calibrated=True))
    return rollouts, np.array(
        [s.total for s in scorer.score(score_requests((r.request.prompt, r.response) for r in rollouts))]
    )


def mean_kl(policy: str, baseline: str, rollouts: list[Rollout]) -> float:
    """log pi - log pi_baseline of whole responses, both by plain transformers and peft."""
    models = [load_plain(folder) for folder in (policy, baseline)]
    sums = [
        [plain_logprobs(model, r.request.prompt_ids, r.token_ids, TEMPERATURE).sum() for r in rollouts]
        for model in models
    ]
    return float(np.mean(np.subtract(*sums)))


def test_a_policy_against_a_baseline_and_the_other_way_round(
    stage: Stages, policy_settings: list[str], reward_model: str, sft_lora: Left, tilted: str
) -> None:
    sides = (tilted, sft_lora.policy)
    (ours, our_scores), (theirs, their_scores) = (answered(policy_settings, side, reward_model) for side in sides)
    wins = float(((np.sign(our_scores - their_scores) + 1) / 2).mean())
    # Otherwise a wrong sign would not show.
    assert len(our_scores) == 7 and wins != 0.5 and abs(our_scores.mean() - their_scores.mean()) > 0.01
    there, back = (
        stage.evaluate(*policy_settings, f"policy.model={policy}", f"policy.baseline={baseline}")
        for policy, baseline in (sides, sides[::-1])
    )
    assert there["baseline"] == sft_lora.policy
    assert there["reward"] == pytest.approx(our_scores.mean(), abs=1e-4)
    assert back["reward"] == pytest.approx(their_scores.mean(), abs=1e-4)
    assert there["reward_gain"] == pytest.approx((our_scores - their_scores).mean(), abs=1e-4)
    assert there["win_rate"] == pytest.approx(wins)
    assert back["reward_gain"] == pytest.approx(-there["reward_gain"], abs=1e-4)
    assert back["win_rate"] == pytest.approx(1 - there["win_rate"])
    # From each side it is measured with that side's own responses, so both are positive.
    assert there["kl"] == pytest.approx(mean_kl(*sides, ours), abs=1e-3) and there["kl"] > 0.1
    assert back["kl"] == pytest.approx(mean_kl(*sides[::-1], theirs), abs=1e-3) and back["kl"] > 0.1


def test_an_adapter_is_compared_with_its_base_by_default(
    stage: Stages, policy_settings: list[str], reward_model: str, tilted: str, pretrained: str
) -> None:
    figures = stage.evaluate(*policy_settings, f"policy.model={tilted}")
    rollouts, scores = answered(policy_settings, tilted, reward_model)
    assert figures["baseline"] == pretrained
    assert figures["kl"] == pytest.approx(mean_kl(tilted, pretrained, rollouts), abs=1e-3)
    assert figures["reward"] == pytest.approx(scores.mean(), abs=1e-4)
    assert {"reward_gain", "win_rate"} <= set(figures)


def test_adapters_of_a_library_are_measured_at_once_as_each_is_alone(
    stage: Stages,
    policy_settings: list[str],
    sft_lora: Left,
    tilted: str,
    pretrained: str,
    world: Path,
    tmp_path: Path,
) -> None:
    library = AdapterLibrary(tmp_path / "adapters")
    for name, folder in {"plain": sft_lora.policy, "tilted": tilted}.items():
        found = find_adapter(folder)
        add_adapter(library, found, name, "the toy world", facts_of(found))
    entry = library.entry("plain")
    assert (entry.run, entry.stage, entry.base) == (str(sft_lora.folder), "sft", pretrained)
    assert (
        entry.scores is not None and entry.scores["heldout_loss"] == sft_lora.summary["stages"]["sft"]["heldout_loss"]
    )
    assert entry.data is not None and set(entry.data) == {"data.demonstrations"}
    assert library.entry("tilted").data is None
    folders = {name: str(library.folder_of(name)) for name in library.names()}
    both = stage.evaluate(*policy_settings, f"policy.model={folders['plain']}", f"policy.also=[{folders['tilted']}]")
    assert both["baseline"] == pretrained and list(both["policies"]) == ["plain", "tilted"]
    for name, folder in folders.items():
        alone = stage.evaluate(*policy_settings, f"policy.model={folder}", f"policy.baseline={pretrained}")
        for metric, value in both["policies"][name].items():
            assert value == pytest.approx(alone[metric], abs=1e-4), (name, metric)
    assert both["policies"]["plain"]["reward"] != both["policies"]["tilted"]["reward"]
    # The same was measured twice, and stands once in the library's entry.
    (noted,) = library.entry("plain").evaluations
    assert (noted.prompts.file, noted.baseline) == (str(world / "heldout_prompts.jsonl"), pretrained)
    assert noted.scores["reward"] == pytest.approx(both["policies"]["plain"]["reward"], abs=1e-4)


def test_what_a_run_made_is_compared_with_what_it_began_from(
    stage: Stages, policy_settings: list[str], reward_model: str, sft_lora: Left, ppo_from_adapter: Left
) -> None:
    figures = stage.evaluate(*policy_settings, f"policy.model={ppo_from_adapter.policy}")
    rollouts, _ = answered(policy_settings, ppo_from_adapter.policy, reward_model)
    assert figures["baseline"] == sft_lora.policy
    kl = mean_kl(ppo_from_adapter.policy, sft_lora.policy, rollouts)
    assert figures["kl"] == pytest.approx(kl, abs=1e-3)


def test_a_full_model_is_compared_with_nothing_by_default(
    stage: Stages, policy_settings: list[str], reward_model: str, sft_full: str
) -> None:
    figures = stage.evaluate(*policy_settings, f"policy.model={sft_full}")
    rollouts, scores = answered(policy_settings, sft_full, reward_model)
    assert figures["baseline"] is None
    assert figures["reward"] == pytest.approx(scores.mean(), abs=1e-4)
    assert figures["answer_tokens"] == pytest.approx(np.mean([len(rollout.token_ids) for rollout in rollouts]))
    assert figures["missing_eos_share"] == np.mean([rollout.finish_reason == "length" for rollout in rollouts])
    assert not {"reward_gain", "win_rate", "kl"} & set(figures)
