"""How alike two clips are: PSNR, SSIM, perceptual distance, flicker."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vqgan.frames import Clips, Frames
from vqgan.runtime.device import running_in


def psnr(a: Frames, b: Frames) -> Float[Tensor, "batch time"]:
    """Peak signal-to-noise ratio of each pair of frames in [-1, 1], in dB; equal frames give 100 dB."""
    error = ((a - b) / 2).square().mean(dim=(2, 3, 4))
    return -10 * torch.log10(error.clamp(min=1e-10))


def ssim(a: Frames, b: Frames) -> Float[Tensor, "batch time"]:
    """Structural similarity of each pair of frames in [-1, 1] (Wang et al. 2004), in [-1, 1].

    Gaussian window of 11 pixels with deviation 1.5, K1 0.01, K2 0.03, per channel, averaged over the positions where
    the window fits; sides of at least 11 pixels.
    """
    clips = a.shape[:2]
    a, b = ((frames.float().flatten(0, 1) + 1) / 2 for frames in (a, b))
    offsets = torch.arange(11, device=a.device) - 5
    line = torch.exp(-offsets.square() / (2 * 1.5**2))
    window = torch.outer(line, line) / line.sum() ** 2

    def blur(x: Tensor) -> Tensor:
        channels = x.shape[1]
        return F.conv2d(x, window.expand(channels, 1, 11, 11), groups=channels)

    mean_a, mean_b = blur(a), blur(b)
    variance_a, variance_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    covariance = blur(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    structure = (2 * covariance + c2) / (variance_a + variance_b + c2)
    return (luminance * structure).mean(dim=(1, 2, 3)).unflatten(0, clips)


def measure(
    frames: Frames, reconstruction: Frames, perceptual: nn.Module | None
) -> dict[str, Float[Tensor, "batch time"]]:
    """What is measured of each pair of frames in [-1, 1], in float32 whatever the networks run in.

    Less would not do: SSIM subtracts squares of nearly the same size.

    Returns:
        `psnr` (dB), `psnr_mean_colour` (the same for predicting each frame's mean colour: what a tokenizer must beat),
        `ssim`, and with a perceptual network `lpips`.
    """
    with running_in("fp32", frames.device):
        mean_colour = frames.mean(dim=(3, 4), keepdim=True).expand_as(frames)
        measured = {
            "psnr": psnr(frames, reconstruction),
            "psnr_mean_colour": psnr(frames, mean_colour),
            "ssim": ssim(frames, reconstruction),
        }
        return measured if perceptual is None else measured | {"lpips": perceptual(reconstruction, frames)}


def flicker(clips: Clips, reconstructions: Clips) -> Float[Tensor, "batch"]:
    """How much more or less each clip changes from frame to frame than its original; 0 for equal changes.

    mean |(x̂_{t+1} - x̂_t) - (x_{t+1} - x_t)| over pixels, colours and pairs of neighbouring frames, in 8-bit levels
    (0 to 510); clips of at least two frames.
    """
    return (reconstructions.float() - clips.float()).diff(dim=1).abs().mean(dim=(1, 2, 3, 4))
