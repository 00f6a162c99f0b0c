"""Our losses and gradients beside those of TRL's own trainers, for the same model, reference and texts."""

import copy
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from plumbob.configs.settings.data import LengthSettings
from plumbob.configs.settings.offline_objectives import (
    ConservativeDpoLoss,
    DpoLoss,
    HingeLoss,
    IpoLoss,
    OrpoLoss,
    PreferenceLoss,
    RobustDpoLoss,
    SimpoLoss,
    SppoLoss,
)
from plumbob.configs.settings.training import KtoSettings
from plumbob.data.records import LabelledResponse, PreferencePair
from plumbob.data.tokenization import PairBatch, collate, encode_labelled, encode_pairs
from plumbob.models.policy import PolicyModel
from plumbob.trainers.learner.learner_protocol import LossTerm
from plumbob.trainers.offline.dpo import DpoBatch, dpo_loss_terms, pair_logprobs, response_logprobs, step_batch
from plumbob.trainers.offline.kto import KtoBatch, estimated_kl, kto_loss_terms
from tests.support.tiny_policy import write_policy

trl = pytest.importorskip("trl")
datasets = pytest.importorskip("datasets")

PAIRS = [
    PreferencePair("the car", " has a red engine", " no"),
    PreferencePair("how many doors", " four", " the engine has four red doors"),
    PreferencePair("a", " red car", " doors and a car"),
    PreferencePair("is the engine red", " and four", " a"),
]
RESPONSES = [LabelledResponse(PAIRS[0].prompt, PAIRS[0].chosen, True), LabelledResponse(PAIRS[1].prompt, " a", False)]
RESPONSES += [LabelledResponse(PAIRS[2].prompt, PAIRS[2].rejected, False), LabelledResponse("red", " doors", True)]
LENGTHS = LengthSettings(max_prompt_tokens=64, max_response_tokens=64)
Found = tuple[float, dict[str, torch.Tensor]]


class PairModels(NamedTuple):
    """A tiny model, a reference that differs from it in every weight, and their tokenizer."""

    model: Any
    reference: Any
    tokenizer: Any


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> PairModels:
    folder = write_policy(tmp_path_factory.mktemp("policy"))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    reference = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    return PairModels(model, reference, AutoTokenizer.from_pretrained(folder))


ARGUMENTS: dict[str, Any] = {
    **{"bf16": False, "gradient_checkpointing": False, "report_to": [], "use_cpu": True, "max_length": None},
    **{"per_device_train_batch_size": len(PAIRS), "disable_tqdm": True},
}


def trainer_of(kind: Any, settings: Any, world: PairModels, rows: list[Any], folder: Path, **given: Any) -> Any:
    """A TRL trainer on copies of the models, which it changes."""
    data = datasets.Dataset.from_list(rows)
    arguments = settings(str(folder), **ARGUMENTS)
    return kind(
        copy.deepcopy(world.model), args=arguments, train_dataset=data, processing_class=world.tokenizer, **given
    )


def batch_of(trainer: Any) -> Any:
    """The whole dataset, as the trainer itself makes it a batch."""
    (batch,) = trainer.get_train_dataloader()
    return batch


def gradient_of(loss: torch.Tensor, model: torch.nn.Module) -> Found:
    model.zero_grad()
    loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def ours(only: LossTerm[Any], batch: Any, model: Any) -> Found:
    """As a learner makes it: the pass's sum over its count."""
    causal_lm = copy.deepcopy(model)
    policy = PolicyModel(causal_lm, {"policy": None})
    with policy.role("policy"):
        return gradient_of(only.loss_sum(policy, batch).loss / only.count(batch), causal_lm)


def check_same(found: Found, expected: Found) -> None:
    """As far as float32 sums in another order can be: 1e-4 of each tensor's largest element."""
    assert found[0] == pytest.approx(expected[0], rel=1e-5)
    assert found[1].keys() == expected[1].keys() and len(found[1]) > 10
    for name, gradient in expected[1].items():
        largest = float(gradient.abs().max())
        assert largest > 1e-5, name
        torch.testing.assert_close(found[1][name], gradient, rtol=0, atol=1e-4 * largest)


class Both:
    """Policy and reference as the learners that answer `compute`."""

    def __init__(self, world: PairModels) -> None:
        self.models = {"policy": world.model, "reference": world.reference}

    def compute(self, batch: Any, role: Any, function: Any) -> np.ndarray:
        model = PolicyModel(self.models[role], {role: None})
        with torch.no_grad(), model.role(role):
            found: np.ndarray = function(model, batch).numpy()
        return found


def our_pairs(world: PairModels, with_reference: bool) -> DpoBatch:
    chosen, rejected = zip(*encode_pairs(world.tokenizer, PAIRS, LENGTHS).records, strict=True)
    pad_id = world.tokenizer.pad_token_id
    pairs = PairBatch(collate(chosen, pad_id), collate(rejected, pad_id))
    reference = Both(world).compute(pairs, "reference", pair_logprobs) if with_reference else np.zeros((4, 2), "f4")
    return step_batch(pairs, reference)


def check_pairs(loss: PreferenceLoss, world: PairModels, expected: Found, with_reference: bool = True) -> None:
    (only,) = dpo_loss_terms(loss)
    check_same(ours(only, our_pairs(world, with_reference), world.model), expected)


PAIR_ROWS = [{"prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected} for pair in PAIRS]


@pytest.mark.parametrize(
    ("loss", "settings"),
    [
        (DpoLoss(beta=0.3), {"loss_type": "sigmoid", "beta": 0.3}),
        (DpoLoss(beta=0.3, per_token=True), {"loss_type": "sigmoid_norm", "beta": 0.3}),
        (RobustDpoLoss(beta=0.3, flip_rate=0.2), {"loss_type": "robust", "beta": 0.3, "label_smoothing": 0.2}),
        # Averaged over a response's tokens, which is not the paper's form.
        (IpoLoss(tau=0.3, per_token=True), {"loss_type": "ipo", "beta": 0.3}),
        (HingeLoss(beta=0.3), {"loss_type": "hinge", "beta": 0.3}),
        (SppoLoss(beta=0.3), {"loss_type": "sppo_hard", "beta": 0.3}),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_losses_with_a_reference(
    loss: PreferenceLoss, settings: dict[str, Any], world: PairModels, tmp_path: Path
) -> None:
    def config(folder: str, **arguments: Any) -> Any:
        return trl.DPOConfig(folder, **settings, **arguments)

    reference = copy.deepcopy(world.reference)
    trainer = trainer_of(trl.DPOTrainer, config, world, PAIR_ROWS, tmp_path, ref_model=reference)
    check_pairs(loss, world, gradient_of(trainer.compute_loss(trainer.model, batch_of(trainer)), trainer.model))


@pytest.mark.parametrize(
    ("loss", "settings"),
    [
        (SimpoLoss(beta=2.0, margin=0.7), {"loss_type": "simpo", "beta": 2.0, "simpo_gamma": 0.7}),
        # TRL's DPO has no smoothed labels; its CPO has them, on the log-ratio to a reference of 1.
        (
            ConservativeDpoLoss(beta=0.3, flip_rate=0.2),
            {"loss_type": "sigmoid", "beta": 0.3, "label_smoothing": 0.2},
        ),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_losses_without_a_reference(
    loss: PreferenceLoss, settings: dict[str, Any], world: PairModels, tmp_path: Path
) -> None:
    cpo = pytest.importorskip("trl.experimental.cpo")

    def config(folder: str, **arguments: Any) -> Any:
        return cpo.CPOConfig(folder, cpo_alpha=0.0, **settings, **arguments)

    trainer = trainer_of(cpo.CPOTrainer, config, world, PAIR_ROWS, tmp_path)
    expected = gradient_of(trainer.compute_loss(trainer.model, batch_of(trainer)), trainer.model)
    check_pairs(loss, world, expected, with_reference=False)


def orpo_trainer(world: PairModels, folder: Path) -> Any:
    orpo = pytest.importorskip("trl.experimental.orpo")

    def config(folder: str, **arguments: Any) -> Any:
        return orpo.ORPOConfig(folder, beta=0.3, **arguments)

    return trainer_of(orpo.ORPOTrainer, config, world, PAIR_ROWS, folder)


def test_orpo_of_sequences(world: PairModels, tmp_path: Path) -> None:
    trainer = orpo_trainer(world, tmp_path)
    expected = gradient_of(trainer.compute_loss(trainer.model, batch_of(trainer)), trainer.model)
    check_pairs(OrpoLoss(weight=0.3, likelihood="sequence"), world, expected, with_reference=False)


def test_orpo_of_responses(world: PairModels, tmp_path: Path) -> None:
    trainer = orpo_trainer(world, tmp_path)
    # The paper's likelihood is a mean over a response's tokens, which is what TRL's `chosen` is. The odds are its own.
    chosen, rejected = trainer.concatenated_forward(trainer.model, batch_of(trainer))[:2]
    odds = trainer.odds_ratio_loss(chosen, rejected)[0]
    check_pairs(OrpoLoss(weight=0.3), world, gradient_of(-(odds + chosen).mean(), trainer.model), with_reference=False)


def test_kto(world: PairModels, tmp_path: Path) -> None:
    rows = [{"prompt": a.prompt, "completion": a.response, "label": a.desirable} for a in RESPONSES]

    def config(folder: str, **arguments: Any) -> Any:
        return trl.KTOConfig(folder, beta=0.3, desirable_weight=1.5, undesirable_weight=0.5, **arguments)

    reference = copy.deepcopy(world.reference)
    trainer = trainer_of(trl.KTOTrainer, config, world, rows, tmp_path, ref_model=reference)
    expected = gradient_of(trainer.compute_loss(trainer.model, batch_of(trainer)), trainer.model)
    # It gives each prompt the response of the row before, where we give it the next row's.
    records = encode_labelled(world.tokenizer, RESPONSES, LENGTHS).records
    others = [records[i - 1] for i in range(len(records))]
    learners: Any = Both(world)
    kl = estimated_kl(records, others, world.tokenizer.pad_token_id, learners)
    assert kl > 0.01, "an estimate that is cut at 0 proves nothing"
    responses = collate([sequence for sequence, _ in records], world.tokenizer.pad_token_id)
    desirable = np.array([desirable for _, desirable in records])
    batch = KtoBatch(responses, desirable, learners.compute(responses, "reference", response_logprobs), kl)
    (only,) = kto_loss_terms(KtoSettings(beta=0.3, desirable_weight=1.5, undesirable_weight=0.5))
    check_same(ours(only, batch, world.model), expected)
