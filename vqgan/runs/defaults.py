"""What an older version's folder goes on with, where its command leaves it to the defaults."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from vqgan.config.moved import DEFAULTS
from vqgan.files.reading import read_object
from vqgan.runs.saved import typed_for
from vqgan.runs.sweep import SWEEP, read_definition

OLD = "0.1."  # the versions that chose them


def defaults_then(folder: Path, keys: Iterable[str]) -> list[str]:
    """The overrides that choose what was the default when a run or a sweep was begun, as far as today's is another.

    Args:
        folder: of the run or the sweep; nothing is needed for one that is not there.
        keys: typed this time.
    """
    if (folder / SWEEP).exists():
        before = read_definition(folder)
        begun = before.version is None
        # What this function chose at the start before is not what was typed.
        named = {*before.swept, *(key for key, value in before.fixed.items() if value != DEFAULTS.get(key))}
    else:
        begun = str(read_object(folder, "environment.json").get("vqgan", "")).startswith(OLD)
        named = {override.partition("=")[0] for override in typed_for(folder)}
    if not begun:
        return []
    named |= {*keys}
    if "experiment" in named:  # which names all its parts
        return []
    return [f"{key}={value}" for key, value in DEFAULTS.items() if not {key, key.partition(".")[0]} & named]
