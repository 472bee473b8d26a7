"""A folder of videos as tokens: the format, and how it is read.

A token folder is written by `vqgan encode` and holds

- `manifest.json`: the tokenizer (its SHA-256 and sizes), how videos were read, the type of the integers, versions;
- `shard-….bin`: the codes of whole videos one after the other, each (times, rows, columns) in that order, or where a
  position has several codes (times, rows, columns, depth), as little-endian unsigned integers of 1, 2 or 4 bytes, the
  smallest that hold the codebook;
- `shard-….jsonl` beside each: a line per video that is complete: its path below the folder of videos, the first byte in
  the shard, its shape, how many frames it has and their times, its size, frame rate and checksum;
- `side/….npy`: where numbers lay beside a video, a row for each of its frames here; see `vqgan.tokens.side`;
- `bad_files….jsonl`: every video that could not be used, and why.

Where k frames share a code (`temporal_downsampling` in the manifest), the first frame of a video has codes of its own,
and each k that follow have some together: t frames have 1 + ⌈(t - 1) / k⌉ times of codes. These know the frames before
them, so they are decoded from the beginning of their video on.

What a shard holds beyond its last line belongs to a video that was not finished, and is never read.
"""

from __future__ import annotations

import math
import zlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt
from torch import Tensor
from torch.utils.data import Dataset

if TYPE_CHECKING:
    import datasets
from vqgan.backbones.backbone import Downsampling
from vqgan.errors import DataError, missing_extra
from vqgan.files.reading import size_of
from vqgan.text import counted
from vqgan.tokens.batches import TokenBatch, batches
from vqgan.tokens.records import Record, read_manifest, read_records, smallest_type, unpack_times
from vqgan.tokens.side import Side, read_side
from vqgan.video.times import average_rate

SHARDS = "shard-*.jsonl"
Codes = UInt[np.ndarray, "times rows columns *depth"]


@dataclass(frozen=True)
class TokenVideo:
    """The tokens of one video, and what is needed to show them as it was."""

    path: str  # below the folder of videos
    codes: Codes = field(repr=False)  # in a token folder a view of the shard: nothing is read before it is used
    time_base: float  # seconds per unit of `times`
    times: Int[np.ndarray, "frames"] = field(repr=False)
    width: int  # of the part of the source that was encoded, upright, in pixels
    height: int
    side: Side | None = field(default=None, repr=False)  # numbers that lay beside the video, a row a frame

    @property
    def frames(self) -> int:
        """How many there are; times of codes there are fewer where several frames share a code."""
        return len(self.times)

    @property
    def fps(self) -> float:
        """Frames per second, on average."""
        return average_rate(self.time_base, self.times)

    @property
    def seconds(self) -> Float[np.ndarray, "frames"]:
        """Time of each frame, the first at 0."""
        return (self.times - self.times[0]) * self.time_base


def open(folder: str | Path) -> Tokens:  # `vqgan.tokens.open` is what it is called by
    """Open a folder that `vqgan encode` wrote; one that is still being written shows the videos finished so far.

    Raises:
        ConfigError: it is no such folder.
        DataError: it is damaged.
    """
    return Tokens(Path(folder))


class Tokens(Sequence[TokenVideo]):
    """The videos of a token folder, in the order of their paths; codes are memory-mapped.

    Args:
        folder: written by `vqgan encode`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = read_manifest(folder)
        self.codebook_size: int = self.manifest["codebook_size"]
        self.depth: int = self.manifest.get("depth", 1)  # codes of a position
        self.temporal_downsampling: int = self.manifest.get("temporal_downsampling", 1)  # frames to a code
        self.dtype = smallest_type(self.codebook_size)
        downsampling = Downsampling(self.temporal_downsampling, 1, 1)
        found: dict[str, tuple[Record, Path]] = {}
        for listed in sorted(folder.glob(SHARDS)):
            for record in read_records(listed):
                if downsampling.times(record.length) != record.shape[0]:
                    raise DataError(
                        f"{listed} is damaged: {record.path} has {record.shape[0]} times of codes for {record.length} "
                        f"frames, {self.temporal_downsampling} to a code. Copy it there again."
                    )
                found.setdefault(record.path, (record, listed.with_suffix(".bin")))
        self.records = [found[path] for path in sorted(found)]
        self._maps: dict[Path, np.ndarray[Any, Any]] = {}

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: Any) -> Any:
        """Video `index`; of a slice a list of them."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        record, shard = self.records[index]
        times = unpack_times(record.times, record.length)
        return TokenVideo(
            record.path,
            self._codes(record, shard),
            record.time_base,
            times,
            record.width,
            record.height,
            read_side(self.folder, record.path, len(times)),
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": {}}  # a worker process maps the files anew instead of copying them

    @property
    def paths(self) -> list[str]:
        """Of the videos, below the folder that was encoded."""
        return [record.path for record, _ in self.records]

    def codes(self, index: int) -> Codes:
        """Those of video `index`, without what else is known of it."""
        return self._codes(*self.records[index])

    @property
    def total(self) -> int:
        """How many codes there are in all videos."""
        return sum(math.prod(record.shape) for record, _ in self.records)

    def verify(self) -> None:
        """Compare every video's bytes with its checksum.

        Raises:
            DataError: they differ.
        """
        for record, shard in self.records:
            if zlib.crc32(self._codes(record, shard).tobytes()) != record.crc32:
                raise DataError(f"{shard} is damaged: the codes of {record.path} are not those that were written.")

    @property
    def grids(self) -> dict[tuple[int, ...], int]:
        """(rows, columns[, depth]) of the videos' codes, and how many videos have each, the commonest first."""
        return dict(Counter(tuple(record.shape[1:]) for record, _ in self.records).most_common())

    def __repr__(self) -> str:
        grids = ", ".join(f"{'×'.join(map(str, grid))} ({count})" for grid, count in self.grids.items())
        return (
            f"Tokens({str(self.folder)!r}: {counted(len(self), 'video')}, {counted(self.total, 'token')} of "
            f"{self.codebook_size:,} codes, grids {grids or 'none'})"
        )

    def batches(self, times: int, batch_size: int, seed: int, start: int = 0) -> Iterator[TokenBatch]:
        """Batches for a transformer, without end: random runs of `times` times of codes, each of one video.

        Each begins with a whole frame (or latent frame), and all of a batch have the same grid, however many grids the
        folder has. Batch n is a function of the seed and n alone.

        Args:
            times: of codes in a run; frames, where each frame has codes of its own.
            batch_size: runs in a batch.
            seed: of what is drawn.
            start: number of the first batch, for a run that goes on.

        Raises:
            DataError: no video is so long.
            InvalidValueError: a number is not positive.
        """
        shapes = [record.shape for record, _ in self.records]
        return batches(self.folder, shapes, self.codes, times, batch_size, seed, start)

    def clips(self, frames: int, stride: int = 1) -> TokenClips:
        """All clips of `frames` frames that do not overlap, taking every `stride`-th frame.

        Where several frames share a code, these are times of codes, each of which knows those before it in its video,
        also those before the clip: a clip is to be predicted, not to be decoded by itself.

        Raises:
            ValueError: a stride, where codes of several frames would be left out.
        """
        if stride > 1 and self.temporal_downsampling > 1:
            raise ValueError(f"stride={stride} would leave out codes, which {self.temporal_downsampling} frames share.")
        return TokenClips(self, frames, stride)

    def sequences(self, length: int) -> TokenSequences:
        """All runs of `length` codes that do not overlap, frame by frame, row by row: a transformer's input.

        The codes of one position come one after the other. They begin wherever the one before ends, which may be in
        the middle of a frame; `batches` gives whole frames.

        Raises:
            DataError: all videos are shorter.
        """
        sequences = TokenSequences(self, length)
        if self.records and not len(sequences):
            longest = max(math.prod(record.shape) for record, _ in self.records)
            raise DataError(f"{self.folder} has no video of {length:,} codes: the longest has {longest:,}.")
        return sequences

    def to_datasets(self, cache_dir: str | None = None) -> datasets.Dataset:
        """A Hugging Face data set, a row per video: `path`, `fps`, `frames`, `width`, `height`, `codes`.

        They are (times, rows, columns), or (times, rows, columns, depth).

        Raises:
            ConfigError: the package `datasets` is not installed.
        """
        try:
            from datasets import Dataset, Features, List, Value
        except ImportError:
            raise missing_extra("A Hugging Face data set", "hub") from None
        codes = List(List(List(Value(self.dtype.newbyteorder("=").name))))
        codes = List(codes) if self.depth > 1 else codes
        numbers = {"fps": Value("float64"), **{key: Value("int64") for key in ("frames", "width", "height")}}
        features = Features({"path": Value("string"), **numbers, "codes": codes})
        return Dataset.from_generator(_rows, features=features, gen_kwargs={"tokens": self}, cache_dir=cache_dir)

    def _codes(self, record: Record, shard: Path) -> Codes:
        if shard not in self._maps:
            try:
                size_of(shard)  # of no regular file, the opening of which could last for ever
                self._maps[shard] = np.memmap(shard, np.uint8, "r")
            except (OSError, ValueError) as error:
                raise DataError(f"{shard} cannot be read: {error}.") from None
        size = math.prod(record.shape) * self.dtype.itemsize
        content = self._maps[shard][record.offset : record.offset + size]
        if len(content) < size:
            raise DataError(
                f"{shard} is cut off: it does not hold all codes of {record.path}. Copy it there again, or type the "
                "same vqgan encode, which encodes anew what is missing."
            )
        return np.asarray(content).view(self.dtype).reshape(record.shape)


class TokenClips(Dataset[Tensor]):
    """Clips of codes, int64 (time, rows, columns[, depth]), of the videos that are long enough."""

    def __init__(self, tokens: Tokens, frames: int, stride: int) -> None:
        self.tokens, self.frames, self.stride = tokens, frames, stride
        self.span = (frames - 1) * stride + 1
        self.ends = list(accumulate(record.shape[0] // self.span for record, _ in tokens.records))

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def __getitems__(self, indices: Sequence[int]) -> list[Tensor]:
        """Several at once, as a DataLoader asks for a batch.

        Raises:
            DataError: they cannot be stacked, since their videos have different grids.
        """
        found = [self[index] for index in indices]
        if len({clip.shape for clip in found}) > 1:
            raise DataError(
                f"{self.tokens.folder} has videos of {len(self.tokens.grids)} grids, and clips of different ones do "
                "not stack: encode with square=true, or take tokens.batches(…), of which each has one grid."
            )
        return found

    def __getitem__(self, index: int) -> Int[Tensor, "time rows columns *depth"]:
        video, part = self._locate(index)
        return _as_tensor(self.tokens[video].codes[part])

    def side(self, index: int) -> Side | None:
        """The numbers that lie beside the frames of clip `index`, a row each; None where its video has none."""
        video, part = self._locate(index)
        rows = self.tokens[video].side
        return None if rows is None else np.asarray(rows[part])

    def _locate(self, index: int) -> tuple[int, slice]:
        video, number = _locate(self.ends, index)
        first = number * self.span
        return video, slice(first, first + self.span, self.stride)


class TokenSequences(Dataset[Tensor]):
    """Runs of codes, int64 (length,), each within one video; what is left over at a video's end is not used."""

    def __init__(self, tokens: Tokens, length: int) -> None:
        self.tokens, self.length = tokens, length
        self.ends = list(accumulate(math.prod(record.shape) // length for record, _ in tokens.records))

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def __getitem__(self, index: int) -> Int[Tensor, "length"]:
        video, number = _locate(self.ends, index)
        flat = self.tokens[video].codes.reshape(-1)
        return _as_tensor(flat[number * self.length : (number + 1) * self.length])


def _locate(ends: list[int], index: int) -> tuple[int, int]:
    if not -(ends[-1] if ends else 0) <= index < (ends[-1] if ends else 0):
        raise IndexError(index)
    index %= ends[-1]
    video = bisect_right(ends, index)
    return video, index - (ends[video - 1] if video else 0)


def _as_tensor(codes: UInt[np.ndarray, "..."]) -> Int[Tensor, "..."]:
    return torch.from_numpy(codes.astype(np.int64))


def _rows(tokens: Tokens) -> Iterator[dict[str, Any]]:
    for video in tokens:
        yield {
            "path": video.path, "fps": video.fps, "frames": video.frames, "width": video.width,
            "height": video.height, "codes": video.codes,
        }  # fmt: skip
