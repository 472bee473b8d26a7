"""Parts of the autoencoder that do not learn."""

from __future__ import annotations

from collections.abc import Sequence

from vqgan.autoencoder import Autoencoder
from vqgan.errors import check

# The 1×1 convolutions belong to what they are the end, or the beginning, of: with encoder and quantizer frozen, codes
# stay what they are.
PARTS = {
    "encoder": ("encoder", "quant_conv"),
    "quantizer": ("quantizer",),
    "decoder": ("post_quant_conv", "decoder"),
}


def freeze(autoencoder: Autoencoder, names: Sequence[str]) -> None:
    """Let parts stay as they are: no gradient reaches their parameters, and they are in evaluation mode.

    An optimizer may have their parameters: without a gradient it neither moves nor decays them. In evaluation mode
    nothing is dropped at random, statistics stay, and a quantizer counts no codes and moves none.

    Args:
        autoencoder: in training mode.
        names: of `PARTS`.

    Raises:
        ConfigError: nothing is left that learns by gradients.
    """
    for name in names:
        for part in PARTS[name]:
            autoencoder.get_submodule(part).eval().requires_grad_(False)
    learns = any(parameter.requires_grad for parameter in autoencoder.parameters())
    check(learns, "trainer.freeze", list(names), "fewer parts: nothing is left that learns by gradients")
