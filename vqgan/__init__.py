"""Train VQGAN tokenizers on folders of videos.

Importing the package is quick: torch is loaded when something that needs it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vqgan.taming import import_taming
    from vqgan.tokenizer import load

__all__ = ["import_taming", "load"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "load":
        from vqgan.tokenizer import load

        return load
    if name == "import_taming":
        from vqgan.taming import import_taming

        return import_taming
    raise AttributeError(f"module 'vqgan' has no attribute {name!r}")
