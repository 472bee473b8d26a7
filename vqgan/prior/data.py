"""Clips of a token folder: drawn for training, and laid over whole videos to measure them."""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vqgan.data.folder import split_names
from vqgan.data.loader import REMEMBERED
from vqgan.errors import ConfigError, DataError, check
from vqgan.packing.plan import fingerprint
from vqgan.prior.transformer import Alphabet
from vqgan.runtime.process import ALONE, Process
from vqgan.tokens.folder import Tokens, TokenVideo
from vqgan.tokens.side import Side

SAME = ("tokenizer", "codebook_size", "depth", "temporal_downsampling")  # of two folders of one corpus
Grid = tuple[int, int, int]  # times, rows, columns


@dataclass(frozen=True)
class Clips:
    """Clips of one size."""

    codes: Int[Tensor, "batch times rows columns depth"]
    begins: Bool[Tensor, "batch"]  # whether each is the beginning of its video
    side: Float[Tensor, "batch times numbers"] | None

    def to(self, device: torch.device) -> Clips:
        """The same on a device."""
        codes, begins = self.codes.to(device, non_blocking=True), self.begins.to(device, non_blocking=True)
        return Clips(codes, begins, None if self.side is None else self.side.to(device, non_blocking=True))

    def __len__(self) -> int:
        return len(self.codes)


@dataclass(frozen=True)
class Place:
    """A run of times of one video, of which those from `counted` on have not been in a run before."""

    video: int
    first: int
    times: int
    counted: int


@dataclass(eq=False)
class Videos(Sequence[TokenVideo]):
    """Some videos of a token folder.

    Args:
        tokens: the folder.
        numbers: of the videos in it.
        has_side: whether their side data are read.
    """

    tokens: Tokens
    numbers: Sequence[int]
    has_side: bool

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: Any) -> Any:
        """Video `index`."""
        return self.tokens[self.numbers[index]]

    def shape(self, index: int) -> Grid:
        """Times, rows and columns."""
        return self.tokens.records[self.numbers[index]][0].shape[:3]  # type: ignore[return-value]

    def path(self, index: int) -> str:
        """Below the folder of videos."""
        return self.tokens.records[self.numbers[index]][0].path

    def clips(self, places: Sequence[Place]) -> Clips:
        """The clips at some places, whose grids are alike."""
        depth, codes, side = self.tokens.depth, [], []
        for place in places:
            part = slice(place.first, place.first + place.times)
            codes.append(self.tokens.codes(self.numbers[place.video])[part].astype(np.int64))
            if self.has_side:
                side.append(self.side(place.video)[part])
        stacked = torch.from_numpy(np.stack(codes))
        return Clips(
            stacked.view(*stacked.shape[:4], depth),
            torch.tensor([place.first == 0 for place in places]),
            torch.from_numpy(np.stack(side)) if self.has_side else None,
        )

    def side(self, index: int) -> Float[np.ndarray, "times numbers"]:
        """The side data of each time of a video, those of frames that share codes beside each other.

        Raises:
            DataError: it has none.
        """
        video: TokenVideo = self[index]
        if video.side is None:
            raise DataError(
                f"data.side=true, and {video.path} has no side data in {self.tokens.folder}. Encode it again with its "
                "numbers beside it, or leave data.side out."
            )
        return by_time(video.side, len(video.codes), self.tokens.temporal_downsampling)

    def places(self, length: int) -> Iterator[Place]:
        """All videos in runs of at most `length` times, each of which sees half a run of what was before it.

        Each time is counted in one run alone: the costs of all together are what the videos cost.
        """
        seen = length // 2
        for video in range(len(self)):
            times, end = self.shape(video)[0], 0
            while end < times:
                first = max(0, end - seen)
                upto = min(times, first + length)
                yield Place(video, first, upto - first, end - first)
                end = upto

    def batches(self, places: Sequence[Place], size: int) -> list[list[Place]]:
        """Places whose grids are alike, at most `size` together."""
        alike: dict[Grid, list[Place]] = defaultdict(list)
        for place in places:
            alike[place.times, *self.shape(place.video)[1:]].append(place)
        return [group[n : n + size] for group in alike.values() for n in range(0, len(group), size)]


def by_time(rows: Side, times: int, folded: int) -> Float[np.ndarray, "times numbers"]:
    """Numbers a frame as numbers a time of codes: of the `folded` frames that share codes, one after the other.

    The first frame has codes of its own and stands there as often; so does the last one where frames are missing.
    """
    frames = 1 + np.arange(-folded, (times - 1) * folded).reshape(times, folded)
    flat = np.asarray(rows).reshape(len(rows), -1).astype(np.float32)
    return flat[frames.clip(0, len(rows) - 1)].reshape(times, -1)


@dataclass(kw_only=True)
class TokenClips:
    """What a prior is trained on: the values of `data` in `conf/prior.yaml`.

    Args:
        root: a folder that `vqgan encode` wrote.
        val_root: another one by the same tokenizer, for validation; null splits `root`.
        val_fraction: share of the videos of `root` for validation, told by their names as in a tokenizer's training.
        clip_times: times of codes that the network sees at once.
        batch_size: clips per micro-batch, of all processes together.
        validation_clips: at most so many are measured during training; all are in the end.
        side: tell the network the numbers that lie beside each frame.
    """

    root: str
    val_root: str | None
    val_fraction: float
    clip_times: int
    batch_size: int
    validation_clips: int
    side: bool

    def __post_init__(self) -> None:
        check(0 < self.val_fraction < 1, "val_fraction", self.val_fraction, "in (0, 1)")
        for key in ("clip_times", "batch_size", "validation_clips"):
            check(getattr(self, key) > 0, key, getattr(self, key), "positive")

    def videos(self) -> tuple[Videos, Videos]:
        """Those for training and those for validation.

        Raises:
            ConfigError: there is no token folder, or they are of two tokenizers.
            DataError: it is damaged, or has too few videos.
        """
        tokens = Tokens(Path(self.root).expanduser())
        if self.val_root is not None:
            others = Tokens(Path(self.val_root).expanduser())
            for key in SAME:
                if tokens.manifest.get(key) != others.manifest.get(key):
                    raise ConfigError(
                        f"data.root={self.root} and data.val_root={self.val_root} are of two tokenizers: their {key} "
                        "differs. Encode both with the same one."
                    )
            both = (tokens, list(range(len(tokens)))), (others, list(range(len(others))))
        else:
            if len(tokens) < 2:
                raise DataError(
                    f"data.root={self.root} has {len(tokens)} videos, and a prior needs some to train on and others to "
                    "validate on. Encode more, or name others: data.val_root=TOKENS."
                )
            number = {path: index for index, path in enumerate(tokens.paths)}
            split = split_names(tokens.paths, self.val_fraction)
            both = (tokens, [number[path] for path in split[0]]), (tokens, [number[path] for path in split[1]])
        for key, (folder, numbers) in zip(("root", "val_root"), both):
            if not numbers:
                raise DataError(f"data.{key}={folder.folder} has no videos yet. Encode some: vqgan encode.")
        return Videos(*both[0], self.side), Videos(*both[1], self.side)

    @staticmethod
    def fingerprint(training: Videos, held_out: Videos) -> str:
        """What is used, wherever it lies."""
        return " ".join(dict.fromkeys(fingerprint(videos.tokens)[:16] for videos in (training, held_out)))


def alphabet_of(training: Videos, held_out: Videos) -> Alphabet:
    """What codes there are, and in which grids.

    Raises:
        DataError: side data differ in size.
    """
    tokens = training.tokens
    grids = [videos.shape(n)[1:] for videos in (training, held_out) for n in range(len(videos))]
    rows, columns = (max(sizes) for sizes in zip(*grids))
    sizes = {videos.side(n).shape[1] for videos in (training, held_out) if videos.has_side for n in range(len(videos))}
    if len(sizes) > 1:
        raise DataError(f"data.side=true, and the videos' side data have rows of {sorted(sizes)} numbers.")
    return Alphabet(tokens.codebook_size, tokens.depth, rows, columns, *(sizes or {0}))


class TokenLoader:
    """Draws training batches: batch n is a function of (seed, n), and each clip of it of (seed, n, its number).

    A batch is of one size: which one is drawn by how many times the videos of that size have, then a video in the same
    way, then a run of it.

    Args:
        videos: for training.
        clip_times: of a clip; of a shorter video all its times.
        batch_size: clips per batch, of all processes together; a multiple of their number.
        seed: of what is drawn.
        process: which share is read.
    """

    def __init__(self, videos: Videos, clip_times: int, batch_size: int, seed: int, process: Process = ALONE) -> None:
        self.videos, self.batch_size, self.seed, self.process = videos, batch_size, seed, process
        alike: dict[Grid, list[int]] = defaultdict(list)
        for number in range(len(videos)):
            times, rows, columns = videos.shape(number)
            alike[min(times, clip_times), rows, columns].append(number)
        self.groups = list(alike.items())
        self.times = [np.cumsum([videos.shape(n)[0] for n in numbers]) for _, numbers in self.groups]
        self.of_groups = np.cumsum([times[-1] for times in self.times])
        self.drawn: dict[int, list[dict[str, Any]]] = {}
        self.reading_seconds = 0.0

    @property
    def share(self) -> int:
        """Clips of a batch that this process reads."""
        return self.batch_size // self.process.count

    def batches(self, first: int) -> Generator[Clips, None, None]:
        """This process's share of batches `first`, `first` + 1, …"""
        for number in itertools.count(first):
            began = time.process_time()
            places = [self.place(number, n + self.process.rank * self.share) for n in range(self.share)]
            self.drawn[number] = [
                {"path": self.videos.path(place.video), "clip": place.first, "number": number} for place in places
            ]
            self.drawn.pop(number - REMEMBERED, None)
            clips = self.videos.clips(places)
            self.reading_seconds += time.process_time() - began
            yield clips

    def place(self, batch: int, clip: int) -> Place:
        """Where a clip of a batch is."""
        group = _drawn(np.random.default_rng([self.seed, batch]), self.of_groups)
        rng = np.random.default_rng([self.seed, batch, clip + 1])
        (length, _, _), numbers = self.groups[group]
        video = numbers[_drawn(rng, self.times[group])]
        return Place(video, int(rng.integers(self.videos.shape(video)[0] - length + 1)), length, 0)

    def exchange(self) -> None:
        """There is nothing to tell the other processes."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing: a batch is known by its number."""
        return {}

    def load_state_dict(self, state: Any) -> None:
        """Nothing."""


def _drawn(rng: np.random.Generator, ends: Int[np.ndarray, "parts"]) -> int:
    """One of some parts of a line, which end there, by its length."""
    return int(np.searchsorted(ends, rng.integers(ends[-1]), side="right"))
