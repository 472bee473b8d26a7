"""The figures of an evaluation, from sums over its clips. Definitions and sources are in `docs/metrics.md`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from vqgan.evaluation.bootstrap import CodeUse, Interval, Mean, VideoWeights
from vqgan.evaluation.frechet import Moments, frechet_distance
from vqgan.evaluation.networks import I3D, FeatureNetworks, Inception
from vqgan.frames import Clips, Indices, to_frames
from vqgan.measures import flicker, measure
from vqgan.quantizers.usage import ENOUGH, count_by_depth, touched

UNITS = {
    "psnr": "dB", "psnr_mean_colour": "dB", "ssim": "", "lpips": "", "rfid": "", "rfvd": "", "usage": "of the codes",
    "perplexity": "codes", "bits_per_token": "bit/token", "bits_per_pixel": "bit/pixel",
    "bits_per_pixel_fixed": "bit/pixel", "flicker": "levels of 255",
}  # fmt: skip
MEANS = ("psnr", "psnr_mean_colour", "ssim", "lpips", "flicker")
LONGER = "take longer ones: data.clip_frames=16"


@dataclass(frozen=True)
class Metric:
    """One figure.

    Args:
        value: None if it was not computed.
        low: of its interval; None if it has none.
        high: likewise.
        unit: empty for a pure number.
        reason: why it was not computed, or what to bear in mind; None if there is nothing to say.
    """

    value: float | None
    low: float | None
    high: float | None
    unit: str
    reason: str | None


class Accumulator:
    """All that is kept of the clips so far.

    Args:
        networks: that features come from.
        codes: of the codebook; None for what has none.
        depth: codes of a position.
        replicates: of the bootstrap.
        seed: of the bootstrap.
        batch_frames: that go through a network at once.
    """

    def __init__(
        self, networks: FeatureNetworks, codes: int | None, depth: int, replicates: int, seed: int, batch_frames: int
    ) -> None:
        self.networks, self.batch_frames, self.replicates = networks, batch_frames, replicates
        self.weights = VideoWeights(replicates, seed)
        self.means: dict[str, Mean] = {}
        self.code_use = None if codes is None else CodeUse(codes, depth, replicates)
        self.bits_spent = Mean(replicates)  # a pixel, where they are counted
        self.frame_features = Moments(Inception.dim), Moments(Inception.dim)  # of originals, of reconstructions
        self.clip_features = Moments(I3D.dim), Moments(I3D.dim)
        self.videos, self.clips, self.frames, self.clip_frames, self.pixels = 0, 0, 0, 0, 0
        self.path: Path | None = None  # of the last clip
        self.by_position: list[Tensor] = []  # PSNR of the frames of a clip, added up over clips

    def add(
        self,
        paths: list[Path],
        originals: Clips,
        reconstructions: Clips,
        indices: Indices | None,
        bits: Float[Tensor, "batch"] | None = None,
    ) -> None:
        """Take some clips, the file of each, and their codes, or the bits that were spent on each otherwise.

        Clips of one file come one after the other.
        """
        self.clip_frames = originals.shape[1]
        measured = self._measure(originals, reconstructions)
        self.by_position = [measured["psnr"].sum(0) + sum(self.by_position)]
        for i in range(len(paths)):
            if paths[i] != self.path:
                self.path, self.videos = paths[i], self.videos + 1
            weights = self.weights.of(self.videos - 1)
            for name, values in measured.items():
                mean = self.means.setdefault(name, Mean(self.replicates))
                mean.add(float(values[i].sum()), len(values[i]), weights)
            if self.code_use is not None and indices is not None:
                counts = count_by_depth(indices[i], *reversed(self.code_use.counts.shape))
                self.code_use.add(counts.cpu().numpy(), weights)
            if bits is not None:
                self.bits_spent.add(float(bits[i]), originals[i].numel() // 3, weights)
        self.clips += len(paths)
        self.frames += len(paths) * self.clip_frames
        self.pixels += originals.numel() // 3
        self._add_features(originals, reconstructions)

    @property
    def psnr_by_position(self) -> list[float]:
        """Of the first frames of all clips, of the second ones …, in dB."""
        return [float(total) / self.clips for totals in self.by_position for total in totals]

    def _measure(self, originals: Clips, reconstructions: Clips) -> dict[str, Float[Tensor, "batch values"]]:
        """Per metric a row for each clip, with the values of its frames or pairs of frames."""
        found: dict[str, list[Tensor]] = {}
        for x, y in self._frames(originals, reconstructions):
            for name, values in measure(to_frames(x), to_frames(y), self.networks.lpips).items():
                found.setdefault(name, []).append(values)
        result = {name: torch.cat(values).view(len(originals), -1) for name, values in found.items()}
        if self.clip_frames > 1:  # a clip's mean stands for each of its pairs
            result["flicker"] = flicker(originals, reconstructions)[:, None].expand(-1, self.clip_frames - 1)
        return {name: values.cpu().double() for name, values in result.items()}

    def _add_features(self, originals: Clips, reconstructions: Clips) -> None:
        if self.networks.inception is not None:
            for pair in self._frames(originals, reconstructions):
                for moments, frames in zip(self.frame_features, pair):
                    moments.add(self.networks.inception(rearrange(frames, "n 1 h w c -> n c h w")))
        if self.networks.i3d is not None and self.clip_frames >= I3D.least_frames:
            for moments, clips in zip(self.clip_features, (originals, reconstructions)):
                moments.add(self.networks.i3d(clips))

    def _frames(self, originals: Clips, reconstructions: Clips) -> zip[tuple[Clips, Clips]]:
        """Both as clips of one frame, in parts as large as networks take."""
        singles = [rearrange(clips, "b t h w c -> (b t) 1 h w c") for clips in (originals, reconstructions)]
        return zip(*(frames.split(self.batch_frames) for frames in singles))

    def metrics(self, confidence: float) -> dict[str, Metric]:
        """All figures, by name, with intervals of that confidence."""
        found = {name: self._mean(name, confidence) for name in MEANS}
        found |= {"rfid": self._rfid(), "rfvd": self._rfvd(), **self._codes(confidence)}
        return {name: found[name] for name in UNITS}

    def _mean(self, name: str, confidence: float) -> Metric:
        if name not in self.means:
            reason = self.networks.missing.get(name, f"clips have one frame; {LONGER}")
            return self._metric(name, None, None, reason)
        return self._metric(name, self.means[name].value, self.means[name].interval(confidence))

    def _rfid(self) -> Metric:
        if self.networks.inception is None:
            return self._metric("rfid", None, None, self.networks.missing["rfid"])
        return self._distance("rfid", *self.frame_features)

    def _rfvd(self) -> Metric:
        if self.networks.i3d is None:
            return self._metric("rfvd", None, None, self.networks.missing["rfvd"])
        if self.clip_frames < I3D.least_frames:
            reason = f"clips have {self.clip_frames} frames and I3D needs {I3D.least_frames}; {LONGER}"
            return self._metric("rfvd", None, None, reason)
        return self._distance("rfvd", *self.clip_features, f"of clips of {self.clip_frames} frames")

    def _distance(self, name: str, originals: Moments, reconstructions: Moments, what: str = "") -> Metric:
        value, reason = distance(originals, reconstructions, what)
        return self._metric(name, value, None, reason)

    def _codes(self, confidence: float) -> dict[str, Metric]:
        use = self.code_use
        if use is None:
            return self._without_codes(confidence)
        bits = use.entropy
        found = use.interval(confidence)
        per_pixel = int(use.counts.sum()) / self.pixels  # tokens
        perplexities = None if found is None else Interval(2**found.low, 2**found.high)
        scaled = None if found is None else Interval(found.low * per_pixel, found.high * per_pixel)
        return {
            "usage": self._metric("usage", use.usage, None, _few_latents(use)),
            "perplexity": self._metric("perplexity", 2**bits, perplexities),
            "bits_per_token": self._metric("bits_per_token", bits, found),
            "bits_per_pixel": self._metric("bits_per_pixel", bits * per_pixel, scaled),
            "bits_per_pixel_fixed": self._metric(
                "bits_per_pixel_fixed", math.log2(use.counts.shape[1]) * per_pixel, None
            ),
        }

    def _without_codes(self, confidence: float) -> dict[str, Metric]:
        """What is no tokenizer of ours has the bits that it counted itself, if any."""
        names = ("usage", "perplexity", "bits_per_token", "bits_per_pixel_fixed")
        found = {name: self._metric(name, None, None, "it has no codebook that is known here") for name in names}
        spent = self.bits_spent
        if not spent.count:
            return found | {"bits_per_pixel": self._metric("bits_per_pixel", None, None, "nothing counted its bits")}
        return found | {"bits_per_pixel": self._metric("bits_per_pixel", spent.value, spent.interval(confidence))}

    def _metric(self, name: str, value: float | None, interval: Interval | None, reason: str | None = None) -> Metric:
        if interval is None or self.videos < 2:  # of one video there is nothing to learn about others
            return Metric(value, None, None, UNITS[name], reason)
        return Metric(value, interval.low, interval.high, UNITS[name], reason)


def distance(a: Moments, b: Moments, what: str) -> tuple[float | None, str | None]:
    """The Fréchet distance of as many features each, and what to know of it, beginning with what it is of."""
    count, dim = a.count, len(a.sum)
    if count < 2:
        return None, "a covariance needs two samples"
    few = f"only {count} samples for {dim} features: compare it with figures of as many samples alone"
    reasons = [reason for reason in (what, few if count <= dim else "") if reason]
    return frechet_distance(a, b), "; ".join(reasons) or None


def _few_latents(use: CodeUse) -> str | None:
    """What to know of the usage where there are too few latents to show it."""
    depth, codes = use.counts.shape
    count = int(use.counts.sum()) // depth
    possible = touched(count, codes)
    return (
        None if possible >= ENOUGH else f"{count:,} latents that chose evenly would touch {possible:.0%} of the codes"
    )
