"""Learning rates are functions of the step."""

from __future__ import annotations

import pytest

from vqgan.errors import InvalidValueError
from vqgan.training.schedules import Constant, WarmupCosine


def test_constant() -> None:
    assert [Constant(0)(step) for step in (0, 10**6)] == [1.0, 1.0]
    assert [Constant(4)(step) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_cosine_warms_up_falls_and_stays() -> None:
    schedule = WarmupCosine(warmup_steps=10, total_steps=110, final_factor=0.1)
    assert schedule(0) == pytest.approx(0.1)
    assert schedule(9) == pytest.approx(1.0)
    assert schedule(60) == pytest.approx(0.55)
    assert schedule(110) == schedule(10**6) == pytest.approx(0.1)
    falling = [schedule(step) for step in range(10, 111)]
    assert falling == sorted(falling, reverse=True)


@pytest.mark.parametrize("values", [(-1, 10, 0.1), (10, 10, 0.1), (0, 10, 2.0)])
def test_out_of_range(values: tuple[int, int, float]) -> None:
    with pytest.raises(InvalidValueError):
        WarmupCosine(*values)
