"""Each rule on histories made by hand: what must be said, what must not, and where the border is."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import pairwise
from math import log
from typing import Any

import pytest

from vqgan.loggers.logger import Advice
from vqgan.training.advice import RULES, Advisor
from vqgan.training.history import MOST_ROWS, History, Setup

SETUP = Setup(
    on_cpu=True, codebook_size=1024, latents_per_step=2048, usage_steps=100,
    quantizer={"model.quantizer.codebook_size": 1024}, chance=1.0, discriminator_start=400,
    discriminator_every=3, discriminator_weight=0.1, largest_weight=1e3, lecam_weight=None,
)  # fmt: skip
Change = Callable[[int], dict[str, float]]


def healthy(step: int) -> dict[str, float]:
    """What a run that goes well logs at a step; like the demo's, its discriminator takes a while to learn."""
    row = {
        "train/pixel": 0.1 + 0.3 * 0.99**step, "train/total": 0.2, "train/skipped_steps": 0.0, "codebook/usage": 0.9,
        "codebook/perplexity": 300.0, "speed/data_wait": 0.02, "speed/frames_per_second": 100.0,
    }  # fmt: skip
    if step > SETUP.discriminator_start:
        loss = 1.0 if step < 1000 else 0.6
        row |= {
            "train/adversarial": 0.1, "adversarial/weight": 0.3, "train/discriminator": loss,
            "adversarial/logits_real": 1 - loss, "adversarial/logits_fake": loss - 1,
        }  # fmt: skip
    return row | ({"validation/psnr": 25 - 15 * 0.99**step} if step % 100 == 0 else {})


def rows(until: int, every: int = 10, change: Change = lambda _: {}) -> Iterable[tuple[int, dict[str, float]]]:
    yield 0, {"validation/psnr": 9.0}  # the evaluation before the first step
    for step in range(every, until + 1, every):
        yield step, healthy(step) | change(step)


def given(until: int, every: int = 10, change: Change = lambda _: {}, **setup: Any) -> dict[str, Advice]:
    advisor = Advisor(replace(SETUP, **setup))
    said = [advice for step, row in rows(until, every, change) for advice in advisor.look(step, row)]
    assert said == advisor.given
    assert len({advice.name for advice in said}) == len(said), "each once"
    return {advice.name: advice for advice in said}


@pytest.mark.parametrize("every", [1, 7, 10, 50, 400])
def test_a_healthy_run_is_given_no_advice(every: int) -> None:
    assert given(4000, every) == {}


SICK: dict[str, tuple[Change, int, dict[str, Any]]] = {  # by rule: what is logged, until when, in which setup
    "codebook_collapse": (lambda _: {"codebook/usage": 0.03, "codebook/perplexity": 9.0}, 300, {}),
    "entropy_falling": (lambda step: {"codebook/perplexity": 300.0 if step <= 400 else 140.0}, 600, {}),
    "adversarial_overwhelming": (lambda step: {"train/pixel": 0.5 if step > 400 else 0.2}, 600, {}),
    "discriminator_stuck": (lambda step: {"train/discriminator": 1.01} if step > 400 else {}, 1910, {}),
    "discriminator_winning": (lambda step: {"train/discriminator": 0.02} if step > 400 else {}, 1010, {}),
    "lecam_idle": (lambda step: {"adversarial/lecam": 0.5} if step > 400 else {}, 1010, {"lecam_weight": 0.001}),
    "adaptive_weight_clamped": (lambda step: {"adversarial/weight": 1e3} if step > 400 else {}, 510, {}),
    "data_bound": (lambda _: {"speed/data_wait": 0.6}, 200, {}),
    "validation_diverging": (
        lambda step: (
            {"train/pixel": 0.4 * 0.998**step, "validation/psnr": 20 - max(0, step - 500) / 100}
            if step % 100 == 0
            else {"train/pixel": 0.4 * 0.998**step}
        ),
        800,
        {},
    ),
    "nonfinite_steps": (lambda step: {"train/skipped_steps": float(step >= 70)}, 70, {}),
}


@pytest.mark.parametrize("name", SICK)
def test_each_trouble_is_named_once_it_has_lasted(name: str) -> None:
    change, first, setup = SICK[name]
    said = given(first, change=change, **setup)
    assert list(said) == [name]
    assert said[name].step == first, "and no earlier"
    assert given(4000, change=change, **setup)[name] == said[name]


def test_each_rule_has_such_a_history() -> None:
    assert list(SICK) == [rule.__name__ for rule in RULES]


@pytest.mark.parametrize("name", SICK)
def test_advice_is_one_sentence_that_says_what_to_try(name: str) -> None:
    change, first, setup = SICK[name]
    text = given(first, change=change, **setup)[name].text
    assert "\n" not in text
    assert text.endswith(".")
    assert len(re.findall(r"[.!?] ", text)) == 0
    assert re.search(r"\d", text), "the numbers seen"
    assert re.search(r"\btry\b", text)
    assert re.search(r"\b(model|loss|trainer|optimizer|discriminator_optimizer|data)[.=]\w+", text), "a yaml key"
    assert "/" not in re.sub(r"train/\w+", "", text), "no path"


@pytest.mark.parametrize(
    ("name", "change", "until"),
    [
        ("at the threshold of usage", lambda _: {"codebook/usage": 0.1, "codebook/perplexity": 9.0}, 2000),
        ("usage that grows", lambda s: {"codebook/usage": 0.01 * 1.002**s, "codebook/perplexity": 9.0}, 1000),
        ("perplexity that grows", lambda s: {"codebook/usage": 0.05, "codebook/perplexity": 4 * 1.002**s}, 1000),
        ("low usage for a while", lambda s: {"codebook/usage": 0.03 if s < 290 else 0.4}, 2000),
        ("perplexity that falls by less", lambda s: {"codebook/perplexity": 300.0 if s <= 400 else 160.0}, 2000),
        (
            "perplexity that falls for a while",
            lambda s: {"codebook/perplexity": 90.0 if 400 < s < 590 else 300.0},
            2000,
        ),
        ("perplexity that falls at the start", lambda s: {"codebook/perplexity": 900.0 if s <= 100 else 50.0}, 2000),
        ("a dip that recovers", lambda s: {"train/pixel": 0.3 if 400 < s < 550 else 0.2}, 2000),
        ("worse by less", lambda s: {"train/pixel": 0.24 if s > 400 else 0.2}, 2000),
        ("chance for a while", lambda s: {"train/discriminator": 1.0} if 400 < s < 1900 else {}, 3000),
        ("a little better than chance", lambda s: {"train/discriminator": 0.97} if s > 400 else {}, 3000),
        ("winning for a while", lambda s: {"train/discriminator": 0.02} if 400 < s < 700 else {}, 3000),
        ("nearly winning", lambda s: {"train/discriminator": 0.11} if s > 400 else {}, 3000),
        ("at the clamp for a while", lambda s: {"adversarial/weight": 1e3} if 400 < s < 490 else {}, 3000),
        ("below the clamp", lambda s: {"adversarial/weight": 980.0} if s > 400 else {}, 3000),
        ("waiting at the start", lambda s: {"speed/data_wait": 0.9 if s <= 100 else 0.02}, 2000),
        ("waiting now and then", lambda s: {"speed/data_wait": 0.9 if s % 30 == 0 else 0.02}, 2000),
        ("reading a little", lambda _: {"speed/reading": 0.24}, 2000),
        ("waiting a little", lambda _: {"speed/data_wait": 0.24}, 2000),
        ("validation within half a decibel", lambda s: {"train/pixel": 0.4 * 0.998**s} | validation(s, 0.4), 2000),
        ("both worse", lambda s: {"train/pixel": 0.2} | validation(s, 2.0), 2000),
    ],
)
def test_what_passes_or_is_slight_is_not_worth_a_word(name: str, change: Change, until: int) -> None:
    assert given(until, change=change) == {}


def test_reading_that_takes_the_cores_of_networks_on_a_cpu_is_named() -> None:
    def change(_: int) -> dict[str, float]:
        return {"speed/data_wait": 0.001, "speed/reading": 0.45}

    assert given(2000, change=change)["data_bound"].text.startswith("Reading takes 45% of the cores")
    assert given(2000, change=change, on_cpu=False) == {}, "a GPU does not need them"


def validation(step: int, drop: float) -> dict[str, float]:
    return {"validation/psnr": 20 - (drop if step > 500 else 0)} if step % 100 == 0 else {}


def test_a_codebook_that_cannot_be_filled_is_not_collapsing() -> None:
    def change(_: int) -> dict[str, float]:
        return {"codebook/usage": 0.05, "codebook/perplexity": 15.0}

    assert given(400, change=change, latents_per_step=4) == {}, "of 1024 codes 400 can be chosen, and 51 are"
    assert given(400, change=change, latents_per_step=7) == {}, "700 even choices touch 507 codes, and not 700"
    assert "codebook_collapse" in given(400, change=change, latents_per_step=8)


@pytest.mark.parametrize(
    ("has", "said", "unsaid"),
    [
        ({"codebook_size": 1024}, ("model=emavq", "a smaller model.quantizer.codebook_size"), "entropy_weight"),
        ({"codebook_size": 1024, "revive_after": 100}, ("model.quantizer.revive_after smaller than 100",), "emavq"),
        ({"codebook_size": 1024, "revive_after": None}, ("model.quantizer.revive_after 100,",), "emavq"),
        ({"base.revive_after": 50}, ("model.quantizer.base.revive_after smaller than 50",), "codebook_size"),
        (
            {"entropy_weight": 0.02, "diversity_weight": 0.5},
            ("model.quantizer.diversity_weight than 0.5",),
            "a higher model.quantizer.entropy_weight",
        ),
        ({"bits": 10, "entropy_weight": 0.02}, ("model.quantizer.entropy_weight than 0.02",), "revive_after"),
        ({"levels": [8, 5, 5, 5]}, ("try a lower optimizer.lr.",), "revive_after"),
    ],
)
def test_a_collapse_is_answered_with_keys_that_the_quantizer_has(
    has: dict[str, Any], said: tuple[str, ...], unsaid: str
) -> None:
    quantizer = {f"model.quantizer.{key}": value for key, value in has.items()}
    text = given(300, change=SICK["codebook_collapse"][0], quantizer=quantizer)["codebook_collapse"].text
    assert all(part in text for part in (*said, "optimizer.lr"))
    assert unsaid not in text


@pytest.mark.parametrize(("weight", "value"), [(0.001, 7.0), (0.05, 0.2), (None, 0.0)])
def test_a_lecam_that_acts_a_little_is_not_named(weight: float | None, value: float) -> None:
    def change(step: int) -> dict[str, float]:
        return {"adversarial/lecam": value} if step > 400 else {}

    assert given(4000, change=change, lecam_weight=weight) == {}


@pytest.mark.parametrize(("loss", "name"), [(log(2), "discriminator_stuck"), (0.06, "discriminator_winning")])
def test_the_vanilla_loss_has_its_own_levels(loss: float, name: str) -> None:
    def change(step: int) -> dict[str, float]:
        return {"train/discriminator": loss} if step > 400 else {}

    assert list(given(2000, change=change, chance=math.log(2))) == [name]


def test_patience_is_counted_in_steps_of_the_discriminator() -> None:
    said = given(4000, change=SICK["discriminator_stuck"][0], discriminator_every=1)
    assert said["discriminator_stuck"].step == 910


def test_without_an_adversary_nothing_is_said_of_it() -> None:
    advisor = Advisor(SETUP)
    for step, row in rows(2000, change=lambda step: {"train/pixel": 0.5 if step > 400 else 0.2}):
        alone = {k: v for k, v in row.items() if "adversarial" not in k and "discriminator" not in k}
        assert advisor.look(step, alone) == []


@pytest.mark.parametrize(("every", "span"), [(1, 1500), (10, 1500), (50, 6000), (1, 6000)])
def test_the_history_is_bounded_and_reaches_back_far_enough(every: int, span: int) -> None:
    history = History(span)
    for step, row in rows(20_000, every):
        history.add(step, row)
        if history.rows:
            assert history.rows[-1]["step"] == step, "the newest is always there"
        assert len(history.rows) <= 1.1 * MOST_ROWS
        assert len(history.evaluations) <= 4
    assert history.rows[0]["step"] <= 20_000 - span
    assert history.last(span, "train/pixel")
    gaps = [b["step"] - a["step"] for a, b in pairwise(history.rows)]
    assert max(gaps) <= max(every, 2 * span / MOST_ROWS)
    assert "train/total" not in history.rows[0]


@pytest.mark.parametrize("cut", [10, 300, 500, 520, 690])
@pytest.mark.parametrize("name", SICK)
def test_a_resumed_run_is_given_the_rest(name: str, cut: int) -> None:
    change, first, setup = SICK[name]
    whole, parts = Advisor(replace(SETUP, **setup)), Advisor(replace(SETUP, **setup))
    for step, row in rows(first + 50, change=change):
        expected = whole.look(step, row)
        assert parts.look(step, row) == expected
        if step == cut:
            state = json.loads(json.dumps(parts.state_dict()))  # it is plain data
            parts = Advisor(replace(SETUP, **setup))
            parts.load_state_dict(state)
    assert parts.given == whole.given
    assert parts.state_dict() == whole.state_dict()


def test_a_state_that_was_saved_does_not_change() -> None:
    advisor = Advisor(SETUP)
    advisor.look(10, healthy(10))
    state = advisor.state_dict()
    before = json.dumps(state)
    advisor.look(20, healthy(20) | {"train/skipped_steps": 1.0})
    assert json.dumps(state) == before


def test_what_is_no_advice_of_ours_is_not_shown() -> None:
    advisor = Advisor(SETUP)
    state = advisor.state_dict()
    state["given"] = [{"step": 1, "name": "\x1b[2J", "text": ""}, {"step": 1, "name": "data_bound", "text": "a"}]
    advisor.load_state_dict(state)
    assert [advice.name for advice in advisor.given] == ["data_bound"]
