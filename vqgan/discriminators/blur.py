"""A patch discriminator that judges each frame by itself, and sees no aliases."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vqgan.errors import check
from vqgan.frames import per_frame


class BlurPatchGAN(nn.Module):
    """Convolutions, each followed by a blur that halves the sides, and group norms (MaskBit, arXiv:2409.16211).

    Nothing couples the samples of a batch: gradients are those of a larger one whatever the micro-batches and
    processes, and penalties of single samples' gradients are possible. As the blur (Zhang 2019, arXiv:1904.11486) goes
    before each other position is left out, moving a detail by a pixel hardly changes what is said of it.

    The facts are those of `NLayerDiscriminatorv2` in markweberdev/maskbit and bytedance/1d-tokenizer: 5×5 convolution;
    `layers` times 3×3 convolution, blur, norm; 1×1 convolution; 5×5 convolution to a logit; leaky by 0.1; PyTorch's own
    initialisation. Left out is their pooling to 16×16, which says the same of neighbours where frames are small.

    Args:
        image_channels: 3 for rgb.
        channels: width of the first two convolutions, a multiple of `norm_groups`; doubles with each layer from there
            on, up to eight times that.
        layers: each halves the sides; frames of at least 2^layers pixels.
        norm_groups: of each norm; 32 as published.
    """

    def __init__(self, image_channels: int, channels: int, layers: int, norm_groups: int) -> None:
        check(layers > 0, "layers", layers, "positive")
        check(norm_groups > 0, "norm_groups", norm_groups, "positive")
        fits = channels > 0 and channels % norm_groups == 0
        check(fits, "channels", channels, f"a positive multiple of norm_groups={norm_groups}")
        super().__init__()
        widths = [channels, *(channels * min(2**i, 8) for i in range(layers))]
        parts: list[nn.Module] = [nn.Conv2d(image_channels, channels, 5, padding=2), nn.LeakyReLU(0.1)]
        for a, b in itertools.pairwise(widths):
            parts += [nn.Conv2d(a, b, 3, padding=1), Blur(), nn.GroupNorm(norm_groups, b), nn.LeakyReLU(0.1)]
        last = widths[-1]
        parts += [nn.Conv2d(last, last, 1), nn.LeakyReLU(0.1), nn.Conv2d(last, 1, 5, padding=2)]
        self.main = nn.Sequential(*parts)

    def forward(
        self, frames: Float[Tensor, "batch time rgb height width"]
    ) -> Float[Tensor, "batch time 1 rows columns"]:
        """A logit per patch of frames in [-1, 1]."""
        return per_frame(self.main, frames)


class Blur(nn.Module):
    """Every other position of x blurred by (1, 3, 3, 1) / 8 in rows and columns; beyond the border are zeros."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        line = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        self.register_buffer("kernel", torch.outer(line, line)[None, None], persistent=False)

    def forward(self, x: Float[Tensor, "n c height width"]) -> Float[Tensor, "n c rows columns"]:
        """Half the sides, rounded down."""
        channels = x.shape[1]
        return F.conv2d(x, self.kernel.to(x.dtype).expand(channels, -1, -1, -1), stride=2, padding=1, groups=channels)
