"""The table of a tokenizer's codes, to begin a model's embedding with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from vqgan.errors import ConfigError
from vqgan.tokenizer.tokenizer import load
from vqgan.tokens.folder import Tokens

LARGEST_TABLE = 2**20  # codes; those of larger codebooks are computed from their indices
AT_ONCE = 2**14  # codes


def table_of(tokenizer: str, tokens: Tokens, parts: Path | None) -> Float[np.ndarray, "codes latent"] | None:
    """Each code as the vector that the decoder's side gets; None where codes are too many, or several a position.

    Args:
        tokenizer: a run, an exported tokenizer or a hub id.
        tokens: that it encoded.
        parts: a folder of Python files that it is built of.

    Raises:
        ConfigError: it is another one than that.
        CheckpointError: see `load`.
    """
    network = load(tokenizer, parts)
    if network.sha256() != tokens.manifest.get("tokenizer"):
        raise ConfigError(f"{tokens.folder} was encoded by a tokenizer with other weights than {tokenizer}.")
    quantizer = network.quantizer
    if quantizer.depth > 1 or quantizer.codebook_size > LARGEST_TABLE:
        return None
    with torch.inference_mode():
        indices = torch.arange(quantizer.codebook_size)
        rows = [quantizer.lookup(part[:, None, None])[:, :, 0, 0] for part in indices.split(AT_ONCE)]
        return torch.cat(rows).float().numpy()
