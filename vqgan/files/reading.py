"""Reading files that strangers may have written, within limits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vqgan.errors import ConfigError

LARGEST_CONFIG = 2**16  # bytes
LONGEST_REASON = 500  # characters
MOST_BRACKETS = 500


def read_yaml(file: Path) -> DictConfig | ListConfig:
    """A yaml file as data: its interpolations unresolved, nothing in it built, and no larger than a config can be.

    Raises:
        ConfigError: it is not that.
    """
    try:
        if not file.is_file() or file.stat().st_size > LARGEST_CONFIG:
            raise ConfigError(f"{file} is no config: it is no file, or larger than {LARGEST_CONFIG} bytes.")
        text = file.read_text(encoding="utf-8")
        if (
            text.count("[") + text.count("{") > MOST_BRACKETS
        ):  # nested, the parser would take minutes for a page of them
            raise ConfigError(f"{file} is no config: it has more than {MOST_BRACKETS} brackets.")
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):  # a few lines of them fill a memory
            raise ConfigError(f"{file} has aliases (*name), which are not read.")
        return OmegaConf.create(text)
    except (OSError, yaml.YAMLError, ValueError, AttributeError, OmegaConfBaseException, RecursionError) as error:
        raise ConfigError(f"{file} is damaged: {' '.join(str(error).split())[:LONGEST_REASON]}.") from None


LONGEST_LINE = 2**20  # bytes; a longer row is left out
LARGEST_FILE = 2**28  # bytes of rows; of a larger file the newest ones are read
LARGEST_TEXT = 2**18  # bytes of a text that is shown


def is_inside(folder: Path, file: Path) -> bool:
    """Whether a file is a regular one of this folder: a link in it could lead to what is nobody else's business."""
    try:
        return file.is_file() and file.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # a circle of links
        return False


def read_rows(folder: Path, name: str) -> Iterator[dict[str, Any]]:
    """The rows of a file with one JSON object per line; none if it is not there, and without those that are damaged."""
    file = folder / name
    if not is_inside(folder, file):
        return
    try:
        with file.open("rb") as lines:
            if (size := file.stat().st_size) > LARGEST_FILE:
                lines.seek(size - LARGEST_FILE)
                lines.readline(LONGEST_LINE)  # the rest of the row that this is in the middle of
            while line := lines.readline(LONGEST_LINE):
                row = parse(line)
                if isinstance(row, dict):
                    yield row
    except OSError:
        return


def read_object(folder: Path, name: str) -> dict[str, Any]:
    """A JSON file that holds an object; an empty one if it is not there or damaged."""
    content = parse(read_text(folder, name).encode("utf-8", "surrogateescape"))
    return content if isinstance(content, dict) else {}


def read_text(folder: Path, name: str) -> str:
    """The beginning of a text; empty if it is not there."""
    file = folder / name
    if not is_inside(folder, file):
        return ""
    try:
        with file.open("rb") as content:
            return content.read(LARGEST_TEXT).decode("utf-8", "replace")
    except OSError:
        return ""


def parse(line: bytes) -> Any:
    """The JSON of a line; None for a line that is cut or no JSON."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def number(value: object) -> float | None:
    """A value as a finite number; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if abs(found) < float("inf") else None  # NaN is not less either
