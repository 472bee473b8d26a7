"""What vqgan.load takes: weights, sizes and the discriminator, for whoever trains it further."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from vqgan.tokenizer.exporting.made import Made
from vqgan.tokenizer.folder import DISCRIMINATOR, put
from vqgan.tokenizer.tokenizer import Tokenizer


def make(tokenizer: Tokenizer, discriminator: Mapping[str, Tensor] | None) -> Made:
    """Every tokenizer can be that."""

    def write(folder: Path) -> None:
        put(folder, tokenizer.description, tokenizer.state_dict(), discriminator)

    return Made(write, takes_over=(DISCRIMINATOR,))
