"""What a person reads: numbers with their nouns, tables, warnings, and nothing that must not be told."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NoReturn

# How training is started, by whoever used the command before, and where there is no checkout around this package.
IS_COMMAND = Path(__file__).with_name("conf").is_dir() or Path(sys.argv[0]).name.startswith("vqgan")
PROGRAM = "vqgan train" if IS_COMMAND else "python train.py"


def printable(text: str) -> str:
    """Text as it can be shown in a terminal: what would control it stands as an escape sequence."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def counted(number: int, what: str) -> str:
    """`1 video`, `2 videos`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def table(rows: Sequence[tuple[str, str]]) -> str:
    """Two columns, aligned."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows)


def show_warning(message: Warning | str, *_: object, **__: object) -> None:
    """A warning as a line of its own, without the place in the code that it is from."""
    print(f"\nWarning: {message}", file=sys.stderr, flush=True)


SECRET = re.compile("KEY|TOKEN|SECRET|PASSW|CREDENTIAL", re.IGNORECASE)  # in names of environment variables
PUBLIC, SHORTEST_SECRET = ("HOME", "USER", "PWD", "TMPDIR", "XDG_CACHE_HOME"), 6


def without_secrets(text: str, typed: Iterable[str] = ()) -> str:
    """A message in which no secret stands, nor what came from the environment by what was typed."""
    named = " ".join(typed)
    for name, value in os.environ.items():
        is_secret = SECRET.search(name) or (f"oc.env:{name}" in named and name not in PUBLIC)
        if is_secret and len(value) >= SHORTEST_SECRET:
            text = text.replace(value, f"<environment: {name}>")
    return text


def end_unread() -> NoReturn:
    """End the process as the system ends one whose output nobody reads any more, as in `vqgan compare RUNS | head`."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # where Python writes what is left, at its end
    sys.exit(128 + 13)  # SIGPIPE
