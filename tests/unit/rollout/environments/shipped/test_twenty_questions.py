"""Twenty questions about the toy world's cars, by episodes made by hand."""

import random

import pytest

from plumbob.configs.settings.programs.environments import EnvironmentSettings
from plumbob.data.toy_world.language import ATTRIBUTES, NAMES, Attribute, facts
from plumbob.rollout.environments.environment_host import EnvironmentHost
from plumbob.rollout.environments.shipped.twenty_questions import PROMPT, TwentyQuestions, attribute_in, rows
from tests.support.environments import replied, said

SOURCE = "plumbob.rollout.environments.shipped.twenty_questions:TwentyQuestions"


def told(content: str, is_done: bool = False) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": content}], "reward": -0.02, "done": is_done}


def test_a_game() -> None:
    known = facts()["Tarnis"]
    game = TwentyQuestions()
    assert game.reset({"car": "Tarnis"}, 0) == [{"role": "user", "content": PROMPT}]
    assert game.step(said("How fast is it?")) == told(f"{known['speed']}.")
    assert game.step(said("What does it run on?")) == told(f"{known['fuel'].capitalize()}.")
    assert game.step(said(f"Does it have {known['seats']}?")) == told("Yes.")
    assert game.step(said("Does it have 31 seats?")) == told("No.")
    assert game.step(said("Is it the Quillan?")) == told("No.")
    assert game.step(said("Is it red?")) == told("I do not know that.")
    assert game.step(said("It is the Tarnis.")) == {"reward": 1.0, "done": True}


def test_it_ends_when_the_questions_are_over() -> None:
    game = TwentyQuestions(num_questions=2, question_cost=0.02)
    game.reset({"car": "Tarnis", "prompt": "Ask."}, 0)
    assert game.step(said("Quillan?")) == told("No.")
    assert game.step(said("Ostrel or Tarnis?")) == told("No.", is_done=True)


def test_the_last_question_may_name_it() -> None:
    game = TwentyQuestions(num_questions=1)
    game.reset({"car": "Tarnis"}, 0)
    assert game.step(said("Tarnis")) == {"reward": 1.0, "done": True}


@pytest.mark.parametrize("attribute", ATTRIBUTES, ids=lambda one: one.name)
def test_every_question_of_the_world_is_understood(attribute: Attribute) -> None:
    for form in attribute.questions:
        assert attribute_in(form.format(car="car")) is attribute


def test_a_car_that_the_row_does_not_name_is_of_the_seed() -> None:
    game = TwentyQuestions(num_cars=4)
    for seed in range(8):
        assert game.reset({"prompt": "Ask."}, seed) is None
        assert game.step(said(random.Random(seed).choice(NAMES[:4])))["reward"] == 1.0
    with pytest.raises(ValueError, match="car=Kestrin: the cars are Quillan, Tarnis, Ostrel, Velmora"):
        game.reset({"car": "Kestrin"}, 0)
    with pytest.raises(ValueError, match="num_cars=25: the world has 24 cars"):
        TwentyQuestions(num_cars=25)


def test_facts_tell_the_cars_apart() -> None:
    """So that a policy that asks can know the car, and need not guess."""
    assert len({tuple(known.values()) for known in facts().values()}) == len(NAMES) == len(list(rows()))


def test_in_its_process() -> None:
    host = EnvironmentHost(EnvironmentSettings(source=SOURCE, arguments={"num_cars": 4}))
    episode = host.open(list(rows(4))[1], 0)
    assert replied(host, episode, "How fast is it?").messages[0]["content"] == f"{facts()['Tarnis']['speed']}."
    assert replied(host, episode, "Tarnis").reward == 1.0
