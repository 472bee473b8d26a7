"""Texts of configs, each with the word MARKER in place of the file that an attack makes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def laughs(first: str, opening: str, closing: str, name: str) -> str:
    """Nine times nine times … of something, in ten lines."""
    rows = [f"l{n}: {name.format(n)}{opening}" + closing.format(n - 1) * 9 for n in range(1, 10)]
    return "\n".join([first, *(row + ("]" if opening == "[" else "") for row in rows)]) + "\n"


ALIASES = laughs("l0: &l0 [x]", "[", "*l{},", "&l{} ")
REFERENCES = laughs("l0: xxxxxxxxx", "", "${{l{}}}", "")
LISTS_OF_REFERENCES = laughs("l0: [1]", "[", "'${{l{}}}',", "")

HIDDEN = "# " + "]" * 2**15 + "\n" + "[" * 2**14

Texts = dict[str, Callable[[], str]]  # with the word MARKER in place of the file that an attack makes


def whole(text: str) -> Callable[[], str]:
    return lambda: text


SYSTEM = {"_target_": "os.system", "command": "touch MARKER"}
COPY = {"_target_": "shutil.copy", "src": __file__, "dst": "MARKER"}
RUN = {"_target_": "subprocess.run", "args": ["touch", "MARKER"]}
OPEN = {"_target_": "builtins.open", "file": "MARKER", "mode": "w"}
EVAL = '${eval:\'open("MARKER","w") and 4\'}'


def text_of(texts: Texts, name: str, marker: Path) -> str:
    return texts[name]().replace("MARKER", str(marker))
