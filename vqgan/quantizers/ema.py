"""A codebook that follows the mean of its latents."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vqgan.errors import check
from vqgan.layers import StartsFromData
from vqgan.quantizers.assignment import look_up, nearest, to_grid, to_vectors
from vqgan.quantizers.placement import can_start_from, due, place
from vqgan.quantizers.quantizer import Quantized, Quantizer
from vqgan.quantizers.rotation import Gradient, pass_gradient
from vqgan.quantizers.usage import CodeUse
from vqgan.runtime.collectives import sum_over_processes


class EMAQuantizer(StartsFromData, Quantizer):
    """Vector quantization with exponential moving averages (van den Oord et al. 2017, appendix A.1).

    Per training step, with n_i the number of latents that chose code i and s_i their sum (both in float32)::

        N_i ← decay · N_i + (1 - decay) · n_i          M_i ← decay · M_i + (1 - decay) · s_i
        e_i ← M_i / ((N_i + eps) / (ΣN + K · eps) · ΣN)

    `forward` assigns with the codebook as it stands and sums; `update` moves it, so that accumulation over
    micro-batches, or over processes, equals one large batch. loss = commitment_weight · mean |z - sg[e]|².

    The cluster sizes N start at one. At zero (as in taming-transformers' `EMAVQ`) a code that the first batch does not
    touch is divided by ~eps, lands about 10^5 times too far out and is lost for ever.

    Args:
        codebook_size: number of codes.
        latent_dim: dimension of a code.
        commitment_weight: at least 0.
        decay: in [0, 1).
        eps: positive; smooths the cluster sizes.
        start_from_data: begin with codes drawn from the first batch's latents instead of N(0, 1).
        revive_after: put a code onto a random latent whenever it was not chosen for so many steps; null for never.
        gradient: how gradients pass to the latents, see `pass_gradient`; not said in older tokenizers.
    """

    use: CodeUse
    codebook: Float[Tensor, "codes latent"]
    cluster_sizes: Float[Tensor, "codes"]
    cluster_sums: Float[Tensor, "codes latent"]
    started: Bool[Tensor, ""]
    step_sums: Float[Tensor, "codes latent"]

    def __init__(
        self,
        codebook_size: int,
        latent_dim: int,
        commitment_weight: float,
        decay: float,
        eps: float,
        start_from_data: bool,
        revive_after: int | None,
        gradient: Gradient = "straight_through",
    ) -> None:
        super().__init__(codebook_size, latent_dim)
        check(commitment_weight >= 0, "commitment_weight", commitment_weight, "at least 0")
        check(0 <= decay < 1, "decay", decay, "in [0, 1)")
        check(eps > 0, "eps", eps, "positive")
        check(revive_after is None or revive_after > 0, "revive_after", revive_after, "positive or null")
        self.commitment_weight, self.decay, self.eps, self.revive_after = commitment_weight, decay, eps, revive_after
        self.gradient = gradient
        self.use = CodeUse(self, codebook_size)
        codebook = torch.randn(codebook_size, latent_dim)
        self.register_buffer("codebook", codebook)
        self.register_buffer("cluster_sizes", torch.ones(codebook_size))
        self.register_buffer("cluster_sums", codebook.clone())
        self.register_buffer("started", torch.tensor(not start_from_data))
        self.register_buffer("step_sums", torch.zeros_like(codebook), persistent=False)  # zero between steps
        self.recent: Float[Tensor, "n latent"] | None = None  # latents of the step's last forward, for revival

    def forward(self, latents: Float[Tensor, "*batch latent rows columns"]) -> Quantized:
        """Replace each latent by its nearest code; in training, sum what `update` needs."""
        flat = to_vectors(latents.detach())
        if self.training and not self.has_started():
            self._start_from(flat)
        nearest_codes = nearest(flat, self.codes())
        if self.training:
            self.step_sums.index_add_(0, nearest_codes, flat)
            self.recent = flat
        indices = to_grid(nearest_codes, latents)
        codes = self.lookup(indices)
        loss = self.commitment_weight * F.mse_loss(latents, codes)
        metrics = {"perplexity": self.use.count(indices)}
        return Quantized(pass_gradient(self.gradient, latents, codes), indices, loss, metrics)

    def lookup(self, indices: Int[Tensor, "*batch rows columns"]) -> Float[Tensor, "*batch latent rows columns"]:
        """The codes that `indices` name."""
        return look_up(self.codes(), indices)

    def codes(self) -> Float[Tensor, "codes latent"]:
        """What latents are replaced by."""
        return self.codebook

    @torch.no_grad()
    def update(self) -> None:
        """Move the averages and the codes by what was summed since the last call."""
        self.cluster_sizes.mul_(self.decay).add_(self.use.chosen, alpha=1 - self.decay)
        self.cluster_sums.mul_(self.decay).add_(sum_over_processes(self.step_sums), alpha=1 - self.decay)
        total = self.cluster_sizes.sum()
        smoothed = (self.cluster_sizes + self.eps) / (total + self.codebook_size * self.eps) * total
        torch.div(self.cluster_sums, smoothed[:, None], out=self.codebook)
        self.step_sums.zero_()
        super().update()
        if self.revive_after is not None and self.recent is not None:
            self._place(due(self.use.idle, self.revive_after, self.recent), self.recent)
        self.recent = None

    @torch.no_grad()
    def _start_from(self, latents: Float[Tensor, "n latent"]) -> None:
        self._place(torch.ones_like(self.use.idle, dtype=torch.bool), latents)
        self.started.copy_(can_start_from(latents))

    def _start_flag(self) -> Tensor:
        return self.started

    def _place(self, codes: Bool[Tensor, "codes"], latents: Float[Tensor, "n latent"]) -> None:
        """Put the marked codes onto latents drawn at random from all processes', each as a cluster of one."""
        place(codes, latents, self.codebook, self.cluster_sums)
        self.cluster_sizes.masked_fill_(codes, 1.0)
