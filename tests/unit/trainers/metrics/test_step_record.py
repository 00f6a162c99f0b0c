"""The seconds of a step's phases."""

from types import SimpleNamespace

import pytest

from plumbob.trainers.metrics.step_record import Phases


def test_phases_add_up_and_start_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    # The clock reads 0, 2 (sample: 2 s), 5, 6 (learn: 1 s), 10, 14 (sample: 4 s more, though its block raises).
    clock = iter([0.0, 2.0, 5.0, 6.0, 10.0, 14.0])
    monkeypatch.setattr("plumbob.trainers.metrics.step_record.time", SimpleNamespace(monotonic=lambda: next(clock)))
    phases = Phases()
    with phases.phase("sample"):
        pass
    with phases.phase("learn"):
        pass
    with pytest.raises(RuntimeError), phases.phase("sample"):
        raise RuntimeError
    assert phases.take() == {"sample": 6.0, "learn": 1.0}
    assert phases.take() == {}
