"""A codebook that learns by gradients and is kept in use."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from vqgan.quantizers.assignment import to_vectors
from vqgan.quantizers.placement import Placement
from vqgan.quantizers.quantizer import Quantized
from vqgan.quantizers.rotation import Gradient
from vqgan.quantizers.vector import VectorQuantizer


class RevivedQuantizer(VectorQuantizer):
    """`VectorQuantizer` whose codes start on latents and come back when they lie idle.

    Few dimensions (8 or so) help as much as either: so many more of the codes are near some latent. Choose it over
    `EMAQuantizer` where a codebook shall learn from what is added to its loss.

    Args:
        codebook_size: number of codes.
        latent_dim: dimension of a code.
        commitment_weight: at least 0; pulls latents to their codes.
        codebook_weight: at least 0; pulls codes to their latents.
        gradient: how gradients pass to the latents, see `pass_gradient`.
        start_from_data: begin with codes drawn from the first batch's latents instead of near 0.
        revive_after: put a code onto a random latent whenever it was not chosen for so many steps; null for never.
    """

    def __init__(
        self,
        codebook_size: int,
        latent_dim: int,
        commitment_weight: float,
        codebook_weight: float,
        gradient: Gradient,
        start_from_data: bool,
        revive_after: int | None,
    ) -> None:
        super().__init__(codebook_size, latent_dim, commitment_weight, codebook_weight, gradient)
        self.placement = Placement(start_from_data, revive_after)

    def forward(self, latents: Float[Tensor, "*batch latent rows columns"]) -> Quantized:
        """Replace each latent by its nearest code; in training, first see that codes are where latents are."""
        self.placement(self.codebook, to_vectors(latents.detach()), self.use.idle)
        return super().forward(latents)

    def update(self) -> None:
        """Take note that an optimizer step is over."""
        super().update()
        self.placement.update()
