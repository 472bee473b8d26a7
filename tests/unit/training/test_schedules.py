"""Learning rates are functions of the step."""

from __future__ import annotations

import math

import pytest

from vqgan.errors import InvalidValueError
from vqgan.training.schedules import Constant, WarmupCosine, WarmupLinear


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
    with pytest.raises(InvalidValueError):
        WarmupLinear(*values, hold_until=0.5)


@pytest.mark.parametrize("hold_until", [-0.1, 1.0])
def test_a_rate_that_never_falls_is_refused(hold_until: float) -> None:
    with pytest.raises(InvalidValueError, match="hold_until"):
        WarmupLinear(0, 10, 0.1, hold_until)


def test_linear_warms_up_stays_falls_and_stays() -> None:
    schedule = WarmupLinear(warmup_steps=10, total_steps=110, final_factor=0.1, hold_until=0.5)
    assert [schedule(step) for step in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])
    assert {schedule(step) for step in range(9, 56)} == {1.0}
    line = [1 - 0.9 * n / 55 for n in range(56)]
    assert [schedule(step) for step in range(55, 111)] == pytest.approx(line)
    assert schedule(10**6) == pytest.approx(0.1)


def test_linear_does_not_fall_before_it_has_warmed_up() -> None:
    schedule = WarmupLinear(warmup_steps=10, total_steps=20, final_factor=0.0, hold_until=0.0)
    assert [schedule(step) for step in (9, 10, 15, 20)] == pytest.approx([1.0, 1.0, 0.5, 0.0])


@pytest.mark.parametrize("step", [0, 3, 99, 100, 101, 350, 599, 600, 700])
def test_the_cosine_has_the_bits_that_it_had(step: int) -> None:
    """Of the formula written out, by which earlier runs were trained."""
    progress = min(1.0, (step - 100) / 500)
    expected = (step + 1) / 100 if step < 100 else 0.1 + (1 - 0.1) * 0.5 * (1 + math.cos(math.pi * progress))
    assert WarmupCosine(100, 600, 0.1)(step) == expected
