"""How good a finished tokenizer is, measured in one pass over clips, in memory that does not grow with them."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from vqgan.autoencoder import Autoencoder
from vqgan.backbones import Remembers
from vqgan.errors import CheckpointError, StorageError, check
from vqgan.evaluation.figures import Accumulator, Metric
from vqgan.evaluation.gallery import Gallery
from vqgan.evaluation.networks import FeatureNetworks, WeightFiles, load_networks
from vqgan.evaluation.reconstructor import Group, Reconstructed, Reconstructor
from vqgan.frames import Clips, Indices, to_clips, to_frames
from vqgan.runtime.device import ANOTHER_DEVICE, Precision, find_device, memory_at_work, memory_to_begin, running_in
from vqgan.tokenizer.inference import reconstruct_in_parts
from vqgan.tokenizer.room import warn_of_less

Clip = UInt8[Tensor, "time height width rgb"]


@dataclass(frozen=True)
class Measurement:
    """What was measured, by name, and on how much."""

    metrics: dict[str, Metric]
    videos: int
    clips: int
    frames: int
    frames_sha256: str  # of the originals' pixels, clip after clip
    psnr_by_position: Sequence[float]  # dB: of the first frames of all clips, of the second ones …


@dataclass(kw_only=True)
class Evaluator:
    """Measures tokenizers: the values of `conf/evaluate.yaml`. Definitions and sources are in `docs/metrics.md`.

    Args:
        clips: at most so many, evenly spread over the data; null for all.
        batch_frames: frames that go through the networks at once, in clips, of which none is cut: one that has more
            goes through a network that remembers in parts, and through others whole.
        device: `auto` (cuda, mps or cpu, the first there is) or a torch device.
        precision: of the tokenizer, `fp32`, `bf16` (autocast) or `tf32` (convolutions on NVIDIA GPUs round to 10 bits);
            all that measures is float32.
        replicates: of the bootstrap over videos; 0 for no intervals.
        confidence: of the intervals, in (0, 1).
        seed: of the bootstrap.
        download: fetch feature networks that are not here.
        weights: files of the feature networks.
    """

    clips: int | None
    batch_frames: int
    device: str
    precision: Precision
    replicates: int
    confidence: float
    seed: int
    download: bool
    weights: WeightFiles

    def __post_init__(self) -> None:
        check(self.clips is None or self.clips > 0, "clips", self.clips, "positive or null")
        check(self.batch_frames > 0, "batch_frames", self.batch_frames, "positive")
        check(self.replicates >= 0, "replicates", self.replicates, "at least 0")
        check(0 < self.confidence < 1, "confidence", self.confidence, "in (0, 1)")
        check(self.seed >= 0, "seed", self.seed, "at least 0")
        self.hardware = find_device(self.device, "device")
        self.at_once = self.batch_frames  # until memory runs out

    @torch.no_grad()
    def measure(
        self,
        subject: Autoencoder | Reconstructor,
        clips: Iterable[tuple[Path, Clip]],
        gallery: Gallery | None = None,
    ) -> Measurement:
        """Measure a tokenizer, whose device and mode change, or what does its work.

        Args:
            subject: from the beginning, frames to frames.
            clips: with the file of each; all of one size, and those of one file one after the other.
            gallery: takes some of them, to be looked at.

        Raises:
            CheckpointError: what it gives is not finite.
            StorageError: memory ran out.
        """
        groups = self._groups(clips)
        with memory_to_begin(ANOTHER_DEVICE):
            if isinstance(subject, Autoencoder):
                subject.to(self.hardware).eval()
                codes, depth = subject.quantizer.codebook_size, subject.quantizer.depth
                found = self._tokenize(subject, groups)
            else:
                codes, depth, found = None, 1, subject.reconstruct(groups, self.hardware)
            sums = Accumulator(self.networks, codes, depth, self.replicates, self.seed, self.batch_frames)
        seen = hashlib.sha256()
        for one in found:
            seen.update(one.originals.cpu().contiguous().numpy().data)
            with memory_at_work(self.hardware, one.originals.shape), running_in("fp32", self.hardware):
                sums.add(one.paths, one.originals, one.clips, one.indices, one.bits)
                if gallery is not None:
                    gallery.add(one)
        return Measurement(
            metrics=sums.metrics(self.confidence),
            videos=sums.videos,
            clips=sums.clips,
            frames=sums.frames,
            frames_sha256=seen.hexdigest(),
            psnr_by_position=sums.psnr_by_position,
        )

    @cached_property
    def networks(self) -> FeatureNetworks:
        """Loaded once for all tokenizers."""
        return load_networks(self.weights, self.download, self.hardware)

    def _groups(self, clips: Iterable[tuple[Path, Clip]]) -> Iterator[Group]:
        for group in _groups(clips, self.batch_frames):
            yield [path for path, _ in group], torch.stack([clip for _, clip in group])

    def _tokenize(self, tokenizer: Autoencoder, groups: Iterable[Group]) -> Iterator[Reconstructed]:
        for paths, clips in groups:
            first = 0
            while first < len(clips):
                last = min(len(clips), first + max(1, self.at_once // clips.shape[1]))
                try:
                    with memory_at_work(self.hardware, clips[first:last].shape):
                        originals = clips[first:last].to(self.hardware)
                        found = Reconstructed(paths[first:last], originals, *self._reconstruct(tokenizer, originals))
                except StorageError:
                    if not self._take_less(tokenizer, last - first, clips.shape[1]):
                        raise
                else:
                    yield found
                    first = last

    def _take_less(self, tokenizer: Autoencoder, clips: int, frames: int) -> bool:
        """Half as many frames at once from now on; false if there is no less."""
        least = tokenizer.downsampling.time if _takes_parts(tokenizer) else frames
        taken = min(self.at_once, clips * frames)
        if taken <= least:
            return False
        if self.at_once == self.batch_frames:
            warn_of_less()
        self.at_once = max(least, taken // 2)
        return True

    def _reconstruct(self, tokenizer: Autoencoder, originals: Clips) -> tuple[Clips, Indices]:
        """What the tokenizer makes of clips, as the 8-bit video that one would see, and its codes."""
        with running_in(self.precision, self.hardware):
            frames = to_frames(originals)
            remembers = isinstance(tokenizer.encoder, Remembers)
            # One of pictures takes long clips whole, as it always has, unless memory has run out.
            in_parts = remembers or (self.at_once < self.batch_frames and _takes_parts(tokenizer))
            if frames.shape[1] > self.at_once and in_parts:
                reconstruction, indices = reconstruct_in_parts(tokenizer, frames, self.at_once)
            else:
                output = tokenizer(frames)
                reconstruction, indices = output.reconstruction, output.indices
        if not bool(reconstruction.isfinite().all()):
            raise CheckpointError("What the tokenizer makes of its frames is not finite: its weights are broken.")
        return to_clips(reconstruction), indices


def _takes_parts(tokenizer: Autoencoder) -> bool:
    """Whether a clip can go through it in parts."""
    return tokenizer.downsampling.time == 1 or isinstance(tokenizer.encoder, Remembers)


def _groups(clips: Iterable[tuple[Path, Clip]], batch_frames: int) -> Iterator[list[tuple[Path, Clip]]]:
    """Clips with as many frames together as go through the networks at once; at least one clip."""
    stream = iter(clips)
    for first in stream:
        more = max(1, batch_frames // len(first[1])) - 1
        yield [first, *itertools.islice(stream, more)]
