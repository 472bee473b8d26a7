"""What differs between runs: what was typed, and the values that came of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from vqgan.config.keys import OWN, by_full_key
from vqgan.config.moved import as_today
from vqgan.errors import ConfigError
from vqgan.files.reading import is_inside, read_yaml
from vqgan.runs.saved import typed_for

Values = dict[str, str]
REFERENCE = re.compile(r"\$\{([\w.]+)\}")
ENVIRONMENT = re.compile(r"\$\{oc\.env:(\w+)(?:,[^{}]*)?\}")
MOST_REFERENCES = 10  # one after the other; they could lead in a circle


def config_values(folder: Path) -> Values:
    """The values of a run's config by their full key, interpolations as they were written; empty if it is damaged."""
    try:
        config = read_yaml(folder / "config.yaml") if is_inside(folder, folder / "config.yaml") else None
    except ConfigError:
        return {}
    values = OmegaConf.to_container(config, resolve=False) if isinstance(config, DictConfig) else {}
    assert isinstance(values, dict)
    found = by_full_key({str(key): value for key, value in as_today(values).items()})
    return {key: "null" if value is None else str(value) for key, value in found}


def shown(value: str, values: Values) -> str:
    """A value as a person would read it: one that refers to another is that one, the environment is named."""
    for _ in range(MOST_REFERENCES):
        if (match := REFERENCE.fullmatch(value)) is None:
            break
        value = values.get(match[1], value)
    return ENVIRONMENT.sub(r"$\1", value)


def overrides(folder: Path) -> list[str]:
    """What was typed for a run, in its order; empty if the file is damaged."""
    try:
        return typed_for(folder) if is_inside(folder, folder / "overrides.yaml") else []
    except ConfigError:
        return []


def typed_values(typed: Sequence[str]) -> Values:
    """What was typed as values by key; of a key that was typed twice, as in a resumed run, the last one."""
    return {key: value for key, _, value in (override.partition("=") for override in typed)}


def differing(runs: Sequence[Values]) -> dict[str, list[str | None]]:
    """The keys whose values are not the same in all runs, with the value in each; None where a run has no such key."""
    keys = dict.fromkeys(key for values in runs for key in values)
    found = {key: [values.get(key) for values in runs] for key in keys if key not in OWN}
    return {key: values for key, values in found.items() if len(set(values)) > 1}
