"""Each rule of a prior's on histories made by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from vqgan.prior.advice import RULES, PriorAdvisor, PriorSetup
from vqgan.prior.validation import BITS

SETUP = PriorSetup(steps=1000, order0=8.0, lr=0.003, dropout=0.1)
Change = Callable[[int], dict[str, float]]


def healthy(step: int) -> dict[str, float]:
    row = {"train/bits_per_token": 3 + 6 * 0.995**step + 0.2 * (step % 20 == 0), "train/skipped_steps": 0.0}
    return row | ({BITS: 3.5 + 6 * 0.995**step} if step % 100 == 0 else {})


def given(change: Change = lambda _: {}, every: int = 10, until: int = 1000) -> dict[str, tuple[int, str]]:
    advisor, resumed = PriorAdvisor(SETUP), PriorAdvisor(SETUP)
    for step in range(0, until + 1, every):
        row = healthy(step) | change(step) if step else {BITS: 9.0}
        assert resumed.look(step, row) == advisor.look(step, row)
        state = resumed.state_dict()
        resumed = PriorAdvisor(SETUP)
        resumed.load_state_dict(state)
    return {advice.name: (advice.step, advice.text) for advice in advisor.given}


@pytest.mark.parametrize("every", [1, 10, 100])
def test_a_healthy_run_is_given_no_advice(every: int) -> None:
    assert given(every=every) == {}


SICK: dict[str, tuple[Change, int]] = {
    "above_order0": (lambda step: {BITS: 8.1} if step % 100 == 0 else {}, 500),
    "learned_by_heart": (
        lambda step: {
            "train/bits_per_token": 9 - step / 200,
            **({BITS: 5 + abs(step - 400) / 1000} if step % 100 == 0 else {}),
        },
        700,
    ),
    "bits_rising": (lambda step: {"train/bits_per_token": 6.0} if step > 600 else {}, 650),
    "nonfinite_steps": (lambda step: {"train/skipped_steps": float(step >= 70)}, 70),
}


@pytest.mark.parametrize("name", SICK)
def test_what_goes_wrong_is_said(name: str) -> None:
    change, at = SICK[name]
    found = given(change)
    assert list(found) == [name]
    assert found[name][0] == at


def test_every_rule_is_provoked() -> None:
    assert list(SICK) == [rule.__name__ for rule in RULES]


def test_a_run_from_before_there_was_advice_goes_on() -> None:
    advisor = PriorAdvisor(SETUP)
    advisor.load_state_dict({})
    assert advisor.look(10, healthy(10)) == []
