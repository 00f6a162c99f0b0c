import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import AutoTokenizer

from plumbob.configs.runs import OnlineRun
from plumbob.configs.settings.algorithms import Grpo
from plumbob.configs.settings.data import PromptDataSettings, ReadingSettings
from plumbob.configs.settings.models import AlignedPolicySettings
from plumbob.configs.settings.reward_parts import EnvironmentPart
from plumbob.configs.settings.rewards import GoldRewardSettings, ScorerSettings
from plumbob.configs.settings.rules.reward_rules import LengthRule, NumericRule
from plumbob.configs.settings.training import OnlineSettings
from plumbob.configs.settings.workers import RolloutSettings, TransformersEngine
from plumbob.core.errors import UserError
from plumbob.data.reading.readers import read_pairs
from plumbob.driver.stages.online_stage import prepare
from plumbob.driver.stages.stage import StageContext, run_stage
from plumbob.reward.open_scorer import open_scorer
from plumbob.reward.reward_models.bert_scorer import BertScorer
from plumbob.reward.reward_models.dialogue_form import FormInUse, form_of, save_form
from plumbob.reward.services.judge_answers import ANSWERS_FOLDER
from plumbob.rollout.journal import read_journal
from plumbob.trainers.metrics.sinks.jsonl import read_metrics
from plumbob.trainers.online.online_input import open_trainable_policy, prepare_online
from tests.support.environments import environment
from tests.support.online_world import FakeOnlineWorld
from tests.support.recording_listener import Watching
from tests.support.score_requests import score_requests
from tests.support.tiny_policy import write_policy
from tests.support.tiny_scorer import model_reward, write_scorer

TEMPLATE = "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}<assistant>"
PLAIN = "{% for message in messages %}Human: {{ message.content }} {% endfor %}Assistant:"


def test_each_reward_model_is_asked_in_its_own_form(tmp_path: Path) -> None:
    """The run says what the policy reads, what its reward model does, and of which nothing is known."""
    policy = write_policy(tmp_path / "policy")
    tokenizer = AutoTokenizer.from_pretrained(policy)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(policy)
    reward, gold = write_scorer(tmp_path / "reward"), write_scorer(tmp_path / "gold")
    save_form(form_of(PLAIN, {}), reward)
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(json.dumps({"prompt": [{"role": "user", "content": "Hi"}]}) + "\n")
    prepared = prepare(
        OnlineRun(
            data=PromptDataSettings(prompts=str(prompts), heldout_fraction=0),
            policy=AlignedPolicySettings(model=policy),
            reward=ScorerSettings(model=str(reward), normalize=False, max_tokens=32),
            gold_reward=GoldRewardSettings(model=str(gold), normalize=False, max_tokens=32),
            rollout=RolloutSettings(engine=TransformersEngine(), max_tokens=8),
        )
    )
    (row,) = prepared.rows
    assert [(part.name, part.text) for part in row.parts] == [
        ("prompt", "<user>Hi<assistant>"),
        ("as reward.model reads it", "Human: Hi Assistant:"),
    ]
    (note,) = [note for note in prepared.notes if "form of dialogue" in note]
    assert note.startswith(f"gold_reward.model={gold}: nothing says in which form of dialogue it was trained")


def test_prompts_of_several_files_are_shown_counted_and_checked_by_file(tmp_path: Path) -> None:
    files = [tmp_path / "large.jsonl", tmp_path / "small.jsonl"]
    for file, numbers in zip(files, (range(6), range(6, 8)), strict=True):
        rows = [{"prompt": f"{number} + 1?", "answer": str(number + 1)} for number in numbers]
        file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    run = two_steps(tmp_path, write_policy(tmp_path / "policy"), files[0])
    mixed = run.model_copy(
        update={
            "data": PromptDataSettings(mixture={str(file): 1.0 for file in files}, heldout_fraction=0),
            "reward": ScorerSettings(parts=(NumericRule(column="answer"),)),
        }
    )
    prepared = prepare(mixed)
    shown = [(row.setting, row.num_records, row.parts[0].text) for row in prepared.rows]
    assert shown == [(f"data.mixture={files[0]}", 6, "0 + 1?"), (f"data.mixture={files[1]}", 2, "6 + 1?")]
    # 8 places of an epoch, half of them each file's.
    assert any(f"4 of the 8 records of an epoch (50.0%) are of {files[1]}" in note for note in prepared.notes)
    counted = [(one.setting, one.num_used) for one in prepared.sizes().inputs]
    assert counted == [(f"data.mixture={files[0]}", 6), (f"data.mixture={files[1]}", 2)]
    files[1].write_text('{"prompt": "6 + 1?"}\n')
    with pytest.raises(UserError, match=rf"^{re.escape(str(files[1]))}: the reward cannot score responses to 1 of 1"):
        prepare(mixed)


def test_a_stage_is_called_as_it_was_begun_whatever_its_algorithm(tmp_path: Path) -> None:
    """An older run called every stage of online alignment `ppo`: resumed, it has that name in all that it leaves."""
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": f"the car has {number}"}) + "\n" for number in range(4)))
    run = two_steps(tmp_path, write_policy(tmp_path / "policy"), prompts)
    world, heard = FakeOnlineWorld(None, run.online.num_steps), Heard()
    context = context_of(tmp_path / "ppo", world, world, heard)
    folder = context.folder
    (folder / ANSWERS_FOLDER).mkdir(parents=True)
    spent = {"part": "polite", "question": "1f", "choice": 7, "prompt_tokens": 30, "completion_tokens": 5}
    (folder / ANSWERS_FOLDER / "scorer.jsonl").write_text(2 * (json.dumps(spent) + "\n"))
    for _ in range(2):  # The second resumes, and says that it passes over a damaged checkpoint.
        summary = run_stage(prepare(run), context)
        (folder / "checkpoints/step-000009").mkdir(exist_ok=True)
    assert run.stage == "grpo" and heard.begun == ["ppo", "ppo"]
    cost = {"answers": 2, "prompt_tokens": 60, "completion_tokens": 10}
    assert summary.result.metrics["judge_costs"] == {"polite": cost}
    assert [record.stage for record in read_metrics(folder)] == ["ppo", "ppo"]
    assert {stage for stage, _ in heard.notes} == {"ppo"}
    assert any("step-000009 is damaged" in message for _, message in heard.notes)


def test_a_run_asks_its_reward_model_in_the_form_that_it_was_trained_on(tmp_path: Path) -> None:
    """From the check of its settings to its journal: pairs of messages made a reward model of plain transcripts, and
    the policy's template is another."""
    policy, reward = write_policy(tmp_path / "policy"), write_scorer(tmp_path / "reward")
    tokenizer = AutoTokenizer.from_pretrained(policy)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(policy)
    turns = {name: [{"role": role, "content": name}] for name, role in (("prompt", "user"), ("chosen", "assistant"))}
    pairs, in_use = tmp_path / "pairs.jsonl", FormInUse(None)
    pairs.write_text(json.dumps({**turns, "rejected": [{"role": "assistant", "content": "no"}]}) + "\n")
    read_pairs(str(pairs), ReadingSettings(), in_use)
    save_form(in_use.form([]), reward)
    prompts = tmp_path / "prompts.jsonl"
    asked = [json.dumps({"prompt": [{"role": "user", "content": f"a b {letter}"}]}) for letter in "cdef"]
    prompts.write_text("\n".join(asked))
    run = two_steps(tmp_path, policy, prompts)
    assert run.reward is not None
    context = context_of(
        tmp_path / "ppo", FakeOnlineWorld(None, run.online.num_steps), open_scorer(run.reward.reward, "cpu"), Heard()
    )
    run_stage(prepare(run), context)
    rows = [row for _, row in read_journal(context.folder / "rollouts")]
    assert len(rows) == 2 * 2 * 2
    alone = BertScorer(model_reward(reward))
    for row in rows:
        letter = row.prompt.removeprefix("<user>a b ").removesuffix("<assistant>")
        assert letter in "cdef"
        texts = [(f"\n\nHuman: a b {letter}\n\nAssistant:", row.response), (row.prompt, row.response)]
        transcript, templated = (score.total for score in alone.score(score_requests(texts)))
        assert row.score == pytest.approx(transcript, abs=1e-5) and abs(transcript - templated) > 1e-3


def two_steps(tmp_path: Path, policy: str, prompts: Path) -> OnlineRun:
    """Of GRPO with the reward model in `reward`, which is made where it is not there."""
    reward = tmp_path / "reward"
    return OnlineRun(
        data=PromptDataSettings(prompts=str(prompts), heldout_fraction=0),
        policy=AlignedPolicySettings(model=policy),
        reward=ScorerSettings(
            model=str(reward if reward.exists() else write_scorer(reward)), normalize=False, max_tokens=32
        ),
        rollout=RolloutSettings(engine=TransformersEngine(), max_tokens=8),
        online=OnlineSettings(
            estimator=Grpo(),
            num_steps=2,
            prompts_per_step=2,
            samples_per_prompt=2,
            minibatch_size=4,
            keep_checkpoints=1,
        ),
    )


def context_of(folder: Path, world: FakeOnlineWorld, scorer: Any, heard: "Heard") -> StageContext:
    """Of the stage `ppo`, with samplers and learners of a fake world."""
    samplers = SimpleNamespace(sample_apart=world.sample, load=world.load)
    workers: Any = SimpleNamespace(
        start_samplers=lambda *_: samplers, start_scorers=lambda *_: scorer, start_learners=lambda _: world
    )
    control: Any = SimpleNamespace(saved=lambda _: None, is_save_requested=lambda: False)
    memory: Any = SimpleNamespace(take=lambda: 0.25)
    return StageContext(workers, control, folder, heard, memory, "ppo")


class Heard(Watching):
    """Keeps the stages that began too."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[str] = []

    def stage_began(self, stage: str) -> None:
        self.begun.append(stage)


def answered_prompts(tmp_path: Path, *answers: object) -> str:
    """Prompts with their numbers from 0 on, each with the answer given, or without where that is None."""
    path = tmp_path / "answered.jsonl"
    rows = [{"prompt": f"the car has {number}", "answer": answer} for number, answer in enumerate(answers)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def ruled(tmp_path: Path, prompts: str, **groups: Any) -> OnlineRun:
    own: dict[str, Any] = {"rollout": RolloutSettings(engine=TransformersEngine(), max_tokens=8)}
    return OnlineRun(
        data=PromptDataSettings(prompts=prompts, heldout_fraction=0),
        policy=AlignedPolicySettings(model=write_policy(tmp_path / "policy")),
        **own | groups,
    )


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (
            (1, None, None),
            r"the reward cannot score responses to 2 of 3 prompts, such as 'the car has 1': the part right needs the "
            r"column 'answer' of the prompt's row, which has prompt; a null counts as missing\. Fix these rows, or the "
            r"part's setting `column`$",
        ),
        (
            (1, 2, "many"),
            r"to 1 of 3 prompts, such as 'the car has 2': the part right: the column 'answer' has 'many', in which "
            r"there is no number",
        ),
    ],
)
@pytest.mark.parametrize("group", ["reward", "gold_reward"])
def test_a_row_that_a_part_cannot_score_by_is_refused_before_anything_starts(
    answers: tuple[object, ...], message: str, group: str, tmp_path: Path
) -> None:
    parts = {"parts": (NumericRule(name="right"),)}
    others: dict[str, Any] = {
        "reward": ScorerSettings(parts=(LengthRule(max=9),)),
        "gold_reward": GoldRewardSettings(**parts),
    }
    groups = others if group == "gold_reward" else {"reward": ScorerSettings(**parts)}
    prompts = answered_prompts(tmp_path, *answers)
    with pytest.raises(UserError, match=f"^{re.escape(prompts)}: .*{message}"):
        prepare(ruled(tmp_path, prompts, **groups))


def test_rows_that_an_environment_opens_alike_are_prompts_of_their_own(tmp_path: Path) -> None:
    """No car is told in the opening: neither of those in training is one that is held out."""
    files = {}
    for name, cars in (("prompts", ("Zorvex", "Quell", "Brindle")), ("heldout_prompts", ("Tarn",))):
        files[name] = str(tmp_path / f"{name}.jsonl")
        Path(files[name]).write_text("".join(json.dumps({"car": car}) + "\n" for car in cars))
    body = """
        class World:
            def reset(self, row, seed):
                return [{"role": "user", "content": "What am I thinking of?"}]
            def step(self, turn):
                return {"done": True}
        """
    rollout = RolloutSettings(engine=TransformersEngine(), max_tokens=8, environment=environment(tmp_path, body))
    run = ruled(tmp_path, files["prompts"], rollout=rollout, reward=ScorerSettings(parts=(EnvironmentPart(),)))
    tokenizer = AutoTokenizer.from_pretrained(run.policy.model)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(str(run.policy.model))
    data = run.data.model_copy(update=files)
    found = prepare_online(run.model_copy(update={"data": data}), open_trainable_policy(run))
    assert [prompt.row for prompt in found.train] == [{"car": car} for car in ("Zorvex", "Quell", "Brindle")]
    assert len({prompt.prompt_id for prompt in found.train}) == 3 and len({prompt.text for prompt in found.train}) == 1


def test_rows_are_kept_where_a_part_reads_them_alone(tmp_path: Path) -> None:
    prompts = answered_prompts(tmp_path, 1, 2)
    for part, kept in ((NumericRule(), {"answer"}), (LengthRule(max=9), set())):
        run = ruled(tmp_path, prompts, reward=ScorerSettings(parts=(part,)))
        rows = [prompt.row for prompt in prepare_online(run, open_trainable_policy(run)).train]
        assert [set(row) - {"prompt"} for row in rows] == [kept, kept]
