"""The generated world: its split, its gold reward, its noise and its files."""

import json
import math
import random
from pathlib import Path

import pytest

from plumbob.configs.settings.data import ToyWorldSettings
from plumbob.core.errors import UserError
from plumbob.data.record_digest import digest_of
from plumbob.data.records import PreferencePair
from plumbob.data.toy_world.gold_score import MAX_GOLD, gold_score
from plumbob.data.toy_world.language import ATTRIBUTES, NAMES, STYLES, facts, response
from plumbob.data.toy_world.toy_files import World, build_world, noise_ceiling, write_world

SMALL = ToyWorldSettings(num_cars=4, num_texts=200, num_demonstrations=150, num_pairs=400, num_heldout_pairs=80)
PROMPT = "Question: How fast is the Quillan?\nAnswer:"
SPEED = facts()["Quillan"]["speed"]
SEATS = facts()["Quillan"]["seats"]
OTHER_SPEED = next(value for value in ATTRIBUTES[0].values if value != SPEED)
PLAIN = f" The Quillan has a top speed of {SPEED}."


@pytest.fixture(scope="module")
def world() -> World:
    return build_world(SMALL, seed=3)


def tanh_score(points: float) -> float:
    return MAX_GOLD * math.tanh(points / MAX_GOLD)


def test_the_seed_decides_everything(world: World) -> None:
    assert build_world(SMALL, seed=3) == world
    assert build_world(SMALL, seed=4).pairs != world.pairs


def test_seed_0_gives_the_texts_that_published_metrics_are_of() -> None:
    sizes = ToyWorldSettings(num_texts=200, num_demonstrations=50, num_pairs=50, num_heldout_pairs=20)
    made = build_world(sizes, seed=0)
    parts = (tuple(made.texts), tuple(made.demonstrations), tuple(made.pairs), tuple(made.heldout_pairs))
    # Of the code whose metrics README.md and docs/results.md have: another digest makes them figures of another world.
    assert digest_of(parts) == "c754ab533129a13698ed6787bf442b84"


def test_prompts_are_split_by_phrasing_and_every_fact_stays_known(world: World) -> None:
    # 4 cars x 6 attributes x (3 greetings x 4 questions) = 288 phrasings, of which 3 in 12 are held out.
    assert (len(world.prompts), len(world.heldout_prompts)) == (216, 72)
    train, heldout = set(world.prompts), set(world.heldout_prompts)
    assert len(train) == 216 and len(heldout) == 72 and not train & heldout
    assert {demo.prompt for demo in world.demonstrations} | {pair.prompt for pair in world.pairs} <= train
    assert {pair.prompt for pair in world.heldout_pairs} <= heldout
    assert not [text for text in world.texts if any(prompt in text for prompt in heldout)]


def test_responses_begin_with_a_space_and_pairs_differ(world: World) -> None:
    assert all(demo.response[0] == " " and demo.response[1] != " " for demo in world.demonstrations)
    assert all(pair.chosen != pair.rejected for pair in world.pairs)


def test_too_many_cars_are_refused() -> None:
    with pytest.raises(UserError, match=rf"num_cars={len(NAMES) + 1}.*{len(NAMES)} cars"):
        build_world(ToyWorldSettings(num_cars=len(NAMES) + 1), seed=0)


def test_gold_score_adds_its_points() -> None:
    # right 2 + the car is named 0.5 + an end 0.2
    assert gold_score(PROMPT, PLAIN) == pytest.approx(tanh_score(2.7))
    # + polite 0.5
    assert gold_score(PROMPT, " Happy to help." + PLAIN) == pytest.approx(tanh_score(3.2))
    # + a further fact 0.6
    assert gold_score(PROMPT, f"{PLAIN[:-1]}, and it has {SEATS}.") == pytest.approx(tanh_score(3.3))
    # right 2 - a bare value 0.8 + an end 0.2
    assert gold_score(PROMPT, f" {SPEED}.") == pytest.approx(tanh_score(1.4))
    # wrong -2 - a guess 0.3 + an end 0.2
    assert gold_score(PROMPT, f" I guess that the Quillan has a top speed of {OTHER_SPEED}.") == pytest.approx(
        tanh_score(-2.1)
    )
    # states nothing -0.5 - evasive 0.8 + an end 0.2
    assert gold_score(PROMPT, " I would rather not say.") == pytest.approx(tanh_score(-1.1))
    # an end is missing: -1 in place of 0.2
    assert gold_score(PROMPT, PLAIN[:-1]) == pytest.approx(tanh_score(1.5))


@pytest.mark.parametrize(
    "trick",
    [
        PLAIN * 2,
        PLAIN * 6,
        " " + " ".join(f"{value}." for value in ATTRIBUTES[0].values),
        f" The Tarnis has a top speed of {SPEED}.",
        " Happy to help." * 4 + PLAIN,
        f" speed Quillan of {SPEED} top has a The.",
        f" {SPEED}" * 10 + ".",
        PLAIN + f" It has a top speed of {OTHER_SPEED}.",
    ],
)
def test_gold_score_is_not_raised_by_tricks(trick: str) -> None:
    assert gold_score(PROMPT, trick) < gold_score(PROMPT, PLAIN) - 1


@pytest.mark.parametrize("garbage", ["", "  \n", "\ufffd\x00", "...", "the the the the", "<|pad|>" * 50, "9" * 5000])
def test_gold_score_of_garbage_is_low_and_bounded(garbage: str) -> None:
    assert -MAX_GOLD <= gold_score(PROMPT, garbage) < -1


def test_gold_score_ranks_the_styles() -> None:
    rng = random.Random(0)
    car, attribute = NAMES[0], ATTRIBUTES[0]
    score = {style: [gold_score(PROMPT, response(rng, style, car, attribute)) for _ in range(50)] for style in STYLES}
    assert min(score["polite"] + score["detailed"]) > max(score["plain"]) > max(score["curt"]) > 1
    for bad in ("wrong", "wrong-curt", "evasive", "rude", "joke"):
        assert max(score[bad]) < -1
    broken = [*score["unfinished"], *score["repeated"], *score["scrambled"]]
    assert sum(broken) / len(broken) < -1


def test_gold_score_judges_only_the_worlds_questions() -> None:
    with pytest.raises(ValueError, match="generated world's questions only"):
        gold_score("Question: Who owns Antarctica?\nAnswer:", " Nobody.")


def test_noise_ceiling_counts_ties_half() -> None:
    right, wrong = PLAIN, f" The Quillan has a top speed of {OTHER_SPEED}."
    also_right = f" The Quillan can reach {SPEED}."
    assert gold_score(PROMPT, right) == gold_score(PROMPT, also_right)
    agreed = PreferencePair(PROMPT, chosen=right, rejected=wrong)
    flipped = PreferencePair(PROMPT, chosen=wrong, rejected=right)
    tied = PreferencePair(PROMPT, chosen=right, rejected=also_right)
    # (1 + 1 + 0 + 0.5) / 4
    assert noise_ceiling([agreed, agreed, flipped, tied]) == 0.625


def test_preferences_have_the_odds_of_the_margin() -> None:
    """Of 4,000 pairs the share won by the better response is what the sigmoid says: standard error at most 0.008."""
    world = build_world(SMALL.model_copy(update={"num_pairs": 4000, "preference_noise": 1.5}), seed=0)
    margins = [gold_score(pair.prompt, pair.chosen) - gold_score(pair.prompt, pair.rejected) for pair in world.pairs]
    clear = [margin for margin in margins if margin != 0]
    expected = sum(1 / (1 + math.exp(-abs(margin) / 1.5)) for margin in clear) / len(clear)
    assert sum(margin > 0 for margin in clear) / len(clear) == pytest.approx(expected, abs=0.03)
    assert expected < 0.9


def test_files_hold_the_records_under_ordinary_names(world: World, tmp_path: Path) -> None:
    write_world(world, tmp_path / "new" / "world")
    files = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "new" / "world").iterdir()}
    rows = {name: [json.loads(line) for line in text.splitlines()] for name, text in files.items()}
    assert rows == {
        "text.jsonl": [{"text": text} for text in world.texts],
        "demonstrations.jsonl": [{"prompt": d.prompt, "completion": d.response} for d in world.demonstrations],
        "pairs.jsonl": [vars(pair) for pair in world.pairs],
        "heldout_pairs.jsonl": [vars(pair) for pair in world.heldout_pairs],
        "prompts.jsonl": [{"prompt": prompt} for prompt in world.prompts],
        "heldout_prompts.jsonl": [{"prompt": prompt} for prompt in world.heldout_prompts],
    }
