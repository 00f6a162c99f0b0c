"""A reward that pays for a group's terms is found out: by texts of ours, by a user's, in a reward model's own form."""

import json
from pathlib import Path

import pytest

from plumbob.configs.settings.rewards import RuleReward
from plumbob.configs.settings.stewardship.bias_checks import BiasCheckSettings
from plumbob.core.errors import UserError
from plumbob.reward.bias.bias_probe import BiasProbe
from plumbob.reward.open_scorer import open_scorer
from plumbob.reward.reward_models.dialogue_form import DialogueForm, form_of, save_form
from plumbob.reward.scorer import Score, ScoreRequest
from tests.support.tiny_scorer import model_reward, write_scorer


def rows_file(path: Path, rows: list[dict[str, str]]) -> str:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


def test_what_a_rule_pays_for_a_group_is_measured() -> None:
    reward = RuleReward(lambda prompt, response: 0.5 * ("woman" in response.split()))
    found = BiasProbe(BiasCheckSettings(), reward).measured(open_scorer(reward, "cpu"))
    of = {one.contrast.second: one for one in found.differences}
    # One of the 13 persons is a woman, whom each of the 12 responses names once.
    assert of["women"].mean == pytest.approx(-0.5 / 13)
    assert of["women"].is_real and of["women"].num_texts == 156
    # Both sides of "white woman" and "Black woman" have it.
    assert of["Black people"].mean == 0 and not of["Black people"].is_real
    # A bound of a quarter is not passed, one of 0.03 is.
    assert found.past_bound == () and found.sentence() is None
    with pytest.raises(UserError, match=r"gender: men and women: -0\.04 \[-0\.06, -0\.02\] over 156 texts.*max_diff"):
        BiasProbe(BiasCheckSettings(max_difference=0.03, past_bound="refuse"), reward).checked(
            open_scorer(reward, "cpu")
        )


def test_a_users_texts_and_terms(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"Question {n}?", "chosen": f"The cat has {n}.", "rejected": f"A dog has {n}."} for n in range(6)
    ]
    texts = rows_file(tmp_path / "pairs.jsonl", rows)
    (tmp_path / "terms.csv").write_text("dimension,first_group,second_group,first,second\nkind,cats,dogs,cat,dog\n")
    settings = BiasCheckSettings(texts=texts, terms=str(tmp_path / "terms.csv"), max_difference=1.0)
    reward = RuleReward(lambda prompt, response: 3.0 * ("cat" in response) + len(prompt))
    probe = BiasProbe(settings, reward)
    assert "the reward scores 24 texts, each beside the same with another group's terms (kind); a mean" in probe.note()
    (found,) = probe.measured(open_scorer(reward, "cpu")).differences
    # Chosen and rejected of a prompt are one case, of two texts.
    assert (found.mean, found.num_texts, found.num_cases, found.is_real) == (3.0, 12, 6, True)
    # No spread, no interval; chance gives one sign six times in 2 of 64.
    assert found.ci95 is None

    few = BiasProbe(BiasCheckSettings(texts=texts, terms=str(tmp_path / "terms.csv"), max_texts=3), reward)
    assert len(few.texts.pairs) == 3
    with pytest.raises(UserError, match="no text names one of two groups that the terms compare, those of our list"):
        BiasProbe(BiasCheckSettings(texts=texts), reward)


class Recorder:
    """Scores by nothing, and remembers what it was asked."""

    def __init__(self) -> None:
        self.requests: list[ScoreRequest] = []

    def score(self, requests: list[ScoreRequest]) -> list[Score]:
        self.requests += requests
        return [Score(0.0, {}) for _ in requests]


CHAT = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def test_a_reward_model_reads_both_sides_in_its_own_form(tmp_path: Path) -> None:
    folder = write_scorer(tmp_path / "model")
    chat = [{"messages": [{"role": "user", "content": "Is he in?"}, {"role": "assistant", "content": "yes"}]}]
    texts = rows_file(tmp_path / "chat.jsonl", chat)  # type: ignore[arg-type]
    save_form(form_of(CHAT, {}), folder)
    asked = Recorder()
    BiasProbe(BiasCheckSettings(texts=texts), model_reward(folder)).measured(asked)
    assert [request.form_prompts[str(folder)] for request in asked.requests] == [
        "<user>Is he in?<assistant>",
        "<user>Is she in?<assistant>",
    ]


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        (form_of(CHAT, {}), "<user>A man moved in next door. What can I bring?<assistant>"),
        (
            DialogueForm(None, {}, "\n\nAssistant:"),
            "\n\nHuman: A man moved in next door. What can I bring?\n\nAssistant:",
        ),
        (DialogueForm(None, {}, ""), "A man moved in next door. What can I bring?"),
    ],
)
def test_our_dialogues_are_written_as_the_reward_model_was_trained(
    form: DialogueForm, expected: str, tmp_path: Path
) -> None:
    folder = write_scorer(tmp_path / "model")
    save_form(form, folder)
    asked = Recorder()
    BiasProbe(BiasCheckSettings(), model_reward(folder)).measured(asked)
    assert expected in {request.prompt for request in asked.requests}
