"""A folder that a command goes on with: what it says of itself must be what is asked for."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from vqgan.errors import ConfigError
from vqgan.files.reading import read_json
from vqgan.files.writing import replace_text

LARGEST_DESCRIPTION = 2**28  # bytes: that of a folder of shards names all of them


def go_on_with(file: Path, description: Mapping[str, Any], same: Collection[str], command: str) -> None:
    """Write down what is made in a folder, or find that what is there already was made in the same way.

    Args:
        file: that says it.
        description: what it says.
        same: the keys that may not change.
        command: that makes it.

    Raises:
        ConfigError: it was made in another way, or by something else.
        StorageError: the file cannot be written.
    """
    if not file.exists():
        replace_text(file, json.dumps(description, indent=1) + "\n")
    try:
        before = read_json(file, LARGEST_DESCRIPTION)
        if missing := [key for key in same if key not in before]:
            raise ValueError(f"it does not say {', '.join(missing)}")
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{file} is damaged, or is not one that vqgan {command} writes ({error}). Choose another --out."
        ) from None
    difference = first_difference({key: before[key] for key in same}, {key: description[key] for key in same})
    if difference is not None:
        key, old, new = difference
        raise ConfigError(
            f"{file.parent} holds what vqgan {command} wrote in another way: {key.rpartition('.')[2]} was {old} and "
            f"is {new}. Choose another --out."
        )


def first_difference(before: Any, now: Any, key: str = "") -> tuple[str, Any, Any] | None:
    """The full key of the first of nested values that differs, as it was and as it is; None if all are the same."""
    if not (isinstance(before, Mapping) and isinstance(now, Mapping)):
        return None if before == now else (key, before, now)
    parts = (
        first_difference(before.get(name), now.get(name), f"{key}.{name}" if key else str(name))
        for name in {**before, **now}
    )
    return next((found for found in parts if found is not None), None)
