"""A stage's energy by hand."""

import pytest

from plumbob.trainers.metrics.energy_use import EnergyUse, energy_words, stage_energy
from plumbob.trainers.metrics.step_record import Phases, StepRecord


def step(number: int, num_samples: int, **joules: float) -> StepRecord:
    return StepRecord("sft", number, 3, {}, {}, None, num_samples, joules)


def test_a_stage_that_one_process_made() -> None:
    """7,200 J are 2 Wh; 1.8 of them by the CPU. 40 records took 2 Wh: a thousand take 50."""
    use = EnergyUse({"cpu": 6480.0, "memory": 720.0}, ("memory",), carbon_g=0.5)
    steps = [step(1, 20, data=36.0, learn=3600.0), step(2, 20, learn=1800.0)]
    assert stage_energy(use, (), steps) == {
        "wh": 2.0,
        "cpu_wh": 1.8,
        "memory_wh": 0.2,
        "estimated": ["memory"],
        "carbon_g": 0.5,
        "phases_wh": {"data": 0.01, "learn": 1.5},
        "wh_per_1000_samples": 50.0,
    }


def test_a_resumed_stage_has_what_its_steps_took_before() -> None:
    """Of three steps before, the last came after the checkpoint and was made again: it was consumed all the same.

    3,600 J now at 0.2 g, 1,800 before: 5,400 J at the same grams a joule are 0.3 g.
    """
    earlier = [step(1, 10, learn=600.0), step(2, 10, learn=600.0), step(3, 10, learn=600.0)]
    steps = [*earlier[:2], step(3, 10, learn=500.0)]
    energy = stage_energy(EnergyUse({"cpu": 3600.0}, ("cpu",), 0.2), earlier, steps)
    assert (energy["wh"], energy["earlier_wh"]) == (1.5, 0.5)
    assert energy["carbon_g"] == pytest.approx(0.3)
    assert energy["phases_wh"] == {"learn": pytest.approx(1700 / 3600)}
    assert energy["wh_per_1000_samples"] == pytest.approx(50.0)


def test_a_stage_without_steps_has_no_samples() -> None:
    energy = stage_energy(EnergyUse({"cpu": 360.0}, ("cpu",), None), (), ())
    assert energy["wh"] == 0.1 and energy["carbon_g"] is None
    assert "wh_per_1000_samples" not in energy and "earlier_wh" not in energy


def test_in_words() -> None:
    energy = {"wh": 1.2512, "carbon_g": 0.0701, "estimated": ["cpu", "memory"]}
    assert energy_words(energy) == "1.25 Wh, 0.0701 g CO2e (cpu and memory estimated)"
    assert energy_words({"wh": 12.0, "carbon_g": None, "estimated": []}) == "12 Wh"
    assert energy_words(None) == energy_words({}) == energy_words({"wh": "much"}) == ""


def test_phases_take_what_a_counter_moved_on_by_within_them() -> None:
    """Around the three blocks the counter stands at 10 and 13, at 13 and 20, at 20 and 21."""
    readings = iter([10.0, 13.0, 13.0, 20.0, 20.0, 21.0])
    phases = Phases(lambda: next(readings))
    with phases.phase("sample"):
        pass
    with phases.phase("learn"):
        pass
    with pytest.raises(ValueError), phases.phase("sample"):
        raise ValueError
    assert phases.take_joules() == {"sample": 4.0, "learn": 7.0}
    assert phases.take_joules() == {}


def test_without_a_counter_there_is_none() -> None:
    phases = Phases()
    with phases.phase("sample"):
        pass
    assert phases.take_joules() == {} and set(phases.take()) == {"sample"}
