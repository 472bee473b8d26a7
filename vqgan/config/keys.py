"""What each key of a run's config is: one table, and the lists that follow from it.

A key that is not in the table is a plain value, which belongs to the recipe and changes the results. A line for a
section, or for a choice with values of its own as `data.limits`, holds for all that is in it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from enum import Flag, auto
from typing import Any


class Is(Flag):
    """What a key can be; most are several of these."""

    SECTION = auto()  # at the top, with values in it
    FIXED = auto()  # a run cannot change it and still be the same run
    EXPECTED = auto()  # changes with the same run_dir only by mistake, as when the overrides are not typed again
    CHANGEABLE = auto()  # part of something expected, and changed on purpose
    NEUTRAL = auto()  # no weight depends on it
    TELLING = auto()  # says how good a run is, or whether it ends well, although no weight of a step depends on it
    MACHINE = auto()  # where things are, what reads them and where numbers go: of the machine, not of the experiment
    PLACE = auto()  # a path or an address of the user's
    PRIVATE = auto()  # no place, and says something of who trains
    OWN = auto()  # never the same in two runs
    ASIDE = auto()  # may differ between runs without anything being varied
    TOKENIZER_S = auto()  # of tokenizers' runs alone
    PRIOR_S = auto()  # of priors' runs alone, whose config is the one with the section `prior`


KEYS = {
    "name": Is.NEUTRAL | Is.TELLING | Is.PRIVATE | Is.ASIDE,
    "seed": Is.EXPECTED,
    "run_dir": Is.NEUTRAL | Is.MACHINE | Is.PLACE | Is.OWN,
    "objective": Is.NEUTRAL | Is.ASIDE,
    "resume": Is.NEUTRAL | Is.PLACE | Is.OWN,
    "allow_other_data": Is.NEUTRAL | Is.PRIVATE | Is.ASIDE,
    "allow_other_processes": Is.NEUTRAL | Is.PRIVATE | Is.ASIDE,
    "init_from": Is.NEUTRAL | Is.TELLING | Is.PLACE | Is.TOKENIZER_S,  # a run that goes on has weights of its own
    "backbone": Is.SECTION | Is.FIXED | Is.TOKENIZER_S,
    "model": Is.SECTION | Is.FIXED | Is.TOKENIZER_S,
    "prior": Is.SECTION | Is.FIXED | Is.PRIOR_S,
    "discriminator": Is.SECTION | Is.FIXED | Is.TOKENIZER_S,
    "discriminator.weights": Is.NEUTRAL | Is.MACHINE | Is.PLACE,  # of a frozen network; they may lie elsewhere
    "loss": Is.SECTION | Is.TOKENIZER_S,
    "loss.perceptual.weights": Is.MACHINE | Is.PLACE,
    "optimizer": Is.SECTION,
    "discriminator_optimizer": Is.SECTION | Is.TOKENIZER_S,
    "schedule": Is.SECTION,
    "data": Is.SECTION | Is.EXPECTED,
    # Neutral, since what lies there is compared by itself.
    "data.root": Is.NEUTRAL | Is.MACHINE | Is.PLACE,
    "data.val_root": Is.NEUTRAL | Is.MACHINE | Is.PLACE,
    "data.batch_size": Is.CHANGEABLE,
    "data.workers": Is.NEUTRAL | Is.MACHINE,
    "data.validation_clips": Is.NEUTRAL | Is.TELLING,
    "data.decoded_megabytes": Is.NEUTRAL | Is.MACHINE | Is.ASIDE,
    "data.max_bad_fraction": Is.NEUTRAL | Is.TELLING,
    "data.max_bad_files": Is.NEUTRAL | Is.TELLING,
    "data.limits": Is.NEUTRAL | Is.MACHINE,
    "data.index": Is.NEUTRAL | Is.MACHINE | Is.PLACE | Is.ASIDE,
    "data.cache": Is.NEUTRAL | Is.MACHINE | Is.PLACE | Is.ASIDE,
    "data.request_seconds": Is.NEUTRAL | Is.MACHINE | Is.ASIDE,
    "data.request_attempts": Is.NEUTRAL | Is.MACHINE | Is.ASIDE,
    "logger": Is.SECTION | Is.NEUTRAL | Is.MACHINE | Is.PRIVATE | Is.ASIDE,
    "logger.mlflow.uri": Is.NEUTRAL | Is.MACHINE | Is.PLACE | Is.ASIDE,
    "bootstrap": Is.SECTION | Is.NEUTRAL | Is.ASIDE | Is.PRIOR_S,
    "trainer": Is.SECTION,
    "trainer.steps": Is.NEUTRAL | Is.TELLING,
    "trainer.device": Is.MACHINE,
    "trainer.allow_slow_precision": Is.MACHINE,
    "trainer.log_every": Is.NEUTRAL,
    "trainer.evaluate_every": Is.NEUTRAL,
    "trainer.pictures": Is.NEUTRAL,
    "trainer.checkpoint_every": Is.NEUTRAL,
    "trainer.usage_steps": Is.NEUTRAL,
    "trainer.keep": Is.NEUTRAL,
    "trainer.max_skipped_in_a_row": Is.NEUTRAL | Is.TELLING,
    "trainer.max_skipped_fraction": Is.NEUTRAL | Is.TELLING,
}


def keys_that_are(any_of: Is) -> tuple[str, ...]:
    """The keys that are one of these, or more, in the table's order."""
    return tuple(key for key, what in KEYS.items() if what & any_of)


TOP_LEVEL = tuple(key for key in KEYS if "." not in key)
SECTIONS = keys_that_are(Is.SECTION)
FIXED = keys_that_are(Is.FIXED)
EXPECTED = keys_that_are(Is.EXPECTED)
MAY_CHANGE = keys_that_are(Is.NEUTRAL | Is.CHANGEABLE)  # with the same run_dir, though in something expected
NEUTRAL = keys_that_are(Is.NEUTRAL)
NOT_SHOWN = keys_that_are(Is.PLACE | Is.PRIVATE)  # to others
OWN = keys_that_are(Is.OWN)
# Of what is typed there are two that are no keys of a config: `sweep`, which stands for several values, and `hydra`.
OWN_WHEN_TYPED = (*OWN, "sweep")
NOT_VARIED = (*keys_that_are(Is.OWN | Is.ASIDE), "sweep")
FREE_IN_A_SWEEP = (*keys_that_are(Is.MACHINE), "sweep")  # may change from one start of it to the next
NOT_IN_A_NAME = (
    *(key for key in keys_that_are(Is.NEUTRAL | Is.MACHINE) if Is.TELLING not in KEYS[key]), "sweep", "hydra",
)  # fmt: skip


def of_kind(keys: Collection[str], config: Collection[Any]) -> tuple[str, ...]:
    """Those of some keys of the table that runs of a config's kind have: a prior's or a tokenizer's."""
    others = Is.TOKENIZER_S if "prior" in config else Is.PRIOR_S
    return tuple(key for key in keys if others not in KEYS[key])


def is_among(key: str, keys: Collection[str]) -> bool:
    """Whether a key is one of some, or in one of them: `logger.wandb.tags`, and `hydra/launcher`, a group's choice."""
    return any(key == one or key.startswith((f"{one}.", f"{one}/")) for one in keys)


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by their full key as nested sections: the inverse of `by_full_key`."""
    tree: dict[str, Any] = {}
    for key, value in values.items():
        *sections, name = key.split(".")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
        node[name] = value
    return tree


def by_full_key(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested sections by their full key, as `model.quantizer.decay`."""
    for name, value in values.items():
        key = f"{path}{name}"
        if isinstance(value, Mapping):
            yield from by_full_key(value, f"{key}.")
        else:
            yield key, value
