"""Train VQGAN tokenizers on folders of videos.

Importing the package is quick: torch is loaded when something that needs it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vqgan import packing, tokens
    from vqgan.tokenizer.taming import import_taming
    from vqgan.tokenizer.tokenizer import Tokenizer, load

__all__ = ["Tokenizer", "import_taming", "load", "packing", "tokens"]
__version__ = "0.2.0"

_HOME = {
    "Tokenizer": "vqgan.tokenizer.tokenizer",
    "import_taming": "vqgan.tokenizer.taming",
    "load": "vqgan.tokenizer.tokenizer",
}


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


def __getattr__(name: str) -> Any:
    if name in ("packing", "tokens"):
        return importlib.import_module(f"vqgan.{name}")
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'vqgan' has no attribute {name!r}")
