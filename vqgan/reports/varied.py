"""What was varied: the keys whose values differ among runs, one for each choice that somebody made."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from vqgan.config.keys import NOT_VARIED, is_among
from vqgan.reports.differences import Values, differing, shown, typed_values
from vqgan.reports.trial import Trial
from vqgan.text import printable

RECIPE = "experiment"  # the group whose choice sets values all over the config
NOT_TYPED = "default"
LONGEST_NUMBER, LONGEST_VALUE = 7, 28  # characters in a table
TAKEN = (
    "on",
    "tokens",
    "bits/px",
    "run",
    "state",
    "step",
    "steps",
    "last",
    "usage",
    "perplexity",
    "time",
)  # names of other columns


@dataclass(frozen=True)
class Key:
    """A key that was varied."""

    name: str
    values: Sequence[str | None]  # of each run, in their order; None where a run has no such key

    @property
    def numbers(self) -> list[float] | None:
        """The values as numbers; None unless all of them are."""
        found = [_number(value) for value in self.values if value is not None]
        whole = len(found) == len(self.values) and all(value is not None for value in found)
        return [value for value in found if value is not None] if whole else None

    @property
    def is_logarithmic(self) -> bool:
        """Whether the values lie more evenly on a logarithmic axis, as 0.001, 0.01, 0.1 or 256, 512, 1024 do."""
        numbers = self.numbers
        if numbers is None or min(numbers) <= 0:
            return False
        return _widest_gap([math.log(number) for number in numbers]) < _widest_gap(numbers)

    def of(self, chosen: Sequence[int]) -> Key:
        """The same of some of the runs."""
        return Key(self.name, [self.values[n] for n in chosen])


def varied(trials: Sequence[Trial]) -> list[Key]:
    """The keys whose values differ, those of choices first, then in the order of the config.

    The choice of a part, as `model=emavq`, changes many values at once: it is one key, with the names that were typed,
    and the values that follow from it are none. Runs without a config that can be read have no part in this; of their
    values only what was typed is known.
    """
    whole = [n for n, trial in enumerate(trials) if trial.values]
    values = differing([trials[n].values for n in whole])
    values = {key: row for key, row in values.items() if not is_among(key, NOT_VARIED)}
    all_typed = [typed_values([override.lstrip("+~") for override in trial.typed]) for trial in trials]
    typed = differing([all_typed[n] for n in whole])
    keys = []
    for choice in sorted(typed, key=lambda key: key == RECIPE):  # what a part explains, no recipe need explain
        follows = [
            key
            for key, row in values.items()
            if key not in typed and _is_set_by(choice, key) and _follows(row, typed[choice])
        ]
        if follows:
            keys.append(Key(choice, _names(typed[choice], [values.pop(key) for key in follows])))
    keys += [Key(key, row) for key, row in values.items()]
    # What somebody typed is what the comparison is about; the rest follows from choices that were made otherwise.
    chosen = {key for one in all_typed for key in one}
    keys = [Key(key.name, _shown(key.values, trials, whole)) for key in keys]
    keys = sorted(keys, key=lambda key: key.name not in chosen)
    return [*(_completed(key, whole, all_typed) for key in keys), *_of_failed_runs(trials, all_typed, keys)]


def _shown(row: Sequence[str | None], trials: Sequence[Trial], whole: Sequence[int]) -> list[str | None]:
    return [None if value is None else shown(value, trials[n].values) for n, value in zip(whole, row)]


def short_names(keys: Sequence[str]) -> list[str]:
    """The ends of keys, as long as it takes to tell them apart, and from other columns: `lr` for `optimizer.lr`."""
    found = []
    for key in keys:
        parts = key.split(".")
        ends = (".".join(parts[start:]) for start in range(len(parts) - 1, -1, -1))
        others = [other for other in keys if other != key]
        found.append(next((end for end in ends if end not in TAKEN and not _is_end(end, others)), key))
    return found


def _is_end(end: str, keys: Sequence[str]) -> bool:
    return any(f".{key}".endswith(f".{end}") for key in keys)


def short_value(value: str | None) -> str:
    """A value as it fits into a table: numbers in four digits or seven characters, texts in 28 characters."""
    if value is None:
        return "–"
    number = _number(value)
    if number is not None and len(value) > LONGEST_NUMBER:
        return f"{number:.4g}"
    text = printable(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 1]}…"


def _is_set_by(choice: str, key: str) -> bool:
    return choice == RECIPE or key.startswith(f"{choice}.")


def _follows(row: Sequence[str | None], choices: Sequence[str | None]) -> bool:
    """Whether a value is the same wherever the choice is."""
    return len(set(zip(choices, row))) == len(set(choices))


def _names(choices: Sequence[str | None], rows: Sequence[Sequence[str | None]]) -> list[str | None]:
    """The choice of each run; one that was not typed has the name of one that was and that gave the same values."""
    effects = list(zip(*rows))
    known = {effect: choice for choice, effect in zip(choices, effects) if choice is not None}
    return [known.get(effect, NOT_TYPED) for effect in effects]


def _completed(key: Key, known: Sequence[int], typed: Sequence[Values]) -> Key:
    """The key for all runs: its values are those of the known ones, the others' what was typed."""
    values = [one.get(key.name) for one in typed]
    for n, value in zip(known, key.values):
        values[n] = value
    return Key(key.name, values)


def _of_failed_runs(trials: Sequence[Trial], typed: Sequence[Values], known: Sequence[Key]) -> Iterator[Key]:
    """Keys whose values differ only in runs without a config, as a value does that was refused."""
    failed = [n for n, trial in enumerate(trials) if trial.state == "failed" and not trial.values]
    names = {key.name for key in known}
    new = (key for n in failed for key in typed[n] if key not in names and not is_among(key, NOT_VARIED))
    for key in dict.fromkeys(new):
        row = [values.get(key, trial.values.get(key)) for values, trial in zip(typed, trials)]
        if len(set(row)) > 1:
            yield Key(key, row)


def _widest_gap(numbers: Sequence[float]) -> float:
    """Between neighbours, as a part of the whole range."""
    known = sorted(set(numbers))
    whole = known[-1] - known[0]
    return round(max((after - before for before, after in pairwise(known)), default=0.0) / (whole or 1.0), 9)


def _number(value: str) -> float | None:
    try:
        found = float(value)
    except ValueError:
        return None
    return found if math.isfinite(found) else None
