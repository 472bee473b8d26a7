"""Configs of other people."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.faults.hostile.attempts import ADDRESS, CHECKPOINT, CONFIG, Attempt
from tests.faults.hostile.config_texts import (
    ALIASES,
    COPY,
    EVAL,
    HIDDEN,
    LISTS_OF_REFERENCES,
    OPEN,
    REFERENCES,
    RUN,
    SYSTEM,
    Texts,
    text_of,
    whole,
)
from tests.faults.hostile.honest import MIB, a_run, config_with, grown, honest_config, small


def value(path: str, value: object, more: str = "") -> Callable[[], str]:
    """The honest run's config in which one value differs."""
    return lambda: config_with(path, value) + more


def appended(text: str) -> Callable[[], str]:
    return lambda: honest_config() + text


# Of a run that somebody else gives: it cannot be told apart from a damaged one.
DAMAGED: Texts = {
    "a python object": appended("x: !!python/object/apply:os.system ['touch MARKER']"),
    "a new python object": appended("x: !!python/object/new:pathlib.Path ['MARKER']"),
    "a python name": appended("x: !!python/name:os.system ''"),
    "a billion laughs": appended(ALIASES),
    "laughs by references": value("backbone.channels", "${l9}", REFERENCES),
    "laughs by lists of references": value("backbone.channel_multipliers", "${l9}", LISTS_OF_REFERENCES),
    "a reference to itself": value("backbone.channels", "${backbone.channels}"),
    "references to each other": value("backbone.channels", "${a}", "a: ${b}\nb: ${a}\n"),
    "a hundred megabytes": appended("# HUGE"),
    "a megabyte of brackets": whole("[" * (MIB - 1)),
    "a page of brackets": whole("[" * 2**15),
    "a page of braces": appended("x: " + "{" * 2**15),
    "brackets that a comment seems to close": whole(HIDDEN),
    "a page of questions": whole("? " * 2**15),
    "half a megabyte of numbers": appended("x: [" + "1," * 2**18 + "1]"),
    "a number of 5000 digits": appended("x: " + "9" * 5000),
    "a time that is none": appended("x: !!timestamp 2001-99-99"),
    "a time that is text": appended("x: !!timestamp foo"),
    "a number that is text": appended("x: !!int foo"),
    "a truth that is text": appended("x: !!bool foo"),
    "text for the model": value("model", "os.system"),
    "a list for the model": value("model", [1]),
    "nothing for the quantizer": value("model.quantizer", None),
    "text for the quantizer": value("model.quantizer", "os.system"),
    "text for the backbone": value("backbone", "os.system"),
    "nothing for the backbone": value("backbone", None),
    "a backbone of nothing": value("backbone", {}),
    "a quantizer of nothing": value("model.quantizer", {}),
    "a number for a class": value("model.quantizer._target_", 7),
    "a quantizer os.system": value("model.quantizer", SYSTEM),
    "a quantizer shutil.copy": value("model.quantizer", COPY),
    "a quantizer subprocess.run": value("model.quantizer", RUN),
    "a size that is a call": value("backbone.channels", SYSTEM),
    "sizes that are calls": value("backbone.channel_multipliers", [COPY]),
    "a list of arguments": value("model.quantizer._args_", ["touch MARKER"]),
    "a token for a size": value("backbone.channels", "${oc.env:HOSTILE_TOKEN}"),
    "a token for a class": value("model.quantizer._target_", "vqgan.${oc.env:HOSTILE_TOKEN}"),
    "an address for a class": value("model.quantizer._target_", "vqgan.${oc.env:DATABASE_URL}"),
    "an address for a weight": value("model.quantizer.commitment_weight", "${oc.env:DATABASE_URL}"),
    "an address as a value that is not known": value("model.quantizer.x", "${oc.env:DATABASE_URL}"),
    "an address decoded": value("backbone.channels", "${oc.decode:${oc.env:DATABASE_URL}}"),
    "an address by a detour": value("backbone.channels", "${x}", "x: ${oc.env:DATABASE_URL}"),
    "a resolver of the program's": value("backbone.channels", EVAL),
    "a resolver in a resolver": value("backbone.channels", f"${{oc.select:'{EVAL}',4}}"),
    "as many blocks as there are numbers": value("backbone.residual_blocks", 10**9),
    "as many channels as there are numbers": value("backbone.channels", 2**62),
    "as many codes as there are numbers": value("model.quantizer.codebook_size", 2**40),
}
# Where nothing looks that only wants the sizes.
ELSEWHERE: Texts = {
    "an optimizer os.system": value("optimizer", SYSTEM),
    "a loss shutil.copy": value("loss", COPY),
    "data subprocess.run": value("data", RUN),
    "a logger open": value("logger.x", OPEN),
    "a schedule torch.hub.load": value("schedule", {"_target_": "torch.hub.load", "repo_or_dir": "MARKER"}),
    "a call among arguments": value("discriminator", {"_target_": "torch.nn.Identity", "args": [COPY], "kwargs": {}}),
    "a call in a section": value("discriminator", {"_target_": "torch.nn.Identity", "args": {"x": COPY}, "kwargs": {}}),
    "a callback of Hydra's": lambda: honest_config() + yaml.safe_dump({"hydra": {"callbacks": {"x": COPY}}}),
    "a name that is an address": value("name", "${oc.env:DATABASE_URL}"),
    "a resolver for a name": value("name", EVAL),
}


@pytest.mark.parametrize("name", DAMAGED)
@pytest.mark.slow
def test_a_hostile_config_in_a_run_of_others_is_refused(
    name: str, attempted: Attempt, world: Path, marker: Path
) -> None:
    run = a_run(world / "run", text_of(DAMAGED, name, marker))
    for entry in (("load", run), ("command", "export", run, "--out", world / "out")):
        ended = attempted(*entry)
        assert ended.code in (CONFIG, CHECKPOINT), (entry, ended)
        assert ended.paragraph


@pytest.mark.parametrize("name", ELSEWHERE)
@pytest.mark.slow
def test_what_is_no_size_in_a_config_of_others_is_not_looked_at(
    name: str, attempted: Attempt, world: Path, marker: Path
) -> None:
    run = a_run(world / "run", text_of(ELSEWHERE, name, marker))
    assert attempted("load", run).code == 0
    ended = attempted("command", "export", run, "--out", world / "out", writes=True)
    assert ended.code == 0
    for file in (world / "out").iterdir():
        assert ADDRESS.encode() not in file.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("name", [
    "a quantizer os.system", "a python object", "a billion laughs", "laughs by references", "a page of brackets",
    "an address for a class", "a resolver of the program's",
])  # fmt: skip
def test_a_hostile_config_does_nothing_when_training_starts_from_its_run(
    name: str, attempted: Attempt, world: Path, marker: Path
) -> None:
    run = a_run(world / "other", text_of(DAMAGED, name, marker))
    ended = attempted("command", "train", f"init_from={run}", f"run_dir={world}/new", *small(), writes=True)
    assert ended.code in (0, CONFIG, CHECKPOINT), ended


SPOILT = [
    *(name for name in ELSEWHERE if name != "a name that is an address"), "a quantizer os.system", "a python object",
    "a quantizer shutil.copy", "a quantizer subprocess.run", "a billion laughs", "a size that is a call",
    "sizes that are calls", "a list of arguments", "a page of brackets", "a token for a size", "a token for a class",
    "text for the model", "a hundred megabytes", "a number of 5000 digits", "a time that is text",
]  # fmt: skip


@pytest.mark.parametrize("name", SPOILT)
@pytest.mark.slow
def test_a_run_goes_on_by_a_config_that_builds_allowed_classes_only(
    name: str, attempted: Attempt, world: Path, marker: Path
) -> None:
    text = text_of({**DAMAGED, **ELSEWHERE}, name, marker)
    run = a_run(world / "run", text)
    ended = attempted("command", "train", f"resume={run}", writes=True)
    assert ended.code == CONFIG, ended
    assert ended.paragraph
    assert (run / "config.yaml").read_text() == grown(text)


TYPED = {
    "a python object": "!!python/object/apply:os.system ['touch MARKER']",
    "a section": "a: 1",
    "no yaml": "[",
    "text": "x",
    "a page of brackets": "[" * 2**15,
    "brackets that a comment seems to close": HIDDEN,
    "aliases": "\n".join(["- &l0 [x, x]", *(f"- &l{n} [*l{n - 1}, *l{n - 1}]" for n in range(1, 40))]),
    "a section in a list": "- [a, {b: c}]",
    "a hundred megabytes": "# HUGE",
}


@pytest.mark.parametrize("name", TYPED)
@pytest.mark.slow
def test_what_was_typed_for_a_run_is_read_as_text(name: str, attempted: Attempt, world: Path, marker: Path) -> None:
    run = a_run(world / "run")
    (run / "overrides.yaml").write_text(grown(TYPED[name].replace("MARKER", str(marker))))
    ended = attempted("command", "train", f"resume={run}", "trainer.steps=1", writes=True)
    assert ended.code in (CONFIG, CHECKPOINT), ended
    assert ended.paragraph
