"""What stages read before they start: held-out rows that may be absent, models that are too small, rows left out."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plumbob.configs.runs import DpoRun, PretrainEncoderRun, PretrainRun, RewardRun, SftRun
from plumbob.configs.settings.data import (
    DemonstrationDataSettings,
    FeedbackDataSettings,
    ReplaySettings,
    RetentionSettings,
    TextDataSettings,
    TokenizedPairDataSettings,
)
from plumbob.configs.settings.models import (
    AlignedPolicySettings,
    ModelRef,
    NewBertSettings,
    NewLlamaSettings,
    PolicySettings,
    PretrainedPolicySettings,
    RewardEncoderSettings,
)
from plumbob.configs.settings.training import CalibrationSettings, PretrainEncoderSettings, PretrainSettings
from plumbob.configs.settings.tuning.adapters import LoraTuning
from plumbob.configs.settings.tuning.weights import FullTuning
from plumbob.core.errors import UserError
from plumbob.data.records import Ranking
from plumbob.data.rendered_rows import RenderedRow
from plumbob.data.texts.chat_text import plain_dialogue
from plumbob.models.adapter import save_adapter
from plumbob.models.from_scratch import build_bert
from plumbob.models.masked_lm import open_encoder
from plumbob.trainers.learner.checkpoint import Files
from plumbob.trainers.learner.learner_protocol import MergedUpdate
from plumbob.trainers.metrics.step_record import Phases
from plumbob.trainers.offline.dpo import prepare_dpo
from plumbob.trainers.offline.pretrain import read_corpus
from plumbob.trainers.offline.reward_modelling.reward_calibration import open_calibration_policy, prepare_calibration
from plumbob.trainers.offline.reward_modelling.reward_model import (
    RewardInput,
    check_encoder,
    count_cut,
    prepare_reward,
    run_reward,
)
from plumbob.trainers.offline.sft import prepare_sft
from tests.support.tiny_policy import make_adapter, write_policy

SHORT = {"max_prompt_tokens": 40, "max_response_tokens": 10}
LONG = "a" + " b" * 20
"""More than ten tokens with any tokenizer that has no token for several words."""
SIZES = {"hidden_size": 32, "num_heads": 1, "num_layers": 1, "intermediate_size": 32, "vocab_size": 60}


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> str:
    """256 positions."""
    return write_policy(tmp_path_factory.mktemp("policy"))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """40 positions; a letter that stands alone is one token."""
    folder = tmp_path_factory.mktemp("encoder")
    build_bert(NewBertSettings(max_positions=40, **SIZES), ["a b c d"], folder, seed=0)
    return str(folder)


def write(path: Path, rows: Sequence[Mapping[str, str]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def shown(tmp_path: Path, name: str, response: str) -> str:
    return write(tmp_path / name, [{"prompt": name, "completion": response}])


def pairs(tmp_path: Path, name: str, response: str) -> str:
    return write(tmp_path / name, [{"prompt": name, "chosen": response, "rejected": "d"}])


def test_sft_runs_with_nothing_held_out(tmp_path: Path, policy: str) -> None:
    data = DemonstrationDataSettings(demonstrations=shown(tmp_path, "a.jsonl", "b"), heldout_fraction=0, **SHORT)
    prepared = prepare_sft(SftRun(data=data, policy=PolicySettings(model=policy)))
    small = "1 training records are fewer than sft.batch_size=32: each optimizer step has 1, every record once."
    assert (len(prepared.train), prepared.heldout, prepared.notes) == (1, (), (small,))


def test_sft_runs_when_every_held_out_response_is_too_long(tmp_path: Path, policy: str) -> None:
    train, heldout = shown(tmp_path, "a.jsonl", "b"), shown(tmp_path, "b.jsonl", LONG)
    data = DemonstrationDataSettings(demonstrations=train, heldout_demonstrations=heldout, **SHORT)
    prepared = prepare_sft(SftRun(data=data, policy=PolicySettings(model=policy)))
    assert (len(prepared.train), prepared.heldout) == (1, ())
    assert prepared.notes[0].startswith("1 of 1 demonstrations dropped")
    # There must be something to train on.
    turned = DemonstrationDataSettings(demonstrations=heldout, heldout_demonstrations=train, **SHORT)
    with pytest.raises(UserError, match="no demonstrations are left"):
        prepare_sft(SftRun(data=turned, policy=PolicySettings(model=policy)))


def test_dpo_runs_with_nothing_held_out(tmp_path: Path, policy: str) -> None:
    train, heldout = pairs(tmp_path, "a.jsonl", "b"), pairs(tmp_path, "b.jsonl", LONG)
    for data in (
        TokenizedPairDataSettings(pairs=train, heldout_fraction=0, **SHORT),
        TokenizedPairDataSettings(pairs=train, heldout_pairs=heldout, **SHORT),
    ):
        prepared = prepare_dpo(DpoRun(data=data, policy=AlignedPolicySettings(model=policy)))
        assert (len(prepared.train), prepared.heldout) == (1, ())
    assert prepared.notes[0].startswith("1 of 1 pairs dropped")


def test_each_stage_shows_one_row_as_its_model_sees_it(tmp_path: Path, policy: str, encoder: str) -> None:
    """What is learnt ends with the EOS; a reward model reads prompt and response as a pair."""
    sft = DemonstrationDataSettings(demonstrations=shown(tmp_path, "a.jsonl", "b"), heldout_fraction=0, **SHORT)
    replay = ReplaySettings(text=write(tmp_path / "text.jsonl", [{"text": "x"}]), block_tokens=8)
    retention = RetentionSettings(text=replay.text, block_tokens=8)
    run = SftRun(data=sft, policy=PolicySettings(model=policy), replay=replay, retention=retention)
    assert [(row.setting, *texts_of(row)) for row in prepare_sft(run).rows] == [
        ("data.demonstrations", ("prompt", "a.jsonl", False), ("response", "b<eos>", True)),
        ("retention.text", ("text", "x<eos>", False)),
        ("replay.text", ("text", "x<eos>", True)),
    ]
    dpo = TokenizedPairDataSettings(pairs=pairs(tmp_path, "a.jsonl", "b"), heldout_fraction=0, **SHORT)
    (row,) = prepare_dpo(DpoRun(data=dpo, policy=AlignedPolicySettings(model=policy))).rows
    assert texts_of(row) == [("prompt", "a.jsonl", False), ("chosen", "b<eos>", True), ("rejected", "d<eos>", True)]
    file = write(tmp_path / "feedback.jsonl", [{"prompt": "a", "chosen": "b", "rejected": "d"}])
    feedback = FeedbackDataSettings(pairs=file, heldout_fraction=0)
    settings = RewardEncoderSettings(model=encoder, max_tokens=40)
    (row,) = prepare_reward(RewardRun(data=feedback, reward=settings), plain_dialogue).rows
    assert texts_of(row) == [("chosen", "[CLS] a [SEP] b [SEP]", True), ("rejected", "[CLS] a [SEP] d [SEP]", True)]


def texts_of(row: RenderedRow) -> list[tuple[str, str, bool]]:
    return [(part.name, part.text, part.is_learnt) for part in row.parts]


def test_blocks_that_the_model_has_no_positions_for(tmp_path: Path, policy: str, encoder: str) -> None:
    data = TextDataSettings(text=write(tmp_path / "text.jsonl", [{"text": "a"}, {"text": "b"}]))

    def causal(model: Any, block_tokens: int) -> PretrainRun:
        return PretrainRun(
            data=data,
            policy=PretrainedPolicySettings(model=model),
            pretrain=PretrainSettings(block_tokens=block_tokens),
        )

    def masked(model: Any, block_tokens: int) -> PretrainEncoderRun:
        return PretrainEncoderRun(
            data=data,
            reward=RewardEncoderSettings(model=model),
            pretrain=PretrainEncoderSettings(block_tokens=block_tokens),
        )

    for make, model, positions, named in (
        (causal, policy, 256, f"policy.model={policy}"),
        (causal, NewLlamaSettings(max_positions=99), 99, r"policy\.model\.max_positions"),
        (masked, encoder, 40, f"reward.model={encoder}"),
        (masked, NewBertSettings(max_positions=99), 99, r"reward\.model\.max_positions"),
    ):
        assert len(read_corpus(make(model, positions)).train) == 1
        with pytest.raises(
            UserError, match=rf"pretrain\.block_tokens={positions + 1} .* {positions} positions of {named}"
        ):
            read_corpus(make(model, positions + 1))


def test_all_weights_of_an_adapter_cannot_be_trained(tmp_path: Path, policy: str) -> None:
    save_adapter(make_adapter(policy, 0, seed=1), tmp_path / "adapter")
    adapter, wanted = (
        str(tmp_path / "adapter"),
        r"policy\.model=.*adapter: is an adapter, and training weights of the model itself",
    )
    data = DemonstrationDataSettings(demonstrations=shown(tmp_path, "a.jsonl", "b"), heldout_fraction=0)
    prepare_sft(SftRun(data=data, policy=PolicySettings(model=adapter, tuning=LoraTuning())))
    with pytest.raises(UserError, match=wanted):
        prepare_sft(SftRun(data=data, policy=PolicySettings(model=adapter, tuning=FullTuning())))
    with pytest.raises(UserError, match=wanted):
        read_corpus(PretrainRun(data=TextDataSettings(text="none"), policy=PretrainedPolicySettings(model=adapter)))


@pytest.mark.parametrize(
    ("sizes", "wanted"),
    [
        ({"num_heads": 3}, r"policy\.model: .* gives heads 42\.6667 wide"),
        ({"num_heads": 8}, r"gives heads 16 wide; make that a whole number of at least 32"),
        ({"vocab_size": 257}, r"policy\.model\.vocab_size=257: .* at least 258"),
    ],
)
def test_sizes_that_no_model_can_have_are_told_before_the_text_is_read(sizes: dict[str, int], wanted: str) -> None:
    policy = PretrainedPolicySettings(model=NewLlamaSettings(**sizes))
    with pytest.raises(UserError, match=wanted):
        read_corpus(PretrainRun(data=TextDataSettings(text="none"), policy=policy))


def test_an_encoder_is_looked_at_before_it_is_trained(tmp_path: Path, encoder: str, policy: str) -> None:
    def run(model: Any, max_tokens: int) -> RewardRun:
        data = FeedbackDataSettings(pairs=pairs(tmp_path, "a.jsonl", "b"), heldout_fraction=0)
        return RewardRun(data=data, reward=RewardEncoderSettings(model=model, max_tokens=max_tokens))

    assert len(prepare_reward(run(encoder, 40), str).train) == 1
    with pytest.raises(UserError, match=r"reward\.max_tokens=41: .* takes at most 40 tokens"):
        prepare_reward(run(encoder, 41), str)
    with pytest.raises(UserError, match=r"reward\.max_tokens=41 .* 40 positions of reward\.model\.max_positions"):
        prepare_reward(run(NewBertSettings(max_positions=40), 41), str)
    with pytest.raises(UserError, match=r"reward\.model=.*llama is a decoder"):
        check_encoder(RewardEncoderSettings(model=policy, max_tokens=40))


# "a b" with "c" is CLS a b SEP c SEP: 6 tokens; with "c d" 7.
PAIR = Ranking("a b", ("c", "c d"))


@pytest.mark.parametrize(("max_tokens", "num_cut"), [(8, 0), (7, 0), (6, 1), (5, 1)])
def test_a_pair_is_cut_when_one_side_does_not_fit(encoder: str, max_tokens: int, num_cut: int) -> None:
    assert count_cut(open_encoder(ModelRef(encoder, "reward.model")).tokenizer, [PAIR], max_tokens) == num_cut


class LearnersOfNothing:
    def update(self, batch: Any, plan: Any) -> MergedUpdate:
        return MergedUpdate({"loss": 1.0}, {})

    def evaluate(self, batch: Any) -> dict[str, float]:
        return {"loss": 1.0}

    def compute(self, batch: Any, role: Any, function: Any) -> Any:
        return np.zeros(batch.response_mask.shape, np.float32)

    def save(self, folder: Path) -> Files:
        return {}

    def export(self, folder: Path) -> None: ...


class FakeLog:
    def phases(self) -> Phases:
        return Phases()

    def append(self, record: Any) -> None: ...

    def truncate_after(self, step: int) -> None: ...

    def saved(self, step: int) -> None: ...


@pytest.mark.parametrize(("max_tokens", "notes"), [(7, 0), (6, 1)])
def test_a_reward_run_says_how_many_pairs_it_cut(tmp_path: Path, encoder: str, max_tokens: int, notes: int) -> None:
    reward = RewardEncoderSettings(model=encoder, max_tokens=max_tokens)
    run = RewardRun(data=FeedbackDataSettings(pairs="read"), reward=reward)
    data = RewardInput((PAIR, Ranking("a", ("b", "c"))), (PAIR,), ())
    learners: Any = LearnersOfNothing()
    log: Any = FakeLog()
    result = run_reward(run, data, open_encoder(run.reward.existing_encoder).tokenizer, learners, tmp_path, log)
    assert (result.metrics["num_cut_pairs"], len(result.notes or ())) == (2 * notes, notes)
    assert all(note.startswith("2 of 3 pairs are longer than reward.max_tokens=6") for note in result.notes or ())


def test_prompts_too_long_to_calibrate_on_are_reported(encoder: str, policy: str) -> None:
    run = RewardRun(
        data=FeedbackDataSettings(pairs="read", max_prompt_tokens=10),
        reward=RewardEncoderSettings(model=encoder),
        calibration=CalibrationSettings(policy=policy),
    )
    opened = open_calibration_policy(run)
    assert opened is not None
    found = prepare_calibration(run, opened, [Ranking("a", ("b", "c")), Ranking(LONG, ("b", "c"))])
    assert [prompt.text for prompt in found.prompts] == ["a"]
    (note,) = found.notes
    assert note.startswith("calibration: 1 of 2 prompts dropped")
