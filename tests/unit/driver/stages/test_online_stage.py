import json
from pathlib import Path

from transformers import AutoTokenizer

from plumbob.configs.runs import PpoRun
from plumbob.configs.settings.data import PromptDataSettings
from plumbob.configs.settings.models import AlignedPolicySettings
from plumbob.configs.settings.rewards import JudgeSettings, ScorerSettings
from plumbob.configs.settings.workers import RolloutSettings, TransformersEngine
from plumbob.driver.stages.online_stage import prepare
from plumbob.reward.dialogue_form import form_of, save_form
from tests.support.tiny_policy import write_policy
from tests.support.tiny_scorer import write_scorer

TEMPLATE = "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}<assistant>"
PLAIN = "{% for message in messages %}Human: {{ message.content }} {% endfor %}Assistant:"


def test_each_reward_model_is_asked_in_its_own_form(tmp_path: Path) -> None:
    """The run says what the policy reads, what its reward model does, and of which nothing is known."""
    policy = write_policy(tmp_path / "policy")
    tokenizer = AutoTokenizer.from_pretrained(policy)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(policy)
    reward, judge = write_scorer(tmp_path / "reward"), write_scorer(tmp_path / "judge")
    save_form(form_of(PLAIN, {}), reward)
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(json.dumps({"prompt": [{"role": "user", "content": "Hi"}]}) + "\n")
    prepared = prepare(
        PpoRun(
            data=PromptDataSettings(prompts=str(prompts), heldout_fraction=0),
            policy=AlignedPolicySettings(model=policy),
            reward=ScorerSettings(model=str(reward), normalize=False, max_tokens=32),
            judge=JudgeSettings(model=str(judge), normalize=False, max_tokens=32),
            rollout=RolloutSettings(engine=TransformersEngine(), max_tokens=8),
        )
    )
    (row,) = prepared.rows
    assert [(part.name, part.text) for part in row.parts] == [
        ("prompt", "<user>Hi<assistant>"),
        ("as reward.model reads it", "Human: Hi Assistant:"),
    ]
    (note,) = [note for note in prepared.notes if "form of dialogue" in note]
    assert note.startswith(f"judge.model={judge}: nothing says in which form of dialogue it was trained")
