"""How good reconstructions are: PSNR, SSIM, perceptual distance and codebook use on validation clips."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import reduce
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from vqgan.autoencoder import Autoencoder
from vqgan.collectives import gather, share_of, sum_over_processes
from vqgan.device import running_in
from vqgan.frames import to_frames
from vqgan.quantizers.quantizer import count_codes, perplexity

Frames = Float[Tensor, "frames rgb height width"]
Clips = UInt8[Tensor, "batch time height width rgb"]
MOST_RANKS = 128  # of a codebook's codes, whose shares are recorded


@dataclass(eq=False)
class Evaluation:
    """What was measured on validation clips, on the CPU."""

    metrics: dict[str, float]  # by their names in the panel `validation/`
    counts: Int[Tensor, "codes"]  # how often each code was chosen
    psnr_of_clips: Float[Tensor, "batch"]  # dB, means over the frames of each clip

    def extremes(self, most: int) -> tuple[list[int], list[int]]:
        """The numbers of at most so many clips with the lowest and the highest PSNR, the most extreme ones first."""
        order: list[int] = self.psnr_of_clips.argsort(stable=True).tolist()
        return order[:most], order[::-1][:most]

    def code_use(self) -> dict[str, Any]:
        """How codes were used, as it is recorded.

        Returns:
            `codebook_size`; `dead`, the codes that were never chosen; `perplexity`; and `shares`: of all choices,
            those of the most used code, the second …, the least used one, at evenly spaced ranks if there are many.
        """
        size = len(self.counts)
        ranks = torch.linspace(0, size - 1, min(size, MOST_RANKS), dtype=torch.float64).round().long()
        shares = self.counts.sort(descending=True).values[ranks] / self.counts.sum()
        return {
            "codebook_size": size,
            "dead": int((self.counts == 0).sum()),
            "perplexity": self.metrics["validation/perplexity"],
            "shares": [float(f"{share:.5g}") for share in shares.tolist()],
        }


def psnr(a: Frames, b: Frames) -> Float[Tensor, "frames"]:
    """Peak signal-to-noise ratio of each pair of frames in [-1, 1], in dB; equal frames give 100 dB."""
    error = ((a - b) / 2).square().mean(dim=(1, 2, 3))
    return -10 * torch.log10(error.clamp(min=1e-10))


def ssim(a: Frames, b: Frames) -> Float[Tensor, "frames"]:
    """Structural similarity of each pair of frames in [-1, 1] (Wang et al. 2004), in [-1, 1].

    Gaussian window of 11 pixels with deviation 1.5, K1 0.01, K2 0.03, per channel, averaged over the positions where
    the window fits; sides of at least 11 pixels.
    """
    a, b = (a.float() + 1) / 2, (b.float() + 1) / 2
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
    return (luminance * structure).mean(dim=(1, 2, 3))


def measure(frames: Frames, reconstruction: Frames, perceptual: nn.Module | None) -> dict[str, Float[Tensor, "frames"]]:
    """What is measured of each pair of frames in [-1, 1], in float32 whatever the networks run in.

    Less would not do: SSIM subtracts squares of nearly the same size.

    Returns:
        `psnr` (dB), `psnr_mean_colour` (the same for predicting each frame's mean colour: what a tokenizer must beat),
        `ssim`, and with a perceptual network `lpips`.
    """
    with running_in("fp32", frames.device):
        mean_colour = frames.mean(dim=(2, 3), keepdim=True).expand_as(frames)
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


@torch.no_grad()
def evaluate(autoencoder: Autoencoder, clips: Clips, batch_size: int, perceptual: nn.Module | None) -> Evaluation:
    """Measure reconstructions of clips, several processes each a share of them; changes no state.

    Returns:
        The same in each process: as metrics what `measure` finds, as `validation/psnr` …, all means over frames;
        `validation/perplexity` and `validation/usage` of the codebook over all clips together.
    """
    was_training = autoencoder.training
    autoencoder.eval()
    device = autoencoder.last_layer.device
    measured: dict[int, dict[str, Tensor]] = {}  # by the number of the batch
    counts = torch.zeros(autoencoder.quantizer.codebook_size, dtype=torch.int64, device=device)
    for number, group in share_of(clips.split(batch_size)):
        frames = to_frames(group.to(device))
        output = autoencoder(frames)
        of_frames = measure(frames, output.reconstruction.clamp(-1, 1), perceptual)
        measured[number] = {name: values.cpu() for name, values in of_frames.items()}
        counts += count_codes(output.indices, len(counts))
    autoencoder.train(was_training)
    counts = sum_over_processes(counts)
    batches = [of_frames for _, of_frames in sorted(item for part in gather(measured) for item in part.items())]
    per_frame = {name: torch.cat([of_frames[name] for of_frames in batches]) for name in batches[0]}
    metrics = {f"validation/{name}": float(values.mean()) for name, values in per_frame.items()}
    metrics["validation/perplexity"] = float(perplexity(counts))
    metrics["validation/usage"] = float((counts > 0).float().mean())
    psnr_of_clips = reduce(per_frame["psnr"], "(clip time) -> clip", "mean", clip=len(clips))
    return Evaluation(metrics, counts.cpu(), psnr_of_clips)


@torch.no_grad()
def reconstruct(autoencoder: Autoencoder, clips: Clips, batch_size: int) -> Frames:
    """Reconstructions of clips, on the CPU, in [-1, 1]; changes no state."""
    was_training = autoencoder.training
    autoencoder.eval()
    device = autoencoder.last_layer.device
    parts = [
        autoencoder(to_frames(group.to(device))).reconstruction.clamp(-1, 1).cpu() for group in clips.split(batch_size)
    ]
    autoencoder.train(was_training)
    return torch.cat(parts)
