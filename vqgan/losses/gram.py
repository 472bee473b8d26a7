"""A distance of textures."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from vqgan.errors import check
from vqgan.losses.objective import FeatureTerm


class Gram(FeatureTerm):
    """Σ over layers of layer_weight · mean (G - Ĝ)², where G = F Fᵀ / positions of a layer's activations F.

    Which channels respond together, wherever in the frame (Gatys et al. 2015, arXiv:1508.06576): texture, sharp where
    the place of each detail cannot be told, so a pixel distance would blur it. A steady stand-in for an adversary in
    short runs, or beside one; it costs a product of matrices, since the activations are the perceptual distance's.
    AToken (arXiv:2509.14476) trains without an adversary on L1, LPIPS and this; layer weights and normalisation are
    those of cosmos-predict1's `losses/continuous.py`. The activations are not normalised: look at `train/gram` before
    choosing its weight.

    Args:
        weight: at least 0.
        layer_weights: one for each layer of the perceptual network; at least 0.
    """

    def __init__(self, weight: float, layer_weights: Sequence[float]) -> None:
        check(all(w >= 0 for w in layer_weights), "layer_weights", list(layer_weights), "at least 0")
        super().__init__(weight)
        self.layer_weights = list(layer_weights)

    def forward(self, frames: Sequence[Tensor], reconstruction: Sequence[Tensor], step: int) -> Float[Tensor, ""]:  # noqa: ARG002
        """A mean over frames; in float32."""
        count = len(self.layer_weights)
        check(count == len(frames), "layer_weights", self.layer_weights, f"one for each of {len(frames)} layers")
        with torch.autocast(reconstruction[0].device.type, enabled=False):
            distances = [(_gram(x) - _gram(y)).square().mean() for x, y in zip(frames, reconstruction)]
        return sum((w * d for w, d in zip(self.layer_weights, distances)), torch.zeros_like(distances[0]))


def _gram(activations: Float[Tensor, "n c rows columns"]) -> Float[Tensor, "n c c"]:
    flat = activations.float().flatten(2)
    return flat @ flat.mT / flat.shape[2]
