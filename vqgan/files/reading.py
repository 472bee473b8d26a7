"""Reading files that strangers may have written: the one way in, always within a limit.

`read_whole`, `read_json`, `read_lines` and `read_yaml` refuse what is damaged. `read_text`, `read_object` and
`read_rows` are for what is shown of a run: they take what there is, and follow no link that leads out of its folder.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vqgan.errors import ConfigError

LARGEST_CONFIG = 2**16  # bytes
DEEPEST_CONFIG = 50  # lists and sections in each other
LONGEST_REASON = 500  # characters
LONGEST_LINE = 2**20  # bytes; a longer row is left out
LARGEST_FILE = 2**28  # bytes of rows; of a larger file the newest ones are read
LARGEST_TEXT = 2**18  # bytes of a text that is shown


def size_of(file: Path) -> int:
    """The bytes of a regular file: a pipe would block whoever opens it, and a device has no end.

    Raises:
        OSError: it is not there.
        ValueError: it is something else.
    """
    state = file.stat()
    if not stat.S_ISREG(state.st_mode):
        raise ValueError(f"{file.name} is no regular file")
    return state.st_size


def read_whole(file: Path, largest: int) -> str:
    """A text of at most so many bytes.

    Raises:
        OSError: it cannot be read.
        ValueError: it is larger, no UTF-8, or no regular file.
    """
    size = size_of(file)
    if size > largest:
        raise ValueError(f"{file.name} has {size:,} bytes, more than {largest:,}")
    with file.open(encoding="utf-8") as content:
        return content.read(largest)  # whoever writes to it meanwhile


def read_json(file: Path, largest: int) -> dict[str, Any]:
    """A JSON file of at most so many bytes, which holds an object.

    Raises:
        OSError: it cannot be read.
        ValueError: it is something else.
    """
    content = load_json(read_whole(file, largest))
    if not isinstance(content, dict):
        raise ValueError(f"{file.name} holds no JSON object, but a {type(content).__name__}")
    return content


def read_lines(file: Path, longest: int) -> Iterator[bytes]:
    """The lines of a file with their ends, each of at most so many bytes; the last may be one that is being written.

    Raises:
        OSError: it cannot be read.
        ValueError: a line is longer, or it is no regular file.
    """
    size_of(file)
    with file.open("rb") as lines:
        while line := lines.readline(longest + 1):
            if len(line) > longest:
                raise ValueError(f"it has a line of more than {longest:,} bytes")
            yield line
            if not line.endswith(b"\n"):  # or its rest, written meanwhile, would seem to be another one
                return


def read_yaml(file: Path) -> DictConfig | ListConfig:
    """A yaml file as data: its interpolations unresolved, nothing in it built, and no larger than a config can be.

    Raises:
        ConfigError: it is not that.
    """
    try:
        text, depth = read_whole(file, LARGEST_CONFIG), 0
        for event in yaml.parse(text):
            if isinstance(event, yaml.AliasEvent):  # a few lines of them fill a memory
                raise ConfigError(f"{file} has aliases (*name), which are not read.")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST_CONFIG:  # for a page of brackets in each other the parser would take minutes
                raise ConfigError(f"{file} is no config: it is nested in more than {DEEPEST_CONFIG} levels.")
        return OmegaConf.create(text)
    except (OSError, yaml.YAMLError, ValueError, AttributeError, OmegaConfBaseException, RecursionError) as error:
        raise ConfigError(f"{file} is damaged: {' '.join(str(error).split())[:LONGEST_REASON]}.") from None


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


def load_json(text: str | bytes) -> Any:
    """What JSON says.

    Raises:
        ValueError: it is none, or is nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def parse(line: bytes) -> Any:
    """The JSON of a line; None for a line that is cut or no JSON."""
    try:
        return load_json(line)
    except ValueError:
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
